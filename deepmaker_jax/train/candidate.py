"""Training one candidate: from an architecture to trained variables and a score."""

import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes.size_class import SizeClass
from deepmaker_jax.models import Network
from deepmaker_jax.train.course import Course, Job
from deepmaker_jax.train.init import init
from deepmaker_jax.train.optimizer import base_learning_rate
from deepmaker_jax.train.runner import InClass, Pace, Plain, Runner
from deepmaker_jax.train.step import Feed, predict, score


class Split(NamedTuple):
    """Images and labels: UInt8[n, h, w, c] and Int32[n]."""

    images: Any
    labels: Any


class Score(NamedTuple):
    """Accuracy, 0..1, and mean cross-entropy over some images, each counted once."""

    accuracy: float
    loss: float


class Trained(NamedTuple):
    """A finished training.

    Attributes:
      variables: `params`, `batch_stats`, `constants`, float32 NumPy arrays.
      train_loss: mean loss of the last epoch; NaN or inf if it diverged.
      diverged: the loss stopped being a number, or a weight did.
      score: over the held-out rows, if there were any and it did not diverge.
      compile_seconds, train_seconds, eval_seconds: wall clock of this process.
      robust: over the corrupted rows, likewise.
    """

    variables: dict[str, Any]
    train_loss: float
    diverged: bool
    score: Score | None
    compile_seconds: float
    train_seconds: float
    eval_seconds: float
    robust: Score | None = None


def train(
    arch: ArchSpec,
    data: Split,
    *,
    settings: TrainConfig,
    num_epochs: int,
    seed: int,
    input_scale: np.ndarray,
    rows: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
    size_class: SizeClass | None = None,
    start: dict[str, Any] | None = None,
    checkpoint: pathlib.Path | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
    on_steps: Callable[[], None] = lambda: None,
    rungs: tuple[int, ...] = (),
) -> Trained:
    """Trains one network, many steps a call.

    The result is a function of the arguments and the program alone, so a
    training that goes on from its checkpoint ends with the same bits.

    Args:
      arch: the architecture, with its optimizer and learning rate.
      data: images; one program serves all rows of it.
      settings: the recipe.
      num_epochs: epochs.
      seed: of the initial weights, the examples' order and the augmentation.
      input_scale: Float[c], multiplies the raw pixels.
      rows: Int[k], the images to train on; None for all.
      held_out: Int[v], the images to measure the trained network on, if any.
      size_class: whose program trains the network; None for its own.
      start: see `Job`.
      checkpoint: see `Job`.
      on_epoch: see `Job`.
      on_steps: called after every few steps and predictions; raises to leave the training.
      rungs: see `Job`.

    Raises:
      InputError: the data do not fill one batch.
    """
    rows = np.arange(len(data.labels), dtype=np.int32) if rows is None else rows
    job = Job(arch, num_epochs, rows, held_out, start, checkpoint, on_epoch, rungs=rungs)
    rest = {"settings": settings, "seed": seed, "input_scale": input_scale}
    return train_alone(job, data, **rest, size_class=size_class, on_steps=on_steps)


def train_alone(
    job: Job,
    data: Split,
    *,
    settings: TrainConfig,
    seed: int,
    input_scale: np.ndarray,
    size_class: SizeClass | None = None,
    on_steps: Callable[[], None] = lambda: None,
) -> Trained:
    """Does one job by itself; see `train`."""
    course = Course(job, settings, seed=seed)
    began = time.perf_counter()
    variables = job.start or init(job.arch, seed=seed, input_scale=input_scale)
    feed = Feed(
        images=jax.device_put(data.images),
        labels=jax.device_put(data.labels),
        input_scale=jax.device_put(np.asarray(variables["constants"]["input_scale"])),
        key=jax.random.key(seed),
        learning_rate=np.float32(base_learning_rate(job.arch, settings)),
        cycle=np.array(course.cycle, np.int32),
    )
    runner: Runner
    if size_class is None:
        measured = job.held_out is not None
        runner = Plain(job.arch, settings, feed, variables, measured=measured)
    else:
        runner = InClass(job.arch, size_class, settings, feed, variables)
    compiled = time.perf_counter()
    runner.state, pace = course.resume(runner.state), Pace()
    while not course.is_over:
        if course.begins_epoch:
            runner.state = runner.state._replace(loss_sum=np.float32(0))
        some, called = course.rows(pace.most), time.perf_counter()
        runner.run(some, course.cycle)
        jax.block_until_ready(runner.state)  # calls run ahead else: `on_steps` could stop none
        pace.took(len(some), time.perf_counter() - called)
        on_steps()
        course.advance(len(some), float(runner.state.loss_sum), lambda: runner.state)
    result = runner.variables() | {"constants": variables["constants"]}
    diverged = course.diverged(result)
    trained = time.perf_counter()

    def score_on(rows: np.ndarray | None) -> Score | None:
        if rows is None or diverged:
            return None
        return Score(*runner.score(np.asarray(rows), pace.most, on_steps))

    score, robust = score_on(job.held_out), score_on(job.corrupted)
    return Trained(
        variables=jax.tree.map(np.array, result),
        train_loss=course.loss,
        diverged=diverged,
        score=score,
        compile_seconds=compiled - began,
        train_seconds=trained - compiled,
        eval_seconds=time.perf_counter() - trained,
        robust=robust,
    )


def evaluate(arch: ArchSpec, variables: dict[str, Any], data: Split) -> Score:
    """Returns the score of a plain network over every image of `data`."""
    logits = predict(Network(layers(arch)), variables, data.images)
    return Score(*score(logits, np.asarray(data.labels)))
