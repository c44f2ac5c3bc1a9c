"""Activations by name, each with its slope: batch norm's gradient needs both in one pass."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from deepmaker_jax.arch import split_activation

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017
Function = Callable[[jax.Array], jax.Array]


def _silu_slope(x: jax.Array) -> jax.Array:
    share = jax.nn.sigmoid(x)
    return share * (1 + x * (1 - share))


def _sigmoid_slope(x: jax.Array) -> jax.Array:
    share = jax.nn.sigmoid(x)
    return share * (1 - share)


def _elu_slope(x: jax.Array) -> jax.Array:
    return jnp.exp(jnp.minimum(x, 0.0))


ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "relu": (nn.relu, lambda x: jnp.where(x > 0, 1.0, 0.0)),
    "relu6": (nn.relu6, lambda x: jnp.where((x > 0) & (x < 6), 1.0, 0.0)),
    "hard_swish": (
        nn.hard_swish,
        lambda x: jnp.where(x > 3, 1.0, jnp.where(x < -3, 0.0, x / 3 + 0.5)),
    ),
    "silu": (nn.silu, _silu_slope),
    "swish": (nn.swish, _silu_slope),
    "elu": (nn.elu, _elu_slope),
    "selu": (
        nn.selu,
        lambda x: SELU_SCALE * jnp.where(x > 0, 1.0, SELU_ALPHA * _elu_slope(x)),
    ),
    "tanh": (jnp.tanh, lambda x: 1 - jnp.tanh(x) ** 2),
    "sigmoid": (nn.sigmoid, _sigmoid_slope),
}


def activate(name: str, x: jax.Array) -> jax.Array:
    """Applies an activation by name; "a/b" is `a` where x < 0 and `b` elsewhere; "" is none."""
    return _by_side(name, 0, x) if name else x


def slope(name: str, x: jax.Array) -> jax.Array:
    """Returns the derivative of `activate(name, x)`; at a kink, of one of its sides."""
    return _by_side(name, 1, x) if name else jnp.ones_like(x)


def _by_side(name: str, which: int, x: jax.Array) -> jax.Array:
    negative, positive = split_activation(name)
    if negative == positive:
        return ACTIVATIONS[positive][which](x)
    return jnp.where(x < 0, ACTIVATIONS[negative][which](x), ACTIVATIONS[positive][which](x))
