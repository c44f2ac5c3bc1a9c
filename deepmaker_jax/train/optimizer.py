"""Update rules and learning rates as functions of arrays.

The learning rate is not baked into the optimizer: `direction` gives the update
for a learning rate of 1 and the step multiplies it. So one compiled program
serves every learning rate and every length of training.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.config import TrainConfig

WARM_UP_SHARE = 0.25
ADAMW_DECAY_FACTOR = 10.0  # decoupled decay is multiplied by a learning rate far below sgd's


class Cycle(NamedTuple):
    """A stretch of training that the learning rate goes through its whole schedule in.

    Attributes:
      first: step that it begins at.
      num_steps: its steps.
    """

    first: int
    num_steps: int


def base_learning_rate(arch: ArchSpec, settings: TrainConfig) -> float:
    """Returns the peak learning rate of an architecture's own optimizer and gene."""
    rates = {"sgd": settings.sgd_learning_rate, "adagrad": settings.adagrad_learning_rate}
    return rates.get(arch.optimizer, settings.adam_learning_rate) * 2.0**arch.learning_rate_log2


def schedule(name: str, progress: jax.Array) -> jax.Array:
    """Returns the share of the peak learning rate at `progress`, Float[] in 0..1.

    "one_cycle": linear from 0 to 1 over the first quarter, then a cosine to 0
    (Smith and Topin 2018, without the final annihilation phase).
    """
    if name == "constant":
        return jnp.ones_like(progress)
    if name == "cosine":
        return 0.5 * (1 + jnp.cos(jnp.pi * progress))
    falling = (progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE)
    return jnp.where(
        progress < WARM_UP_SHARE,
        progress / WARM_UP_SHARE,
        0.5 * (1 + jnp.cos(jnp.pi * falling)),
    )


def direction(optimizer: str, settings: TrainConfig) -> optax.GradientTransformation:
    """Returns the transformation from gradients to an update for a learning rate of -1.

    Weight decay reaches kernels only. It is part of the gradient (L2) except
    with adamw, where it is decoupled (Loshchilov and Hutter 2019).
    """
    rules = {
        "sgd": optax.trace(decay=settings.momentum, nesterov=True),
        "adam": optax.scale_by_adam(),
        "adamw": optax.scale_by_adam(),
        "nadam": optax.scale_by_adam(nesterov=True),
        "adamax": optax.scale_by_adamax(),
        "adagrad": optax.scale_by_rss(initial_accumulator_value=0.1),
    }
    decoupled = optimizer == "adamw"
    strength = settings.weight_decay * (ADAMW_DECAY_FACTOR if decoupled else 1.0)
    decay = optax.add_decayed_weights(strength, mask=_kernels) if strength else optax.identity()
    clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
    rule = rules[optimizer]
    return optax.chain(clip, rule, decay) if decoupled else optax.chain(clip, decay, rule)


def rule_state(rule: optax.GradientTransformation, params: Any) -> Any:
    """Returns `rule.init(params)` as NumPy arrays, for a rule that fills each leaf with one value.

    optax fills the leaves by JAX, which compiles a program for each shape of each network. Here it
    fills leaves of one number, whose shapes all networks share.

    Args:
      rule: of `direction`.
      params: arrays, of any device.
    """
    like = jax.eval_shape(rule.init, params)
    small = rule.init(jax.tree.map(lambda leaf: np.zeros((1,) * leaf.ndim, leaf.dtype), params))
    return jax.tree.map(lambda value, to: np.broadcast_to(value, to.shape).copy(), small, like)


def _kernels(params):
    """Returns True where a leaf is a kernel: norms and biases are vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
