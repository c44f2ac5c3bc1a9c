"""The memory that a lane's passes work in, and reading and writing parts of it in place."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deepmaker_jax.lanes.level import levels
from deepmaker_jax.lanes.size_class import SizeClass


class Work(NamedTuple):
    """Scratch memory, one array per level: Float[chunk, group, channel, pixel].

    Carried from step to step, so that nobody pays for clearing what is not used.

    Attributes:
      z: convolutions' outputs.
      a: activated maps. Products take their operands in this type and sum in the others'.
      d: gradients of `a`.
      features: Float[group, channel, b], means of the last level's maps.
    """

    z: tuple[jax.Array, ...]
    a: tuple[jax.Array, ...]
    d: tuple[jax.Array, ...]
    features: jax.Array


def make_work(
    size_class: SizeClass, batch_size: int, dtype: Any = jnp.float32, *, compute: Any = None
) -> Work:
    """Returns cleared scratch memory; `compute` is the type of products' operands, if another."""
    all_levels = levels(size_class, batch_size)

    def maps(dtype=dtype):
        return tuple(
            jnp.zeros((v.num_chunks, v.num_groups, size_class.group, v.pixels), dtype)
            for v in all_levels
        )

    most = max(v.num_groups for v in all_levels)
    features = jnp.zeros((most, size_class.group, batch_size), dtype)
    return Work(maps(), maps(compute or dtype), maps(), features)


def window(x, start, shape):
    return lax.dynamic_slice(x, [jnp.int32(i) for i in start], shape)


def set_window(x, value, start):
    return lax.dynamic_update_slice(x, value, [jnp.int32(i) for i in start])


def get(x, *index):
    """Returns x[index] for traced indices into its first axes."""
    rest = x.shape[len(index) :]
    return window(x, (*index, *(0,) * len(rest)), (1,) * len(index) + rest).reshape(rest)


def put(x, value, *index):
    """Returns x with x[index] replaced."""
    start = (*index, *(0,) * (x.ndim - len(index)))
    return set_window(x, value.reshape((1,) * len(index) + value.shape), start)


def add_to(x, value, *index):
    return put(x, get(x, *index) + value, *index)


def get_group(x, group):
    """Returns one group of all chunks, Float[chunk, c, pixel]."""
    chunks, _, c, pixels = x.shape
    return window(x, (0, group, 0, 0), (chunks, 1, c, pixels))[:, 0]


def put_group(x, value, group):
    return set_window(x, value[:, None], (0, group, 0, 0))
