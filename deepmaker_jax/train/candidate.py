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
from deepmaker_jax.models import Network
from deepmaker_jax.train.init import init
from deepmaker_jax.train.optimizer import base_learning_rate
from deepmaker_jax.train.step import (
    Feed,
    TrainState,
    compile_step,
    init_state,
    predict,
)

ORDER_STREAM = 2 << 32  # of Philox: apart from the sampler's and the calibration's


class Split(NamedTuple):
    """Images and labels: UInt8[n, h, w, c] and Int32[n]."""

    images: np.ndarray
    labels: np.ndarray


class Trained(NamedTuple):
    """A finished training.

    Attributes:
      variables: `params`, `batch_stats`, `constants`, float32 NumPy arrays.
      train_loss: mean loss of the last epoch; NaN or inf if it diverged.
      diverged: the loss stopped being a number, or a weight did.
      compile_seconds, train_seconds: wall clock of this process.
    """

    variables: dict[str, Any]
    train_loss: float
    diverged: bool
    compile_seconds: float
    train_seconds: float


def epoch_order(seed: int, epoch: int, num_images: int, num_steps: int, batch_size: int):
    """Returns the examples of an epoch, Int32[num_steps * batch_size].

    A function of the seed and the epoch alone: every candidate sees the same
    examples. The images that do not fill a batch are others in every epoch.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, ORDER_STREAM + epoch]))
    return rng.permutation(num_images)[: num_steps * batch_size].astype(np.int32)


def train(
    arch: ArchSpec,
    data: Split,
    *,
    settings: TrainConfig,
    num_epochs: int,
    seed: int,
    input_scale: np.ndarray,
    start: dict[str, Any] | None = None,
    checkpoint: pathlib.Path | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Trained:
    """Trains one network, one compiled call a step.

    The result is a function of the arguments and the program alone, so a
    training that goes on from its checkpoint ends with the same bits.

    Args:
      arch: the architecture, with its optimizer and learning rate.
      data: training images.
      settings: the recipe.
      num_epochs: epochs; images that do not fill a batch wait for another one.
      seed: of the initial weights, the examples' order and the augmentation.
      input_scale: Float[c], multiplies the raw pixels.
      start: variables to start from instead of fresh ones.
      checkpoint: file that holds the state after each epoch; resumed from if it
        is there and whole, else the training starts over, to the same bits.
      on_epoch: called with (epochs done, mean loss) after each epoch.

    Raises:
      InputError: the data do not fill one batch.
    """
    num_steps = len(data.labels) // settings.batch_size
    if num_steps < 1:
        raise InputError(
            f"train.batch-size (={settings.batch_size}) must be at most the training images "
            f"({len(data.labels)})"
        )
    began = time.perf_counter()
    variables = start or init(arch, seed=seed, input_scale=input_scale)
    state = init_state(variables, arch.optimizer, settings)
    first, loss = 0, math.nan
    if checkpoint is not None and (found := _restore(checkpoint, state)) is not None:
        state, first, loss = found
    feed = Feed(
        images=jax.device_put(data.images),
        labels=jax.device_put(data.labels),
        input_scale=jax.device_put(np.asarray(variables["constants"]["input_scale"])),
        order=epoch_order(seed, 0, len(data.labels), num_steps, settings.batch_size),
        key=jax.random.key(seed),
        learning_rate=np.float32(base_learning_rate(arch, settings)),
        num_steps=np.int32(num_steps * num_epochs),
    )
    step = compile_step(layers(arch), arch.optimizer, settings, state, feed)
    compiled = time.perf_counter()
    # The step gives its input buffers back: hand it copies that nobody else holds.
    state = jax.tree.map(lambda leaf: jax.numpy.array(leaf, copy=True), state)
    for epoch in range(first, num_epochs):
        order = epoch_order(seed, epoch, len(data.labels), num_steps, settings.batch_size)
        feed = feed._replace(order=order)
        state = state._replace(loss_sum=jax.numpy.float32(0))
        for index in range(num_steps):
            state = step(state, feed, np.int32(index))
        loss = float(state.loss_sum) / num_steps
        if checkpoint is not None:
            _save(checkpoint, state, epoch + 1, loss)
        on_epoch(epoch + 1, loss)
        if not math.isfinite(loss):
            break
    state = jax.tree.map(np.asarray, state)
    chosen = state.average or {"params": state.params, "batch_stats": state.batch_stats}
    result = chosen | {"constants": variables["constants"]}
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    return Trained(
        variables=jax.tree.map(np.array, result),
        train_loss=loss,
        diverged=not (finite and math.isfinite(loss)),
        compile_seconds=compiled - began,
        train_seconds=time.perf_counter() - compiled,
    )


def evaluate(arch: ArchSpec, variables: dict[str, Any], data: Split) -> tuple[float, float]:
    """Returns (accuracy 0..1, mean cross-entropy) over every image of `data`, once each."""
    logits = predict(Network(layers(arch)), variables, data.images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, data.labels)
    return float(np.mean(logits.argmax(-1) == data.labels)), float(np.mean(losses))


def _save(path: pathlib.Path, state: TrainState, epoch: int, loss: float) -> None:
    value = {"state": tuple(state), "epoch": epoch, "loss": loss}
    write_bytes(path, flax.serialization.to_bytes(jax.tree.map(np.asarray, value)))


def _restore(path: pathlib.Path, like: TrainState) -> tuple[TrainState, int, float] | None:
    """Returns (state, epochs done, loss) of a checkpoint of this training, or None."""
    target = {"state": tuple(like), "epoch": 0, "loss": 0.0}
    try:
        value = flax.serialization.from_bytes(target, path.read_bytes())
        state = TrainState(*value["state"])
        fits = jax.tree.map(lambda a, b: np.shape(a) == np.shape(b), like, state)
        return (
            (state, int(value["epoch"]), float(value["loss"]))
            if all(jax.tree.leaves(fits))
            else None
        )
    except Exception:  # noqa: BLE001 - msgpack and flax raise what they like on a damaged file
        return None
