"""The course of one training, whatever program does its steps: what comes next, what is kept."""

import bisect
import hashlib
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.errors import InputError, TimeLimitError
from deepmaker_jax.files import ON_DISK, Files
from deepmaker_jax.train.optimizer import Cycle
from deepmaker_jax.train.step import TrainState

ORDER_STREAM = 2 << 32  # of Philox: apart from the sampler's and the calibration's
DIGEST_BYTES = 32  # of SHA-256, at the head of a checkpoint
CHECKPOINT_SECONDS = 30.0  # between two writes of the state within an epoch


class Job(NamedTuple):
    """One candidate to train.

    Attributes:
      arch: the architecture, with its optimizer and learning rate.
      num_epochs: epochs, a checkpoint's included; images that do not fill a batch
        wait for another one.
      rows: Int[k], the images to train on.
      held_out: Int[v], the images to measure the trained network on, if any.
      start: variables to start from instead of fresh ones.
      checkpoint: file that holds the state, written after each epoch and now and
        then within; resumed from if it is there and whole, else the training
        starts over, to the same bits.
      on_epoch: called with (epochs done, mean loss) after each epoch.
      limit_seconds: that it may train, compiling apart, a checkpoint's included; None for no
        limit.
      key: what the caller tells its jobs apart by.
      files: reads and writes the checkpoint.
      rungs: epochs at which the learning rate's schedule begins anew (Loshchilov and
        Hutter 2017: warm restarts), rising; those from `num_epochs` on count for nothing.
        So a training that is stopped at a rung is whole, and one that goes on from
        there is the one that never stopped.
      corrupted: Int[u], corrupted images to measure the trained network on, if any.
    """

    arch: ArchSpec
    num_epochs: int
    rows: np.ndarray
    held_out: np.ndarray | None = None
    start: dict[str, Any] | None = None
    checkpoint: pathlib.Path | None = None
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None
    limit_seconds: float | None = None
    key: Any = None
    files: Files = ON_DISK
    rungs: tuple[int, ...] = ()
    corrupted: np.ndarray | None = None


def epoch_order(seed: int, epoch: int, num_images: int, num_steps: int, batch_size: int):
    """Returns the examples of an epoch, Int32[num_steps, batch_size].

    A function of the seed and the epoch alone: every candidate sees the same
    examples. The images that do not fill a batch are others in every epoch.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, ORDER_STREAM + epoch]))
    order = rng.permutation(num_images)[: num_steps * batch_size]
    return order.astype(np.int32).reshape(num_steps, batch_size)


class Course:
    """Where one training stands.

    Attributes:
      num_total: steps of the whole training.
      num_done: steps done.
      loss: mean loss of the last whole epoch; NaN before the first.
    """

    def __init__(self, job: Job, settings: TrainConfig, *, seed: int):
        """Raises InputError if the data do not fill one batch."""
        self._job, self._size, self._seed = job, settings.batch_size, seed
        self._num_steps = len(job.rows) // settings.batch_size
        if self._num_steps < 1:
            raise InputError(
                f"train.batch-size (={settings.batch_size}) must be at most the training images "
                f"({len(job.rows)})"
            )
        self.num_total = self._num_steps * job.num_epochs
        self.num_done, self.loss = 0, math.nan
        self._order: np.ndarray | None = None
        self._began = self._saved = time.perf_counter()

    def resume(self, state: TrainState) -> TrainState:
        """Returns the checkpoint's state if there is one, else `state`, which is fresh."""
        path, files = self._job.checkpoint, self._job.files
        found = None if path is None else _restore(path, state, files)
        spent = 0.0
        if found is not None and int(found[0].step) <= self.num_total:
            state, self.loss, spent = found
        self.num_done = int(state.step)
        self._saved = time.perf_counter()
        self._began = self._saved - spent
        return state

    @property
    def is_over(self) -> bool:
        """Whether all is done, or an epoch's loss is no number."""
        lost = self.num_done >= self._num_steps and not math.isfinite(self.loss)
        return self.num_done >= self.num_total or lost

    @property
    def cycle(self) -> Cycle:
        """The learning rate's cycle that the next step is in; the last one, when all is done."""
        job, epoch = self._job, self.num_done // self._num_steps
        bounds = [0, *(rung for rung in job.rungs if rung < job.num_epochs), job.num_epochs]
        i = min(bisect.bisect(bounds, epoch), len(bounds) - 1)
        first, last = bounds[i - 1] * self._num_steps, bounds[i] * self._num_steps
        return Cycle(first, last - first)

    @property
    def begins_epoch(self) -> bool:
        """Whether the next step is an epoch's first: `loss_sum` counts from 0 again."""
        return self.num_done % self._num_steps == 0

    def rows(self, most: int) -> np.ndarray:
        """Returns the examples of the next steps, Int32[k, b], k at most `most`, of one epoch."""
        epoch, first = divmod(self.num_done, self._num_steps)
        if self._order is None or first == 0:
            rows, steps = self._job.rows, self._num_steps
            order = epoch_order(self._seed, epoch, len(rows), steps, self._size)
            self._order = rows[order].astype(np.int32)
        return self._order[first : first + most]

    def advance(self, num: int, loss_sum: float, state: Callable[[], TrainState]) -> None:
        """Takes note of `num` steps done; saves and tells what is due.

        Args:
          num: steps.
          loss_sum: of the state behind them.
          state: gives that state, if it is wanted.

        Raises:
          StorageError: the state cannot be saved.
          TimeLimitError: it has trained too long, and is not over.
        """
        self.num_done += num
        if self.begins_epoch:
            self.loss = float(loss_sum) / self._num_steps
        due = self.begins_epoch or time.perf_counter() - self._saved > CHECKPOINT_SECONDS
        limit = self._job.limit_seconds
        spent = 0.0 if limit is None else time.perf_counter() - self._began
        if self._job.checkpoint is not None and due:
            save(self._job.checkpoint, state(), self.loss, spent, self._job.files)
            self._saved = time.perf_counter()
        if self.begins_epoch:
            self._job.on_epoch(self.num_done // self._num_steps, self.loss)
        if limit is not None and not self.is_over and spent > limit:
            raise TimeLimitError(f"trained longer than {limit:g} s")

    def diverged(self, variables: dict[str, Any]) -> bool:
        """Whether the training that led to these variables got lost."""
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
        return not (finite and math.isfinite(self.loss))


def save(path: pathlib.Path, state: TrainState, loss: float, seconds: float, files: Files) -> None:
    """Writes a checkpoint; `seconds` are those of a time limit that are spent."""
    value = {"state": tuple(state), "loss": loss, "seconds": seconds}
    data = flax.serialization.to_bytes(jax.tree.map(np.asarray, value))
    files.write(path, hashlib.sha256(data).digest() + data)


def _restore(
    path: pathlib.Path, like: TrainState, files: Files
) -> tuple[TrainState, float, float] | None:
    """Returns (state, last epoch's loss, seconds spent) of a checkpoint of this, or None."""
    target = {"state": tuple(like), "loss": 0.0, "seconds": 0.0}
    try:
        file = files.read(path)
        digest, data = file[:DIGEST_BYTES], file[DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            return None
        value = flax.serialization.from_bytes(target, data)
        state = TrainState(*value["state"])
        fits = jax.tree.map(lambda a, b: np.shape(a) == np.shape(b), like, state)
        told = float(value["loss"]), float(value["seconds"])
        return (state, *told) if all(jax.tree.leaves(fits)) else None
    except Exception:  # noqa: BLE001 - msgpack and flax raise what they like on a damaged file
        return None
