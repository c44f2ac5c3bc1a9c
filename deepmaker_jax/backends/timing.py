"""Clocks: several programs in turn, so that drift of the machine hits all alike."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Timing(NamedTuple):
    """How long one call takes.

    Attributes:
      median_ms: half of the calls were not slower.
      p95_ms: 95 % of them were not slower.
      num_calls: that were timed.
    """

    median_ms: float
    p95_ms: float
    num_calls: int


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    num_rounds: int,
    num_warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Times every call once a round, after calls that are not counted.

    Args:
      calls: what to time, by name.
      num_rounds: timed calls of each; at least 1.
      num_warmup: calls of each before that, in the same order.
      clock: seconds that never go back.
    """
    for _ in range(num_warmup):
        for call in calls.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(num_rounds):
        for name, call in calls.items():
            began = clock()
            call()
            seconds[name].append(clock() - began)
    return {
        name: Timing(
            1000 * float(np.median(taken)), 1000 * float(np.percentile(taken, 95)), len(taken)
        )
        for name, taken in seconds.items()
    }
