"""Training one candidate: from an architecture to trained variables and a score."""

import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np
import optax

from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.errors import InputError
from deepmaker_jax.files import write_bytes
from deepmaker_jax.lanes.size_class import SizeClass
from deepmaker_jax.models import Network
from deepmaker_jax.train.init import init
from deepmaker_jax.train.optimizer import base_learning_rate
from deepmaker_jax.train.runner import STEPS_A_CALL, InClass, Plain, Runner
from deepmaker_jax.train.step import Feed, TrainState, predict

ORDER_STREAM = 2 << 32  # of Philox: apart from the sampler's and the calibration's
CHECKPOINT_SECONDS = 30.0  # between two writes of the state within an epoch


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
    """

    variables: dict[str, Any]
    train_loss: float
    diverged: bool
    score: Score | None
    compile_seconds: float
    train_seconds: float
    eval_seconds: float


def epoch_order(seed: int, epoch: int, num_images: int, num_steps: int, batch_size: int):
    """Returns the examples of an epoch, Int32[num_steps, batch_size].

    A function of the seed and the epoch alone: every candidate sees the same
    examples. The images that do not fill a batch are others in every epoch.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, ORDER_STREAM + epoch]))
    order = rng.permutation(num_images)[: num_steps * batch_size]
    return order.astype(np.int32).reshape(num_steps, batch_size)


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
) -> Trained:
    """Trains one network, many steps a call.

    The result is a function of the arguments and the program alone, so a
    training that goes on from its checkpoint ends with the same bits.

    Args:
      arch: the architecture, with its optimizer and learning rate.
      data: images; one program serves all rows of it.
      settings: the recipe.
      num_epochs: epochs; images that do not fill a batch wait for another one.
      seed: of the initial weights, the examples' order and the augmentation.
      input_scale: Float[c], multiplies the raw pixels.
      rows: Int[k], the images to train on; None for all.
      held_out: Int[v], the images to measure the trained network on, if any.
      size_class: whose program trains the network; None for its own.
      start: variables to start from instead of fresh ones.
      checkpoint: file that holds the state, written after each epoch and now and
        then within; resumed from if it is there and whole, else the training
        starts over, to the same bits.
      on_epoch: called with (epochs done, mean loss) after each epoch.
      on_steps: called after every few steps; raises to leave the training.

    Raises:
      InputError: the data do not fill one batch.
    """
    rows = np.arange(len(data.labels), dtype=np.int32) if rows is None else rows
    num_steps = len(rows) // settings.batch_size
    if num_steps < 1:
        raise InputError(
            f"train.batch-size (={settings.batch_size}) must be at most the training images "
            f"({len(rows)})"
        )
    began = time.perf_counter()
    variables = start or init(arch, seed=seed, input_scale=input_scale)
    feed = Feed(
        images=jax.device_put(data.images),
        labels=jax.device_put(data.labels),
        input_scale=jax.device_put(np.asarray(variables["constants"]["input_scale"])),
        key=jax.random.key(seed),
        learning_rate=np.float32(base_learning_rate(arch, settings)),
        num_steps=np.int32(num_steps * num_epochs),
    )
    runner: Runner
    if size_class is None:
        runner = Plain(arch, settings, feed, variables)
    else:
        runner = InClass(arch, size_class, settings, feed, variables)
    compiled = time.perf_counter()
    loss = _steps(
        runner, rows, num_steps, num_epochs, seed, settings, checkpoint, on_epoch, on_steps
    )
    result = runner.variables() | {"constants": variables["constants"]}
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    diverged = not (finite and math.isfinite(loss))
    trained = time.perf_counter()
    score = None
    if held_out is not None and not diverged:
        score = Score(*runner.score(result, np.asarray(held_out)))
    return Trained(
        variables=jax.tree.map(np.array, result),
        train_loss=loss,
        diverged=diverged,
        score=score,
        compile_seconds=compiled - began,
        train_seconds=trained - compiled,
        eval_seconds=time.perf_counter() - trained,
    )


def _steps(
    runner: Runner,
    rows: np.ndarray,
    num_steps: int,
    num_epochs: int,
    seed: int,
    settings: TrainConfig,
    checkpoint: pathlib.Path | None,
    on_epoch: Callable[[int, float], None],
    on_steps: Callable[[], None],
) -> float:
    """Trains to the end, from the checkpoint if there is one; returns the last epoch's loss."""
    loss = math.nan
    if checkpoint is not None and (found := _restore(checkpoint, runner.state)) is not None:
        runner.state, loss = found
    done, saved = int(runner.state.step), time.perf_counter()
    order = None
    while done < num_steps * num_epochs and (done == 0 or math.isfinite(loss) or done < num_steps):
        epoch, first = divmod(done, num_steps)
        if order is None or first == 0:
            order = rows[epoch_order(seed, epoch, len(rows), num_steps, settings.batch_size)]
        if first == 0:
            runner.state = runner.state._replace(loss_sum=np.float32(0))
        some = order[first : first + STEPS_A_CALL]
        runner.run(some)
        done += len(some)
        jax.block_until_ready(runner.state)  # calls run ahead else: `on_steps` could stop none
        on_steps()
        ended = done % num_steps == 0
        if ended:
            loss = float(runner.state.loss_sum) / num_steps
        if checkpoint is not None and (ended or time.perf_counter() - saved > CHECKPOINT_SECONDS):
            _save(checkpoint, runner.state, loss)
            saved = time.perf_counter()
        if ended:
            on_epoch(epoch + 1, loss)
    return loss


def evaluate(arch: ArchSpec, variables: dict[str, Any], data: Split) -> Score:
    """Returns the score of a plain network over every image of `data`."""
    logits = predict(Network(layers(arch)), variables, data.images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, data.labels)
    return Score(float(np.mean(logits.argmax(-1) == data.labels)), float(np.mean(losses)))


def _save(path: pathlib.Path, state: TrainState, loss: float) -> None:
    value = {"state": tuple(state), "loss": loss}
    write_bytes(path, flax.serialization.to_bytes(jax.tree.map(np.asarray, value)))


def _restore(path: pathlib.Path, like: TrainState) -> tuple[TrainState, float] | None:
    """Returns (state, last epoch's loss) of a checkpoint of this training, or None."""
    target = {"state": tuple(like), "loss": 0.0}
    try:
        value = flax.serialization.from_bytes(target, path.read_bytes())
        state = TrainState(*value["state"])
        fits = jax.tree.map(lambda a, b: np.shape(a) == np.shape(b), like, state)
        return (state, float(value["loss"])) if all(jax.tree.leaves(fits)) else None
    except Exception:  # noqa: BLE001 - msgpack and flax raise what they like on a damaged file
        return None
