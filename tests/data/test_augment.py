"""Augmentation against np.pad and slicing, on images whose pixels are all different."""

import collections
import itertools

import jax
import numpy as np
import pytest

from deepmaker_jax.data.augment import Augmentation, augment, default_augmentation

SIDE = (6, 7)
IMAGE = np.random.default_rng(0).permutation(256)[: 6 * 7 * 3].reshape(6, 7, 3).astype(np.uint8)
MANY = np.broadcast_to(IMAGE, (3000, 6, 7, 3))
apply = jax.jit(augment, static_argnames="settings")


def shifted(image, down, right, crop):
    """The crop at (down, right) of the reflected image, by NumPy."""
    padded = np.pad(image, ((crop, crop), (crop, crop), (0, 0)), mode="reflect")
    height, width = image.shape[:2]
    return padded[down : down + height, right : right + width]


def run(images, key=0, **settings):
    result = np.asarray(apply(jax.random.key(key), images, settings=Augmentation(**settings)))
    assert result.dtype == np.float32
    assert result.shape == images.shape
    return result


def test_nothing_asked_for_nothing_done():
    np.testing.assert_array_equal(run(MANY[:4], crop=0), MANY[:4])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [1, 2, 5])
def test_every_result_is_one_shift_of_the_padded_image_and_every_shift_occurs(flip, crop):
    ways = collections.Counter()  # far reflections of different shifts can coincide
    for down, right in itertools.product(range(2 * crop + 1), repeat=2):
        one = shifted(IMAGE, down, right, crop).astype(np.float32)
        for image in (one, one[:, ::-1]) if flip else (one,):
            ways[image.tobytes()] += 1
    found = collections.Counter(x.tobytes() for x in run(MANY, crop=crop, flip=flip))
    assert found.keys() == ways.keys()
    for image, count in found.items():
        expected = len(MANY) * ways[image] / ways.total()
        assert abs(count - expected) < 6 * np.sqrt(expected)


def test_everything_together_stays_within_the_pixels_range():
    extremes = np.random.default_rng(1).choice([0, 255], (64, 6, 7, 3)).astype(np.uint8)
    results = run(extremes, crop=3, flip=True)
    assert results.min() == 0
    assert results.max() == 255


def test_the_same_key_gives_the_same_images_and_another_key_others():
    settings = {"crop": 2, "flip": True}
    np.testing.assert_array_equal(run(MANY[:50], key=1, **settings), run(MANY[:50], 1, **settings))
    assert not np.array_equal(run(MANY[:50], key=1, **settings), run(MANY[:50], 2, **settings))


def test_an_image_depends_on_key_and_position_alone():
    settings = {"crop": 2, "flip": True}
    images = np.random.default_rng(2).integers(0, 256, (40, 6, 7, 3), np.uint8)
    base = run(images, **settings)
    other = images.copy()
    other[7] = 255 - other[7]
    changed = np.any(run(other, **settings) != base, axis=(1, 2, 3))
    assert np.flatnonzero(changed).tolist() == [7]
    np.testing.assert_array_equal(run(images[:9], **settings), base[:9])


def test_lanes_under_vmap_equal_single_calls():
    settings = Augmentation(crop=2, flip=True)
    images = np.array(MANY[:20])
    keys = jax.random.split(jax.random.key(4), 3)
    lanes = jax.vmap(lambda key: augment(key, images, settings=settings))(keys)
    for key, lane in zip(keys, lanes, strict=True):
        np.testing.assert_allclose(lane, apply(key, images, settings=settings), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"crop": -1}, "crop=-1 must be a whole number of pixels"),
        ({"crop": 1.5}, "crop=1.5 must be"),
        ({"crop": True}, "crop=True must be"),
        ({"flip": 1}, "flip=1 must be true or false"),
    ],
)
def test_bad_settings_are_refused(settings, match, refuses):
    with refuses(match):
        Augmentation(**settings)


def test_reflection_needs_a_crop_below_the_shorter_side(refuses):
    run(MANY[:2], crop=5)
    with refuses("crop=6 must be below the image's shorter side, 6,"):
        Augmentation(crop=6).check((6, 7, 3))
    with refuses("crop=6 must be below"):
        run(MANY[:2], crop=6)


def test_defaults_flip_cifar_only():
    assert default_augmentation("cifar10", image_shape=(32, 32, 3)) == Augmentation(4, flip=True)
    assert default_augmentation("cifar100", image_shape=(32, 32, 3)).flip
    assert default_augmentation("mnist", image_shape=(28, 28, 1)) == Augmentation(3, flip=False)
    assert default_augmentation("digits", image_shape=(8, 8, 1)).crop == 1
    assert default_augmentation("images", image_shape=(64, 48, 3)) == Augmentation(6, flip=False)
