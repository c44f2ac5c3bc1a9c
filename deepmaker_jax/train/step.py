"""One training step, many of them in one compiled call, and the prediction of a batch."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import scipy.special

from deepmaker_jax.config import TrainConfig
from deepmaker_jax.data.augment import Augmentation, augment
from deepmaker_jax.models import Network
from deepmaker_jax.train.optimizer import direction, schedule
from deepmaker_jax.types import Array

Tree = Any
PREDICTED = 250  # images that a prediction takes at once
# `(params, batch_stats, feed, x, loss, work) -> (value, gradient, batch_stats, work)`: x is
# Float[b, h, w, c], raw pixels; loss maps logits to Float[]; work is scratch memory.
ValueAndGrad = Callable[..., tuple[Array, Tree, Tree, Any]]
# `(gradient, opt_state, params) -> (update for a learning rate of -1, opt_state)`
Rule = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


class TrainState(NamedTuple):
    """What training carries from step to step.

    Attributes:
      params, batch_stats: the network's trained collections.
      opt_state: the optimizer's.
      step: Int[], steps done.
      loss_sum: Float[], sum of the losses since the epoch began.
    """

    params: Tree
    batch_stats: Tree
    opt_state: Tree
    step: Array
    loss_sum: Array

    @property
    def trained(self) -> Tree:
        """The {params, batch_stats}."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class Feed(NamedTuple):
    """What a step reads and never changes.

    Attributes:
      images: UInt8[n, h, w, c], the training images; others that a task holds may follow.
      labels: Int32[n].
      input_scale: Float[c].
      key: the run's key; a step's own is `fold_in(key, step)`.
      learning_rate: Float[], at its peak.
      cycle: Int[2], of the learning rate: the step that it begins at, and its steps.
    """

    images: Array
    labels: Array
    input_scale: Array
    key: Array
    learning_rate: Array
    cycle: Array


def init_state(params: Tree, batch_stats: Tree, opt_state: Tree) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(params, batch_stats, opt_state, step=np.int32(0), loss_sum=np.float32(0))


def make_step(value_and_grad: ValueAndGrad, rule: Rule, settings: TrainConfig):
    """Returns `step(state, work, feed, rows) -> (state, work)`, pure; rows is Int[b]."""
    how = Augmentation(crop=settings.crop or 0, flip=settings.flip or False)

    def step(state: TrainState, work: Any, feed: Feed, rows: Array) -> tuple[TrainState, Any]:
        x = augment(jax.random.fold_in(feed.key, state.step), feed.images[rows], settings=how)
        targets = feed.labels[rows]

        def loss(logits):
            right = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
            return optax.softmax_cross_entropy(logits, right).mean()

        value, gradient, batch_stats, work = value_and_grad(
            state.params, state.batch_stats, feed, x, loss, work
        )
        update, opt_state = rule(gradient, state.opt_state, state.params)
        # The middle of the step: neither the first nor the last one is lost to a rate of 0.
        progress = (state.step - feed.cycle[0] + 0.5) / feed.cycle[1]
        rate = feed.learning_rate * schedule(settings.schedule, progress)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, update)
        loss_sum = state.loss_sum + value
        return TrainState(params, batch_stats, opt_state, state.step + 1, loss_sum), work

    return step


def repeat(step, state: TrainState, work: Any, feed: Feed, rows: Array, num: Array):
    """Does the first `num` steps of `rows`, Int[k, b]; returns (state, work)."""

    def one(i, carry):
        return step(*carry, feed, rows[i])

    return jax.lax.fori_loop(0, num, one, (state, work))


def of_network(network: Network) -> ValueAndGrad:
    """Returns the loss and gradient of one plain network, by JAX."""

    def value_and_grad(params, batch_stats, feed, x, loss, work):
        def whole(params):
            variables = {
                "params": params,
                "batch_stats": batch_stats,
                "constants": {"input_scale": feed.input_scale},
            }
            logits, new = network.apply(variables, x, train=True, mutable=["batch_stats"])
            return loss(logits), new["batch_stats"]

        (value, new), gradient = jax.value_and_grad(whole, has_aux=True)(params)
        return value, gradient, new, work

    return value_and_grad


def plain_steps(network: Network, optimizer: str, settings: TrainConfig):
    """Returns `steps(state, feed, rows, num) -> state` of one plain network."""
    step = make_step(of_network(network), direction(optimizer, settings).update, settings)

    def steps(state: TrainState, feed: Feed, rows: Array, num: Array) -> TrainState:
        return repeat(step, state, (), feed, rows, num)[0]

    return steps


@functools.partial(jax.jit, static_argnums=0)
def _predict(network: Network, variables: Tree, images: Array) -> Array:
    return network.apply(variables, images.astype(np.float32))


def options(*, in_class: bool = False) -> dict[str, Any]:
    """Returns XLA's options for programs that train.

    On a CPU LLVM's first level for a network's own program, and its usual third one for a size
    class's: so both train a tenth faster, and are made about as soon
    (benchmarks/results/programs.json).
    """
    own = jax.default_backend() == "cpu" and not in_class
    return {"xla_backend_optimization_level": 1} if own else {}


def compile_prediction(
    network: Network, variables: Tree, images: Array
) -> Callable[[Tree, Array], Array]:
    """Returns `predict`'s program for such images."""
    batch = jax.ShapeDtypeStruct((PREDICTED, *images.shape[1:]), images.dtype)
    return _predict.lower(network, variables, batch).compile(options())


def score(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns (accuracy, mean cross-entropy); by NumPy, as JAX would compile each operation.

    Args:
      logits: Float[n, classes].
      labels: Int[n].
    """
    with np.errstate(invalid="ignore", over="ignore"):  # weights that are finite may overflow
        chances = scipy.special.log_softmax(logits, axis=-1)
    losses = -np.take_along_axis(chances, labels[:, None], axis=-1)
    return float(np.mean(logits.argmax(-1) == labels)), float(np.mean(losses))


def predict(
    network: Network,
    variables: Tree,
    images: np.ndarray,
    *,
    batch_size: int = PREDICTED,
    program: Callable[[Tree, Array], Array] | None = None,
) -> np.ndarray:
    """Returns the logits of any number of images, Float32[n, classes].

    The last batch is padded and the padding dropped: every image counts once.

    Args:
      network: the plain or the folded network.
      variables: its collections.
      images: UInt8 or Float[n, h, w, c], raw pixels.
      batch_size: images a call; the compiled shape.
      program: of `compile_prediction`; JAX compiles one at the first call, if None.
    """
    program = program or functools.partial(_predict, network)
    variables = jax.device_put(variables)
    parts = [np.zeros((0, *network.layers[-1].shape), np.float32)]
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        missing = batch_size - len(part)
        batch = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
        parts.append(np.asarray(program(variables, batch))[: len(part)])
    return np.concatenate(parts)
