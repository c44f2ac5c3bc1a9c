"""A unit of work, what it returns, and the interface of what does it."""

import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.events import Epoch, Note, ProgramChanged
from deepmaker_jax.lanes.size_class import SizeClass
from deepmaker_jax.ledger import OUT_OF_MEMORY

ALIVE = "alive"
ALIVE_SECONDS = 5.0  # between two signs of life of a worker that trains
# Without one for so long, a worker is taken for hung: compiling, which gives none, takes a minute.
PATIENCE_SECONDS = 600.0
StageName = Literal["search", "final"]


class Task(NamedTuple):
    """What all units of a run share.

    Attributes:
      images: UInt8[n, h, w, c], all training images; never a test image. If robust
        accuracy is an objective, corrupted validation images come after them.
      labels: Int32[n].
      search_rows: Int64[k], images that the search trains on.
      validation_rows: Int64[v], images that fitness is measured on.
      input_scale: Float[c], multiplies the raw pixels.
      settings: the recipe.
      seed: the run's seed.
      size_classes: whose programs train the networks that fit, in the stages named by `in_class`.
      in_class: stages; in others each network has a program of its own.
      lanes: for stages whose candidates train side by side, the lanes of each size class's program.
      limit_seconds: that a candidate may train in the search; None for no limit.
      rungs: epochs at which trainings of the search may be stopped, see `train.course.Job`.
      corrupted_rows: Int64[u], the corrupted validation images; None for none.
    """

    images: np.ndarray
    labels: np.ndarray
    search_rows: np.ndarray
    validation_rows: np.ndarray
    input_scale: np.ndarray
    settings: TrainConfig
    seed: int
    size_classes: tuple[SizeClass, ...] = ()
    in_class: tuple[StageName, ...] = ()
    lanes: Mapping[StageName, tuple[int, ...]] = {}
    limit_seconds: float | None = None
    rungs: tuple[int, ...] = ()
    corrupted_rows: np.ndarray | None = None

    @property
    def num_train(self) -> int:
        """How many of the images are training images."""
        return len(self.labels) - (0 if self.corrupted_rows is None else len(self.corrupted_rows))


class Unit(NamedTuple):
    """One candidate to train.

    Attributes:
      id: of the candidate, or what one of its trainings is called: no two units at
        once have the same.
      arch: its architecture.
      stage: "search" trains on the search's images and measures on the
        validation split; "final" trains on all training images.
      num_epochs: epochs.
      checkpoint: file for the state after each epoch, or None.
      weights: file for the trained weights, or None.
      start: weights file to start from, or None for fresh weights.
      seed: of the training; None for the run's.
    """

    id: str
    arch: ArchSpec
    stage: StageName
    num_epochs: int
    checkpoint: pathlib.Path | None = None
    weights: pathlib.Path | None = None
    start: pathlib.Path | None = None
    seed: int | None = None


class Outcome(NamedTuple):
    """What became of a unit, or of a latency; `status` and `reason` as in the ledger."""

    id: str
    stage: Literal["latency", "search", "final"]
    status: Literal["ok", "diverged", "failed", "timeout"]
    reason: str | None
    measured: dict[str, float]
    seconds: dict[str, float]


def longest_first(units: Iterable[Unit]) -> list[Unit]:
    """Returns units of equally many epochs so that no worker is left alone with a long one."""
    return sorted(units, key=lambda unit: -cost(unit.arch).macs)


class Beat:
    """Says now and then, if it is called often, that a worker is alive."""

    def __init__(self, tell: Callable[[str], None]):
        self._tell, self._told = tell, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._told > ALIVE_SECONDS:
            self._tell(ALIVE)
            self._told = time.monotonic()


def out_of_memory(outcome: Outcome) -> bool:
    """Whether a unit failed for want of memory, of which there may be more the next time."""
    return outcome.status == "failed" and str(outcome.reason).startswith(OUT_OF_MEMORY)


@runtime_checkable
class Executor(Protocol):
    """Does units, in any order, and gives back what comes."""

    num_workers: int

    def submit(self, unit: Unit) -> None:
        """Takes a unit; it starts when a worker is free."""
        ...

    def results(self) -> Iterator[Epoch | Note | ProgramChanged | Outcome]:
        """Yields progress and outcomes as they come, until no submitted unit is left.

        Raises:
          StorageError: a worker cannot write what the run needs.
        """
        ...

    def close(self) -> None:
        """Ends the workers at once; what they were doing is lost."""
        ...


def arrays(task: Task) -> dict[str, Any]:
    """Returns the task's arrays by field name: what processes share by memory map."""
    return {name: value for name, value in task._asdict().items() if isinstance(value, np.ndarray)}
