"""How a unit is done, in whatever process: from what it wants trained to what became of it."""

import math
import pathlib
import traceback
from collections.abc import Callable

import jax
import numpy as np

from deepmaker_jax.errors import StorageError, TimeLimitError, one_line
from deepmaker_jax.events import Epoch
from deepmaker_jax.execute.unit import Outcome, Task, Unit
from deepmaker_jax.export.weights import load_weights, save_weights
from deepmaker_jax.files import ON_DISK, Files
from deepmaker_jax.lanes.wiring import choose
from deepmaker_jax.ledger import OUT_OF_MEMORY
from deepmaker_jax.train.candidate import Split, Trained, train_alone
from deepmaker_jax.train.course import Job
from deepmaker_jax.train.memory import is_out_of_memory


def do_unit(
    unit: Unit,
    task: Task,
    on_epoch: Callable[[Epoch], None],
    on_steps: Callable[[], None] = lambda: None,
    files: Files = ON_DISK,
) -> Outcome:
    """Trains and measures one candidate; a failure is an outcome, not an exception.

    Args:
      unit: what to do.
      task: what it shares with others.
      on_epoch: called after each epoch.
      on_steps: called after every few steps; what it raises leaves the training,
        and this function unless it is an Exception.
      files: reads and writes the unit's.

    Raises:
      StorageError: the disk takes no more, which is not the candidate's failure.
    """
    try:
        trained = train_alone(
            job_of(unit, task, on_epoch, files),
            on_device(task),
            settings=task.settings,
            seed=seed_of(unit, task),
            input_scale=task.input_scale,
            size_class=choose(unit.arch, task.size_classes)
            if unit.stage in task.in_class
            else None,
            on_steps=on_steps,
        )
    except Exception as error:  # noqa: BLE001 - one candidate must not end a run
        trained = error
    return outcome_of(unit, trained, files)


def seed_of(unit: Unit, task: Task) -> int:
    """Returns the seed that a unit is trained with."""
    return task.seed if unit.seed is None else unit.seed


def job_of(
    unit: Unit, task: Task, on_epoch: Callable[[Epoch], None], files: Files = ON_DISK
) -> Job:
    """Returns what a unit wants trained.

    Raises:
      InputError: the weights to start from cannot be read.
    """

    def tell(epoch: int, loss: float) -> None:
        on_epoch(Epoch(unit.id, unit.stage, epoch, unit.num_epochs, loss))

    final = unit.stage == "final"
    corrupted = None if final else task.corrupted_rows
    return Job(
        arch=unit.arch,
        num_epochs=unit.num_epochs,
        rows=np.arange(task.num_train) if final else np.asarray(task.search_rows),
        held_out=None if final else np.asarray(task.validation_rows),
        corrupted=None if corrupted is None else np.asarray(corrupted),
        start=load_weights(unit.start, files)[1] if unit.start else None,
        checkpoint=unit.checkpoint,
        on_epoch=tell,
        limit_seconds=None if final else task.limit_seconds,
        rungs=() if final else task.rungs,
        key=unit,
        files=files,
    )


def outcome_of(unit: Unit, trained: Trained | Exception, files: Files = ON_DISK) -> Outcome:
    """Writes the trained weights and returns what became of a unit.

    Raises:
      StorageError: they cannot be written, or training could not write.
    """
    try:
        if isinstance(trained, Exception):
            raise trained
        return _outcome(unit, trained, files)
    except StorageError:
        raise
    except TimeLimitError as error:
        return Outcome(unit.id, unit.stage, "timeout", str(error), {}, {})
    except Exception as error:  # noqa: BLE001 - one candidate must not end a run
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{pathlib.Path(where.filename).name}:{where.lineno}"
        reason = f"{one_line(error)} ({place})"
        if is_out_of_memory(error):
            reason = f"{OUT_OF_MEMORY}: {reason}"
        return Outcome(unit.id, unit.stage, "failed", reason, {}, {})


def _outcome(unit: Unit, trained: Trained, files: Files) -> Outcome:
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
        save_weights(unit.weights, unit.arch, trained.variables, files)
    if trained.score is not None:
        measured |= {"val_accuracy": trained.score.accuracy, "val_loss": trained.score.loss}
        if not math.isfinite(trained.score.loss):
            reason = f"validation loss {trained.score.loss} is not finite"
            return Outcome(unit.id, unit.stage, "diverged", reason, measured, seconds)
    if trained.robust is not None:
        measured["robust_accuracy"] = trained.robust.accuracy
    return Outcome(unit.id, unit.stage, "ok", None, measured, seconds)


_kept: list[tuple[np.ndarray, Split]] = []


def on_device(task: Task) -> Split:
    """Returns the training images and labels as a `train.Split` that stays on the device."""
    if not _kept or _kept[0][0] is not task.images:
        split = Split(
            jax.device_put(np.asarray(task.images)), jax.device_put(np.asarray(task.labels))
        )
        _kept[:] = [(task.images, split)]
    return _kept[0][1]
