"""How sure a figure is: what comes out with rows drawn again, with replacement (bootstrap)."""

from collections.abc import Iterator, Sequence

import numpy as np

DRAWS, ENDS = 1000, (5, 95)  # percentiles


def drawn(num: int) -> Iterator[np.ndarray]:
    """Yields draws of `num` of as many rows, Int[num], the same each time."""
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        yield rng.integers(num, size=num)


def interval(values: Sequence[float] | np.ndarray, *, places: int = 4) -> list[float]:
    """Returns what holds 90 % of the values that draws gave."""
    return [round(float(end), places) for end in np.percentile(values, ENDS)]
