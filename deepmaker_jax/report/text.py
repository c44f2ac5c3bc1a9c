"""How numbers and foreign text look, alike in the terminal and on the page.

Every function returns plain text without control characters; HTML is escaped on
top of that by the page. 1 KB is 1024 bytes.
"""

import math
from collections.abc import Sequence
from typing import Any

from deepmaker_jax.terminal import plain

NONE = "-"  # where a value is missing
MOST, LEAST = 1e30, 1e-30  # past these nothing is measured, and axes would overflow


def either(words: Sequence[str]) -> str:
    """Returns words as a choice: a, b or c."""
    *rest, last = words
    return f"{', '.join(rest)} or {last}" if rest else last


def number(value: Any) -> float | None:
    """Returns a number from a file as float; None for anything else, or past `MOST`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    if not abs(result) <= MOST:
        return None
    return result if abs(result) >= LEAST else 0.0


def whole(value: Any) -> str:
    """Returns a count with every digit: 40,794."""
    value = number(value)
    return NONE if value is None else f"{value:,.0f}"


def short(value: Any) -> str:
    """Returns a number in three digits: 0.312, 950, 40.8k, 11.6M."""
    value = number(value)
    if value is None:
        return NONE
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            scaled = value / factor
            digits = max(0, 2 - int(math.log10(abs(scaled) * 1.0005)))
            return f"{scaled:.{digits}f}{suffix}"
    return f"{value:.3g}"


def size(num_bytes: Any) -> str:
    """Returns bytes with their unit: 812 B, 39.8 KB, 1.02 MB."""
    num_bytes = number(num_bytes)
    if num_bytes is None:
        return NONE
    if num_bytes < 1024:
        return f"{num_bytes:.0f} B"
    if num_bytes < 1000 * 1024:
        return f"{num_bytes / 1024:.1f} KB"
    return f"{num_bytes / 1024**2:.2f} MB"


def hundredths(share: Any) -> str:
    """Returns a share as 86.97, for a column that is headed by %."""
    share = number(share)
    return NONE if share is None else f"{100 * share:.2f}"


def percent(share: Any) -> str:
    """Returns a share as 86.97 %."""
    words = hundredths(share)
    return words if words == NONE else f"{words} %"


def times(factor: Any) -> str:
    """Returns a ratio as 26.4x."""
    factor = number(factor)
    if factor is None:
        return NONE
    digits = 2 if factor < 10 else 1 if factor < 1000 else 0
    return f"{factor:,.{digits}f}x"


def points(value: Any) -> str:
    """Returns percentage points: 4.01; gained ones are negative."""
    value = number(value)
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return NONE if value is None else f"{round(value, 2) + 0.0:.2f}"


def duration(seconds: Any) -> str:
    """Returns a length of time in its two leading units: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    seconds = number(seconds)
    if seconds is None:
        return NONE
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


def quantity(value: Any, unit: str) -> str:
    """Returns an objective's raw value as its unit asks: bytes, share, or a number and the unit."""
    if unit == "bytes":
        return size(value)
    if unit == "share":
        return percent(value)
    text = short(value)
    return text if text == NONE or not unit else f"{text} {plain(unit, limit=40)}"
