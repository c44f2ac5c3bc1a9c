"""Pictures by class: modes, sizes, folders, damage."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deepmaker_jax.data import load

RNG = np.random.default_rng(0)


def save(file, array, mode=None, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(file, **options)


def fill(root, classes=("cat", "dog"), each=5, shape=(8, 8, 3)):
    """Writes random pictures; returns their pixels by class."""
    pixels = {}
    for name in classes:
        pixels[name] = RNG.integers(0, 256, (each, *shape), np.uint8)
        for i, array in enumerate(pixels[name]):
            save(root / name / f"{i}.png", array)
    return pixels


def only(dataset, row=0):
    return dataset.train_images[row]


def with_first(tmp_path, first, *, grey=False, name="a.png", side=None, **options):
    """Loads two classes of blank pictures, "a/a.png" being `first`; returns its pixels."""
    size = first.size if isinstance(first, Image.Image) else first.shape[1::-1]
    blank = Image.new("L" if grey else "RGB", size)
    for split in ("train", "test"):
        save(tmp_path / split / "b" / "b.png", blank)
        save(tmp_path / split / "a" / "b.png", blank)
    save(tmp_path / "train" / "a" / name, first, **options)
    return only(load("images", path=tmp_path, side=side))


def test_train_and_test_folders(tmp_path):
    train = fill(tmp_path / "train", each=3)
    test = fill(tmp_path / "test", each=2)
    dataset = load("images", path=tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.test_split == "official"
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(dataset.train_images, np.concatenate(list(train.values())))
    np.testing.assert_array_equal(dataset.test_images, np.concatenate(list(test.values())))


def test_what_lies_beside_train_and_test_is_counted(tmp_path):
    for split in ("train", "test", "val"):
        fill(tmp_path / split)
    (tmp_path / "README").write_text("two")
    source = load("images", path=tmp_path).source
    assert source == (
        "pictures by class: 10 train and 10 test, 2 other entries ignored, sizes kept"
    )


def test_plain_class_folders_hold_out_a_fifth(tmp_path):
    fill(tmp_path)
    dataset = load("images", path=tmp_path)
    assert dataset.test_split == "held out 20 % (stratified, seed 0)"
    assert dataset.train_labels.tolist() == [0] * 4 + [1] * 4
    assert dataset.test_labels.tolist() == [0, 1]


def test_hidden_files_are_passed_over_and_others_counted(tmp_path):
    fill(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "cat" / "notes.txt").write_text("two")
    (tmp_path / "dog" / "more").mkdir()
    (tmp_path / "LICENSE").write_text("three")
    dataset = load("images", path=tmp_path)
    assert dataset.source == "pictures by class: 10 train, 3 other entries ignored, sizes kept"
    assert str(tmp_path) not in dataset.source


def test_endings_in_any_case_and_jpeg(tmp_path):
    fill(tmp_path)
    save(tmp_path / "cat" / "x.JPG", np.full((8, 8, 3), 77, np.uint8))
    save(tmp_path / "cat" / "y.Jpeg", np.full((8, 8, 3), 78, np.uint8))
    dataset = load("images", path=tmp_path)
    assert "12 train" in dataset.source
    assert {77, 78} <= set(np.unique([*dataset.train_images, *dataset.test_images]))


def test_all_grey_gives_one_channel_and_a_coloured_one_makes_three(tmp_path):
    pixels = fill(tmp_path / "train", shape=(8, 8))
    fill(tmp_path / "test", shape=(8, 8))
    grey = load("images", path=tmp_path)
    assert grey.train_images.shape == (10, 8, 8, 1)
    np.testing.assert_array_equal(grey.train_images[:5, ..., 0], pixels["cat"])
    save(tmp_path / "test" / "dog" / "z.png", np.full((8, 8, 3), (1, 2, 3), np.uint8))
    mixed = load("images", path=tmp_path)
    np.testing.assert_array_equal(mixed.train_images, np.repeat(grey.train_images, 3, axis=-1))
    assert mixed.test_images[-1, 0, 0].tolist() == [1, 2, 3]


def test_sixteen_bits_are_scaled(tmp_path):
    deep = np.tile(np.array([0, 128, 129, 257, 32768, 65406, 65535, 65535], np.uint16), (8, 1))
    found = with_first(tmp_path, deep, grey=True)
    assert found[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]


def test_one_bit(tmp_path):
    bits = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    found = with_first(tmp_path, bits, grey=True)
    np.testing.assert_array_equal(found[..., 0], np.eye(8) * 255)


def test_alpha_is_laid_over_white(tmp_path):
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[..., 0] = 200
    clear[0, 0, 3], clear[0, 1, 3] = 255, 51  # opaque; a fifth; the rest is clear
    found = with_first(tmp_path, clear)
    assert found[0, 0].tolist() == [200, 0, 0]
    assert found[0, 1].tolist() == [244, 204, 204]
    assert found[1:].min() == 255


def test_grey_alpha_stays_one_channel(tmp_path):
    both = np.zeros((8, 8, 2), np.uint8)
    both[0, 0] = 90, 255
    found = with_first(tmp_path, Image.fromarray(both, "LA"), grey=True)
    assert found.shape == (8, 8, 1)
    assert found[0, 0, 0] == 90
    assert found[1:].min() == 255


def test_palette_with_a_transparent_entry(tmp_path):
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 1)
    found = with_first(tmp_path, image, transparency=0)
    assert found[0, 0].tolist() == [40, 50, 60]
    assert found[1:].min() == 255


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    found = with_first(tmp_path, Image.new("CMYK", (8, 8), (0, 0, 0, 0)), name="a.jpg")
    assert found.shape == (8, 8, 3)
    assert found.min() == 255


def test_centre_square_is_resized(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, :10], wide[:, 10:20], wide[:, 20:] = 50, 100, 150
    found = with_first(tmp_path, wide, side=5)
    assert found.shape == (5, 5, 3)
    assert np.all(found == 100)


def test_shrinking_averages_and_does_not_pick_pixels(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    found = with_first(tmp_path, stripes, grey=True, side=8)
    assert np.all(np.abs(found.astype(int) - 100) <= 5)


def test_pictures_of_the_right_size_are_not_touched(tmp_path):
    array = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(with_first(tmp_path, array, side=8), array)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    turned = np.zeros((16, 8, 3), np.uint8)
    turned[:8] = 240
    fill(tmp_path / "train", shape=(8, 16, 3))
    fill(tmp_path / "test", shape=(8, 16, 3))
    save(tmp_path / "train" / "cat" / "-.jpg", turned, exif=exif, quality=95)
    found = only(load("images", path=tmp_path))
    assert found.shape == (8, 16, 3)  # as large as the others once it is upright
    assert found[:, :7].max() < 20
    assert found[:, 9:].min() > 220


def test_different_sizes_need_side(tmp_path, refuses):
    fill(tmp_path)
    save(tmp_path / "dog" / "x.png", np.zeros((9, 12, 3), np.uint8))
    with refuses(r"picture .*dog.x\.png is 9x12 but .*cat.0\.png 8x8: give --side to resize"):
        load("images", path=tmp_path)
    assert load("images", path=tmp_path, side=6).train_images.shape[1:] == (6, 6, 3)


@pytest.mark.parametrize("side", [3, 0, -1, 5000, 8.0, True])
def test_bad_side_is_refused(side, tmp_path, refuses):
    fill(tmp_path)
    with refuses("side=.* must be a whole number 4..1024"):
        load("images", path=tmp_path, side=side)


def test_small_pictures_are_refused(tmp_path, refuses):
    fill(tmp_path, shape=(3, 3, 3))
    with refuses("train images are 3x3: they must be at least 4x4"):
        load("images", path=tmp_path)


def test_empty_class_folder_is_named(tmp_path, refuses):
    fill(tmp_path)
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "notes.txt").write_text("none yet")
    with refuses("class folder .*bird holds no picture .*: add some or remove the folder"):
        load("images", path=tmp_path)


def test_one_class_only_is_refused(tmp_path, refuses):
    fill(tmp_path, classes=("cat",))
    with refuses(r"images has 1 class \(cat\): a classifier needs at least 2"):
        load("images", path=tmp_path)


def test_folder_without_classes_is_refused(tmp_path, refuses):
    save(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    with refuses("has no class folders: looked for train/CLASS/"):
        load("images", path=tmp_path)


@pytest.mark.parametrize("extra_in", ["train", "test"])
def test_classes_that_differ_are_refused(extra_in, tmp_path, refuses):
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    fill(tmp_path / extra_in, classes=("owl",))
    other = {"train": "test", "test": "train"}[extra_in]
    with refuses(f"class 'owl' is in {extra_in} but not in {other}: train and test must have"):
        load("images", path=tmp_path)


def test_test_without_train_is_refused(tmp_path, refuses):
    fill(tmp_path / "test")
    with refuses("has a folder test but no train"):
        load("images", path=tmp_path)


def png(width, height):
    """A PNG that declares a size and has hardly any data."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def cut(file):
    data = file.read_bytes()
    return data[: len(data) // 2]


def flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    return bytes(data)


@pytest.mark.parametrize(
    ("bad", "way_out"),
    [
        (lambda file: b"", "repair it"),
        (lambda file: b"no picture at all", "repair it"),
        (cut, "repair it"),
        (flipped, "repair it"),
        (lambda file: png(100_000, 100_000), "make it smaller"),  # Pillow's error
        (lambda file: png(12_000, 12_000), "make it smaller"),  # Pillow's warning
        (lambda file: png(8, 8), "repair it"),
    ],
    ids=["empty", "text", "cut", "flipped", "bomb", "large", "no pixels"],
)
def test_unreadable_picture_is_named(bad, way_out, tmp_path, refuses):
    fill(tmp_path)
    file = tmp_path / "dog" / "3.png"
    file.write_bytes(bad(file))
    with refuses(rf"picture .*dog.3\.png cannot be read \(.*\): {way_out} or remove it"):
        load("images", path=tmp_path)


def test_jpeg_cut_short_and_other_formats_are_named(tmp_path, refuses):
    fill(tmp_path)
    file = tmp_path / "cat" / "x.jpg"
    save(file, RNG.integers(0, 256, (8, 8, 3), np.uint8))
    file.write_bytes(cut(file))
    with refuses(r"x\.jpg cannot be read"):
        load("images", path=tmp_path)
    save(file, np.zeros((8, 8, 3), np.uint8), format="GIF")
    with refuses(r"x\.jpg cannot be read"):
        load("images", path=tmp_path)
