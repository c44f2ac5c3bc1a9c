"""Corruptions against plain formulas, and what they must never do."""

import colorsys
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from deepmaker_jax.data.corruption import KINDS, SEVERITIES, corrupt, deal, dealt

RNG = np.random.default_rng(0)
SHAPES = ((8, 8, 1), (5, 7, 3), (32, 32, 3), (9, 9, 2), (70, 64, 3))
NEUTRAL = {
    "gaussian_noise": 0.0, "gaussian_blur": 0.0, "brightness": 0.0, "contrast": 1.0,
    "jpeg_compression": 100,
}  # fmt: skip


def pictures(shape, num=4):
    """Smooth pictures, as photographs are, with black and white in them."""
    height, width, channels = shape
    y, x = np.mgrid[:height, :width]
    phases = RNG.uniform(0, 6, (num, 1, 1, channels))
    waves = np.sin(0.4 * x[..., None] + phases) + np.cos(0.3 * y[..., None] - phases)
    return np.rint(np.clip(127.5 + 80 * waves, 0, 255)).astype(np.uint8)


def distance(images, kind, severity):
    changed = corrupt(images, kind, severity=severity, seed=0)
    return np.mean((changed.astype(float) - images) ** 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_severities_go_further_and_further_from_the_picture(kind, shape):
    images = pictures(shape, num=20)
    distances = [distance(images, kind, severity) for severity in range(1, 6)]
    assert distances[0] > 0
    assert distances[-1] > 1.2 * distances[0]
    # JPEG's tables may by chance hit a small picture's colours better at the next quality.
    slack = 0.95 if kind == "jpeg_compression" else 1
    assert all(after > slack * before for before, after in itertools.pairwise(distances))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_at_no_strength_a_picture_stays_what_it_is(kind, shape):
    images = pictures(shape)
    same = KINDS[kind].change(images.astype(np.float32), NEUTRAL[kind], RNG).astype(float)
    # The best JPEG still halves the colours' resolution.
    assert np.abs(same - images).mean() < (8 if kind == "jpeg_compression" else 1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_is_a_function_of_its_arguments_and_gives_pictures(kind, shape):
    images = pictures(shape)
    before = images.copy()
    first, again, other = (corrupt(images, kind, severity=5, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(first, again)
    assert (first.dtype, first.shape) == (np.uint8, images.shape)
    assert np.array_equal(first, other) == (kind != "gaussian_noise")


@pytest.mark.parametrize("kind", KINDS)
def test_what_leaves_the_range_is_clipped_and_does_not_wrap(kind):
    extremes = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
    black, white = corrupt(extremes, kind, severity=5, seed=0).astype(int)
    # The deviation of noise is 26 at its strongest; brightness adds 76.
    assert black.max() <= 130
    assert white.min() >= 125


def test_noise_has_the_deviation_that_was_published():
    grey = np.full((50, 32, 32, 3), 128, np.uint8)
    for severity, strength in enumerate(KINDS["gaussian_noise"].strengths, 1):
        noise = corrupt(grey, "gaussian_noise", severity=severity, seed=0) - 128.0
        assert noise.std() == pytest.approx(255 * strength, rel=0.02)
        assert abs(noise.mean()) < 0.3


def test_brightness_is_added_to_the_value_of_hsv():
    image = RNG.integers(0, 256, (1, 6, 6, 3)).astype(np.uint8)
    image[0, 0, 0] = 0
    wanted = []
    for pixel in image.reshape(-1, 3) / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        wanted.append(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.15, 1)))
    found = corrupt(image, "brightness", severity=3, seed=0)
    assert np.abs(found.reshape(-1, 3) - 255 * np.array(wanted)).max() <= 0.51


def test_contrast_shrinks_each_channel_around_its_mean():
    image = pictures((6, 6, 3), num=1)
    mean = image.mean((1, 2), keepdims=True)
    wanted = np.rint(mean + 0.4 * (image - mean))
    found = corrupt(image, "contrast", severity=3, seed=0)
    assert np.abs(found - wanted).max() <= 1  # a half may be rounded either way


@pytest.mark.parametrize("side", [8, 32, 64])
def test_blur_spreads_a_line_by_its_deviation_in_pixels_of_a_picture_of_32(side):
    line = np.zeros((1, side, side, 1), np.uint8)
    line[0, side // 2] = 255
    found = corrupt(line, "gaussian_blur", severity=5, seed=0)[0, :, 0, 0].astype(float)
    squares = (np.arange(side) - side // 2) ** 2
    variance = (found * squares).sum() / found.sum()
    assert variance == pytest.approx(max(1, side / 32) ** 2, rel=0.05)  # of rounded pixels


def test_jpeg_is_pillows_of_the_published_quality_also_for_grey():
    for channels, mode in ((3, "RGB"), (1, "L")):
        image = pictures((16, 16, channels), num=1)
        buffer = io.BytesIO()
        picture = Image.fromarray(image[0] if channels == 3 else image[0, :, :, 0], mode)
        picture.save(buffer, "JPEG", quality=58)
        wanted = np.asarray(Image.open(buffer)).reshape(image.shape)
        found = corrupt(image, "jpeg_compression", severity=3, seed=0)
        np.testing.assert_array_equal(found, wanted)


def test_what_there_is_not_is_refused():
    for kind, severity in (("fog", 1), ("contrast", 0), ("contrast", 6)):
        with pytest.raises(ValueError, match=f"{kind} at {severity} must be one of"):
            corrupt(pictures((8, 8, 1)), kind, severity=severity, seed=0)


@pytest.mark.parametrize(
    ("num", "at_least", "times"), [(1, 1, 1), (7, 100, 15), (40, 100, 3), (100, 100, 1)]
)
def test_pictures_are_dealt_evenly_and_none_meets_a_corruption_twice(num, at_least, times):
    cells = deal(num, at_least=at_least)
    assert {(c.kind, c.severity) for c in cells} == {(k, s) for k in KINDS for s in SEVERITIES}
    counts = np.bincount(np.concatenate([c.rows for c in cells]), minlength=num)
    assert counts.tolist() == [times] * num
    sizes = [len(c.rows) for c in cells]
    assert max(sizes) - min(sizes) <= times
    assert all((np.diff(c.rows) > 0).all() for c in cells)


def test_what_was_dealt_is_each_cells_corruption_of_its_rows():
    images = pictures((8, 8, 1), num=20)
    found, rows = dealt(images, at_least=30, seed=2)
    assert len(found) == len(rows) == 40
    start = 0
    for cell in deal(20, at_least=30):
        part = slice(start, start + len(cell.rows))
        start = part.stop
        np.testing.assert_array_equal(rows[part], cell.rows)
        wanted = corrupt(images[cell.rows], cell.kind, severity=cell.severity, seed=2)
        np.testing.assert_array_equal(found[part], wanted)
