"""A unit of work, what it returns, and how it is done in whatever process."""

import math
import pathlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.errors import one_line
from deepmaker_jax.events import Epoch, ProgramChanged
from deepmaker_jax.lanes.size_class import SizeClass

if TYPE_CHECKING:
    from deepmaker_jax.train.candidate import Trained
    from deepmaker_jax.train.course import Job

StageName = Literal["search", "final"]


class Task(NamedTuple):
    """What all units of a run share.

    Attributes:
      images: UInt8[n, h, w, c], all training images; never a test image.
      labels: Int32[n].
      search_rows: Int64[k], images that the search trains on.
      validation_rows: Int64[v], images that fitness is measured on.
      input_scale: Float[c], multiplies the raw pixels.
      settings: the recipe.
      seed: the run's seed.
      size_classes: whose programs train the networks that fit, in the stages named by `in_class`.
      in_class: stages; in others each network has a program of its own.
      lanes: for stages whose candidates train side by side, the lanes of each size class's program.
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


class Unit(NamedTuple):
    """One candidate to train.

    Attributes:
      id: of the candidate.
      arch: its architecture.
      stage: "search" trains on the search's images and measures on the
        validation split; "final" trains on all training images.
      num_epochs: epochs.
      checkpoint: file for the state after each epoch, or None.
      weights: file for the trained weights, or None.
      start: weights file to start from, or None for fresh weights.
    """

    id: str
    arch: ArchSpec
    stage: StageName
    num_epochs: int
    checkpoint: pathlib.Path | None = None
    weights: pathlib.Path | None = None
    start: pathlib.Path | None = None


class Outcome(NamedTuple):
    """What became of a unit; `status` and `reason` as in the ledger."""

    id: str
    stage: StageName
    status: Literal["ok", "diverged", "failed"]
    reason: str | None
    measured: dict[str, float]
    seconds: dict[str, float]


@runtime_checkable
class Executor(Protocol):
    """Does units, in any order, and gives back what comes."""

    num_workers: int

    def submit(self, unit: Unit) -> None:
        """Takes a unit; it starts when a worker is free."""
        ...

    def results(self) -> Iterator[Epoch | ProgramChanged | Outcome]:
        """Yields progress and outcomes as they come, until no submitted unit is left."""
        ...

    def close(self) -> None:
        """Ends the workers at once; what they were doing is lost."""
        ...


def do_unit(
    unit: Unit,
    task: Task,
    on_epoch: Callable[[Epoch], None],
    on_steps: Callable[[], None] = lambda: None,
) -> Outcome:
    """Trains and measures one candidate; a failure is an outcome, not an exception.

    Args:
      unit: what to do.
      task: what it shares with others.
      on_epoch: called after each epoch.
      on_steps: called after every few steps; what it raises leaves the training,
        and this function unless it is an Exception.
    """
    # JAX is imported here: the process that only distributes units does not need it.
    from deepmaker_jax.lanes.wiring import choose
    from deepmaker_jax.train.candidate import train_alone

    try:
        trained = train_alone(
            job_of(unit, task, on_epoch),
            on_device(task),
            settings=task.settings,
            seed=task.seed,
            input_scale=task.input_scale,
            size_class=choose(unit.arch, task.size_classes)
            if unit.stage in task.in_class
            else None,
            on_steps=on_steps,
        )
    except Exception as error:  # noqa: BLE001 - one candidate must not end a run
        trained = error
    return outcome_of(unit, trained)


def job_of(unit: Unit, task: Task, on_epoch: Callable[[Epoch], None]) -> "Job":
    """Returns what a unit wants trained.

    Raises:
      InputError: the weights to start from cannot be read.
    """
    from deepmaker_jax.export.weights import load_weights
    from deepmaker_jax.train.course import Job

    def tell(epoch: int, loss: float) -> None:
        on_epoch(Epoch(unit.id, unit.stage, epoch, unit.num_epochs, loss))

    final = unit.stage == "final"
    return Job(
        arch=unit.arch,
        num_epochs=unit.num_epochs,
        rows=np.arange(len(task.labels)) if final else np.asarray(task.search_rows),
        held_out=None if final else np.asarray(task.validation_rows),
        start=load_weights(unit.start)[1] if unit.start else None,
        checkpoint=unit.checkpoint,
        on_epoch=tell,
        key=unit,
    )


def outcome_of(unit: Unit, trained: "Trained | Exception") -> Outcome:
    """Writes the trained weights and returns what became of a unit."""
    try:
        if isinstance(trained, Exception):
            raise trained
        return _outcome(unit, trained)
    except Exception as error:  # noqa: BLE001 - one candidate must not end a run
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{pathlib.Path(where.filename).name}:{where.lineno}"
        return Outcome(unit.id, unit.stage, "failed", f"{one_line(error)} ({place})", {}, {})


def _outcome(unit: Unit, trained: "Trained") -> Outcome:
    from deepmaker_jax.export.weights import save_weights

    seconds = {
        "compile": trained.compile_seconds,
        "train": trained.train_seconds,
        "eval": trained.eval_seconds,
    }
    measured = {"train_loss": trained.train_loss}
    if trained.diverged:
        reason = f"training loss {trained.train_loss} or a weight is not finite"
        return Outcome(unit.id, unit.stage, "diverged", reason, measured, seconds)
    if unit.weights:
        save_weights(unit.weights, unit.arch, trained.variables)
    if trained.score is not None:
        measured |= {"val_accuracy": trained.score.accuracy, "val_loss": trained.score.loss}
        if not math.isfinite(trained.score.loss):
            reason = f"validation loss {trained.score.loss} is not finite"
            return Outcome(unit.id, unit.stage, "diverged", reason, measured, seconds)
    return Outcome(unit.id, unit.stage, "ok", None, measured, seconds)


_kept: list[tuple[np.ndarray, Any]] = []


def on_device(task: Task) -> Any:
    """Returns the training images and labels as a `train.Split` that stays on the device."""
    import jax

    from deepmaker_jax.train import Split

    if not _kept or _kept[0][0] is not task.images:
        split = Split(
            jax.device_put(np.asarray(task.images)), jax.device_put(np.asarray(task.labels))
        )
        _kept[:] = [(task.images, split)]
    return _kept[0][1]


def arrays(task: Task) -> dict[str, Any]:
    """Returns the task's arrays by field name: what `processes` shares by memory map."""
    return {name: value for name, value in task._asdict().items() if isinstance(value, np.ndarray)}
