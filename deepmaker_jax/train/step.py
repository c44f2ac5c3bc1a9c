"""One training step and the prediction of one batch, compiled per architecture."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deepmaker_jax.arch import Layer
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.data.augment import Augmentation, augment
from deepmaker_jax.models import Network
from deepmaker_jax.train.optimizer import direction, schedule
from deepmaker_jax.types import Array

Tree = Any


class TrainState(NamedTuple):
    """What training carries from step to step.

    Attributes:
      params, batch_stats: the network's trained collections.
      opt_state: the optimizer's.
      average: averaged {params, batch_stats}; {} where averaging is off.
      step: Int[], steps done.
      loss_sum: Float[], sum of the losses since the epoch began.
    """

    params: Tree
    batch_stats: Tree
    opt_state: Tree
    average: Tree
    step: Array
    loss_sum: Array


class Feed(NamedTuple):
    """What a step reads and never changes.

    Attributes:
      images: UInt8[n, h, w, c], the whole training set.
      labels: Int32[n].
      input_scale: Float[c].
      order: Int32[steps * b], this epoch's examples.
      key: the run's key; a step's own is `fold_in(key, step)`.
      learning_rate: Float[], at its peak.
      num_steps: Int[], of the whole training.
    """

    images: Array
    labels: Array
    input_scale: Array
    order: Array
    key: Array
    learning_rate: Array
    num_steps: Array


def init_state(variables: Tree, optimizer: str, settings: TrainConfig) -> TrainState:
    """Returns the state before the first step."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    averaged = {"params": params, "batch_stats": batch_stats} if settings.average_decay else {}
    return TrainState(
        params=params,
        batch_stats=batch_stats,
        opt_state=direction(optimizer, settings).init(params),
        average=jax.tree.map(np.copy, averaged),
        step=np.int32(0),
        loss_sum=np.float32(0),
    )


def make_step(network: Network, optimizer: str, settings: TrainConfig):
    """Returns `step(state, feed, index) -> state`, pure; `index` counts within the epoch."""
    rule = direction(optimizer, settings)
    size = settings.batch_size
    how = Augmentation(crop=settings.crop or 0, cutout=settings.cutout, flip=settings.flip or False)

    def loss(params: Tree, batch_stats: Tree, scale: jax.Array, x: jax.Array, y: jax.Array):
        variables = {
            "params": params, "batch_stats": batch_stats, "constants": {"input_scale": scale},
        }  # fmt: skip
        logits, new = network.apply(variables, x, train=True, mutable=["batch_stats"])
        targets = jax.nn.one_hot(y, logits.shape[-1])
        targets = optax.smooth_labels(targets, settings.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean(), new["batch_stats"]

    def step(state: TrainState, feed: Feed, index: jax.Array) -> TrainState:
        rows = jax.lax.dynamic_slice_in_dim(feed.order, index * size, size)
        key = jax.random.fold_in(feed.key, state.step)
        x = augment(key, feed.images[rows], settings=how)
        (value, batch_stats), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.batch_stats, feed.input_scale, x, feed.labels[rows]
        )
        update, opt_state = rule.update(gradient, state.opt_state, state.params)
        # The middle of the step: neither the first nor the last one is lost to a rate of 0.
        progress = (state.step + 0.5) / feed.num_steps
        rate = feed.learning_rate * schedule(settings.schedule, progress)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, update)
        average = state.average
        if settings.average_decay:
            # A short warm-up, so that the first steps are forgotten in a short training too.
            decay = jnp.minimum(settings.average_decay, (1.0 + state.step) / (10.0 + state.step))
            new = {"params": params, "batch_stats": batch_stats}
            average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, new)
        return TrainState(
            params, batch_stats, opt_state, average, state.step + 1, state.loss_sum + value
        )

    return step


_compiled: dict[Any, Any] = {}
MAX_KEPT = 16  # programs of an architecture are not needed again once its training is over


def compile_step(
    network: tuple[Layer, ...], optimizer: str, settings: TrainConfig, state: TrainState, feed: Feed
):
    """Returns the compiled step for these shapes; kept, so that a process compiles it once."""
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in feed)
    key = (network, optimizer, settings, shapes)
    if key not in _compiled:
        while len(_compiled) >= MAX_KEPT:
            _compiled.pop(next(iter(_compiled)))
        step = jax.jit(make_step(Network(network), optimizer, settings), donate_argnums=0)
        _compiled[key] = step.lower(state, feed, np.int32(0)).compile()
    return _compiled[key]


@functools.partial(jax.jit, static_argnums=0)
def _predict(network: Network, variables: Tree, images: Array) -> Array:
    return network.apply(variables, images.astype(np.float32))


def predict(
    network: Network, variables: Tree, images: np.ndarray, *, batch_size: int = 250
) -> np.ndarray:
    """Returns the logits of any number of images, Float32[n, classes].

    The last batch is padded and the padding dropped: every image counts once.

    Args:
      network: the plain or the folded network.
      variables: its collections.
      images: UInt8 or Float[n, h, w, c], raw pixels.
      batch_size: images a call; the compiled shape.
    """
    variables = jax.device_put(variables)
    parts = [np.zeros((0, *network.layers[-1].shape), np.float32)]
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        missing = batch_size - len(part)
        batch = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
        parts.append(np.asarray(_predict(network, variables, batch))[: len(part)])
    return np.concatenate(parts)
