"""The rules by which a file agrees with JAX."""

import numpy as np
import pytest

from deepmaker_jax.export.parity import EXACT, FLOAT16, FLOAT32, QUANTISED, Expected, Rule, compare

NUM = 400


@pytest.fixture
def expected():
    """Logits in 0..10 whose best is clear, but for the first image's."""
    rng = np.random.default_rng(0)
    logits = rng.uniform(0, 8, (NUM, 5)).astype(np.float32)
    logits[np.arange(NUM), np.arange(NUM) % 5] = 10
    logits[0], logits[1] = (10, 10 - 5e-4, 0, 0, 0), (10, 10 - 5e-3, 0, 0, 0)
    images = np.zeros((NUM, 1, 1, 1), np.uint8)
    return Expected(images, np.arange(NUM) % 5, logits)


def changed(expected, row, column, by):
    logits = expected.logits.copy()
    logits[row, column] += np.float32(by)
    return logits


def test_equal_logits_keep_every_rule(expected):
    for rule in (EXACT, FLOAT32, FLOAT16, QUANTISED):
        parity, accuracy, broken = compare(expected.logits, expected, rule)
        assert broken is None
        assert parity["max_abs_error"] == 0
        assert parity["top1_agreement"] == 1
        assert (parity["images"], parity["close_images"]) == (NUM, 1)
        assert parity["logit_range"] == 10
        assert accuracy == np.mean(expected.logits.argmax(1) == expected.labels)


def test_float32_may_change_the_class_of_close_images_only(expected):
    close = changed(expected, 0, 1, 9e-4)
    parity, _, broken = compare(close, expected, FLOAT32)
    assert broken is None
    assert parity["top1_agreement"] == 1 - 1 / NUM
    looser = Rule(max_error=1e-2)
    _, _, broken = compare(changed(expected, 1, 1, 9e-3), expected, looser)
    assert broken == "1 images have another class than in JAX, by more than rounding"


def test_float32_error_is_at_most_a_ten_thousandth_of_the_range(expected):
    assert compare(changed(expected, 5, 3, 9e-4), expected, FLOAT32)[2] is None
    _, _, broken = compare(changed(expected, 5, 3, 2e-3), expected, FLOAT32)
    assert broken is not None
    assert broken.startswith("logits differ from JAX's by 0.002: more than 0.0001")


def test_float16_agrees_on_995_of_1000(expected):
    logits = expected.logits.copy()
    logits[10:12] = [0, 0, 0, 20, 0]
    assert compare(logits, expected, FLOAT16)[2] is None
    logits[12] = [0, 0, 0, 20, 0]
    assert compare(logits, expected, FLOAT16)[2] == (
        "99.25% of the images have the class that JAX gives them: fewer than 99.50%"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_break_every_rule(expected, value):
    for rule in (FLOAT32, FLOAT16, QUANTISED):
        assert compare(changed(expected, 2, 2, value), expected, rule)[2] == (
            "logits are not finite"
        )


def test_a_range_of_more_images_counts_where_it_is_given(expected):
    logits = changed(expected, 5, 3, 2e-3)
    assert compare(logits, expected, FLOAT32, logit_range=100.0)[2] is None
