"""How numbers and foreign text look."""

import math

import pytest

from deepmaker_jax.report import text


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (text.whole, 40794, "40,794"),
        (text.whole, None, "-"),
        (text.whole, 10**400, "-"),
        (text.whole, 1e31, "-"),
        (text.whole, 5e-324, "0"),
        (text.short, 0.3125, "0.312"),
        (text.short, 950, "950"),
        (text.short, 999.6, "1.00k"),
        (text.short, 40794, "40.8k"),
        (text.short, 99960, "100k"),
        (text.short, 999_700, "1.00M"),
        (text.short, 11_600_000, "11.6M"),
        (text.short, 2.5e9, "2.50G"),
        (text.short, 0, "0"),
        (text.short, -40794, "-40.8k"),
        (text.short, math.nan, "-"),
        (text.size, 812, "812 B"),
        (text.size, 98496, "96.2 KB"),
        (text.size, 1024 * 1024, "1.00 MB"),
        (text.size, "98496", "-"),
        (text.percent, 0.8697, "86.97 %"),
        (text.percent, math.inf, "-"),
        (text.percent, True, "-"),
        (text.times, 26.41, "26.4x"),
        (text.times, 1.0, "1.00x"),
        (text.times, 1642.0, "1,642x"),
        (text.points, 4.006, "4.01"),
        (text.points, -0.001, "0.00"),
        (text.duration, 45.4, "45 s"),
        (text.duration, 59.9, "1 min"),
        (text.duration, 3599, "1 h 00 min"),
        (text.duration, 11100, "3 h 05 min"),
        (text.duration, 187200, "2 d 4 h"),
        (text.duration, None, "-"),
    ],
)
def test_a_number_in_words(function, value, expected):
    assert function(value) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.31, "share", "31.00 %"),
        (40960, "bytes", "40.0 KB"),
        (12.5, "ms", "12.5 ms"),
        (12.5, "", "12.5"),
        (None, "ms", "-"),
        (1, "\x1b[31m", "1 \\x1b[31m"),
    ],
)
def test_a_quantity_takes_its_unit(value, unit, expected):
    assert text.quantity(value, unit) == expected


def test_foreign_text_becomes_one_printable_line():
    foreign = "a\nb\tc\x1b[31m\x9b\x07\u202e\ud800\u200b\U000e0001é漢"
    assert (
        text.plain(foreign) == "a\\x0ab\\x09c\\x1b[31m\\x9b\\x07\\u202e\\ud800\\u200b\\U000e0001é漢"
    )


def test_long_text_is_cut():
    assert text.plain("x" * 400, limit=10) == "x" * 9 + "…"
