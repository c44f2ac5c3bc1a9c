"""A stand-in for workers that train: a formula instead of training, on a clock that can be made up.

Behind the executor's interface, for measuring the host loop and for tests of it.
"""

import hashlib
import heapq
import itertools
import time
from collections.abc import Callable, Iterator

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.cost import cost
from deepmaker_jax.execute import Outcome, Unit


def accuracy(arch: ArchSpec, num_epochs: int) -> float:
    """More parameters and epochs help, less and less; some choices are better.

    A hash stands for luck, which is another after other epochs.
    """
    luck = hashlib.sha256(f"{arch} {num_epochs}".encode()).digest()[0] / 25_500
    taste = {"relu": 0.0, "relu6": 0.02, "hard_swish": 0.05, "silu": 0.06}.get(arch.activation, 0.1)
    taste += {"none": 0.0, "stride": 0.05, "pool": 0.1}[arch.stem_reduction]
    taste += 0.05 * (arch.stages[0].kernel == 5) + 0.03 * abs(len(arch.stages) - 2)
    best = 1 - 0.8 * (500 / (500 + cost(arch).params)) ** 0.3 - taste / 2 - luck
    return max(0.0, best) * (1 - 0.3 / num_epochs)


def answer(unit: Unit, seconds: float = 3.5) -> Outcome:
    """Returns what a training would have come to."""
    right = accuracy(unit.arch, unit.num_epochs)
    measured = {"val_accuracy": right, "val_loss": 1 - right, "train_loss": 0.1}
    return Outcome(unit.id, unit.stage, "ok", None, measured, {"train": seconds})


class Cluster:
    """Workers that take as long for a unit as they are told, the first submitted first.

    Attributes:
      num_workers: units at once.
      idle_seconds: of all workers, from the first unit's begin to the last one's end so far.
      host_seconds: that passed outside: what the host loop needs.
    """

    def __init__(
        self,
        num_workers: int,
        seconds_of: Callable[[Unit], float],
        *,
        is_real: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Makes the workers.

        Args:
          num_workers: units at once.
          seconds_of: how long a unit takes.
          is_real: the host loop really waits for it; else time is made up, but for
            what the host loop itself needs, which is added.
          clock: says what time it is for the host loop, in seconds.
        """
        self.num_workers, self.host_seconds, self.num_done = num_workers, 0.0, 0
        self._seconds_of, self._is_real, self._clock = seconds_of, is_real, clock
        self._came = itertools.count()
        self._free = [0.0] * num_workers  # when each worker is done, a heap
        self._doing: list[tuple[float, int, Unit]] = []  # by their end, a heap
        self._busy = self._now = 0.0
        self._since = clock()

    @property
    def seconds(self) -> float:
        """How long it has all taken until now."""
        return self._now

    @property
    def idle_share(self) -> float:
        """Share of all workers' time until now in which they had nothing to do."""
        return 1 - self._busy / (self.num_workers * self._now)

    def _tick(self) -> None:
        """Lets the time pass that the host loop has needed since it was last answered."""
        now = self._clock()
        self.host_seconds += now - self._since
        self._now += now - self._since
        self._since = now

    def submit(self, unit: Unit) -> None:
        """Gives the unit to the worker that is free first."""
        self._tick()
        seconds = self._seconds_of(unit)
        end = max(heapq.heappop(self._free), self._now) + seconds
        heapq.heappush(self._free, end)
        heapq.heappush(self._doing, (end, next(self._came), unit))
        self._busy += seconds

    def results(self) -> Iterator[Outcome]:
        """Yields outcomes as they end."""
        while self._doing:
            self._tick()
            end, _, unit = heapq.heappop(self._doing)
            if self._is_real:
                time.sleep(max(0.0, end - self._now))
            self._now, self._since = max(self._now, end), self._clock()
            self.num_done += 1
            yield answer(unit)

    def close(self) -> None:
        """Has nothing to end."""
