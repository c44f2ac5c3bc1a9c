"""The MNIST family's idx files."""

import gzip
import shutil

import numpy as np
import pytest

from deepmaker_jax.data import load
from deepmaker_jax.data.idx import read_idx


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_four_files_under_any_of_their_names(name, dot, ending, tmp_path, write_mnist):
    arrays = write_mnist(tmp_path, dot=dot, ending=ending)
    dataset = load(name, path=tmp_path)
    assert dataset.train_images.shape == (20, 28, 28, 1)
    np.testing.assert_array_equal(dataset.train_images[..., 0], arrays["train-images"])
    np.testing.assert_array_equal(dataset.test_images[..., 0], arrays["t10k-images"])
    np.testing.assert_array_equal(dataset.train_labels, arrays["train-labels"])
    np.testing.assert_array_equal(dataset.test_labels, arrays["t10k-labels"])
    assert dataset.class_names[7] == ("7" if name == "mnist" else "Sneaker")
    assert dataset.test_split == "official"
    assert dataset.source == "official idx files"


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "fashion_mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
def test_parent_folder(name, below, tmp_path, write_mnist):
    write_mnist(tmp_path / below)
    direct = load(name, path=tmp_path / below)
    assert load(name, path=tmp_path).fingerprint == direct.fingerprint


def test_missing_file_is_named(tmp_path, write_mnist, refuses):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with refuses(r"lacks t10k-labels-idx1-ubyte \(or \.gz\): add the missing file"):
        load("mnist", path=tmp_path)


IMAGES = np.arange(2 * 5 * 4, dtype=np.uint8).reshape(2, 5, 4)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"magic": 0x0801}, "starts with 0x00000801, not 0x00000803"),
        ({"magic": 0x0D03}, "starts with 0x00000d03, not 0x00000803"),
        ({"extra": b"x"}, "goes on past the 40 bytes"),
        ({"cut": 1}, "is cut short of the 40 bytes"),
        ({"cut": 45}, "ends inside its header"),
    ],
)
def test_damaged_file_is_refused(ending, options, match, tmp_path, write_idx, refuses):
    file = tmp_path / f"images{ending}"
    write_idx(file, IMAGES)
    np.testing.assert_array_equal(read_idx(file, axes=3), IMAGES)
    write_idx(file, IMAGES, **options)
    with refuses(match):
        read_idx(file, axes=3)


@pytest.mark.parametrize("shape", [(0, 28, 28), (2**31, 28, 28), (2**32 - 1, 2**32 - 1, 2**32 - 1)])
def test_absurd_shape_is_refused_before_reading(shape, tmp_path, refuses):
    head = b"".join(size.to_bytes(4, "big") for size in (0x0803, *shape))
    (tmp_path / "images").write_bytes(head)
    with refuses("images declares the shape"):
        read_idx(tmp_path / "images", axes=3)


def test_gzip_cut_short_or_damaged_is_refused(tmp_path, refuses):
    whole = gzip.compress(np.random.default_rng(0).bytes(3000))
    file = tmp_path / "labels.gz"
    for bad, match in (
        (b"plain text", "Not a gzipped file"),
        (b"", "ends inside its header"),
        (whole[:8], "cannot be read"),
    ):
        file.write_bytes(bad)
        with refuses(f"labels.gz .*{match}"):
            read_idx(file, axes=1)


def test_wrong_sum_in_gzip_is_refused(tmp_path, write_idx, refuses):
    file = tmp_path / "images.gz"
    write_idx(file, IMAGES)
    data = bytearray(file.read_bytes())
    data[-6] ^= 255
    file.write_bytes(data)
    with refuses("images.gz cannot be read .CRC check failed"):
        read_idx(file, axes=3)


def test_labels_must_fit_images_and_classes(tmp_path, write_mnist, write_idx, refuses):
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    write_idx(labels, np.arange(10, dtype=np.uint8))
    with refuses("20 train images but 10 train labels"):
        load("mnist", path=tmp_path)
    write_idx(labels, np.arange(20, dtype=np.uint8))
    with refuses("train labels run from 0 to 19 but there are 10 classes"):
        load("mnist", path=tmp_path)
    write_idx(labels, np.arange(20, dtype=np.uint8) % 9)
    with refuses(r"class 9 \('9'\) has no train images"):
        load("mnist", path=tmp_path)


def test_real_fashion_mnist(real_data, tmp_path, refuses):
    folder = real_data / "fashion-mnist"
    dataset = load("fashion_mnist", path=folder)
    assert dataset.train_images.shape == (60_000, 28, 28, 1)
    assert dataset.test_images.shape == (10_000, 28, 28, 1)
    assert np.bincount(dataset.train_labels).tolist() == [6000] * 10
    assert np.bincount(dataset.test_labels).tolist() == [1000] * 10
    assert load("fashion_mnist", path=real_data).fingerprint == dataset.fingerprint
    with refuses("holds fashion_mnist, not mnist: name the folder of mnist"):
        load("mnist", path=folder)
    for file in folder.iterdir():
        with gzip.open(file) as packed, (tmp_path / file.stem).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    assert load("fashion_mnist", path=tmp_path).fingerprint == dataset.fingerprint
