"""2x2 pooling of chunks, by the mean or the largest, and its gradient."""

import jax
import jax.numpy as jnp
from jax import lax

from deepmaker_jax.lanes.level import Level

WIDE = 32  # images of a chunk from which on picking pixels is cheaper than a product with zeros


def _halves(level: Level, dtype) -> tuple[jax.Array, jax.Array]:
    """Returns the matrices that take a row's even and its odd pixels, Float[w * q, w // 2 * q]."""
    even = jnp.eye(level.w // 2 * 2, dtype=dtype)
    even = jnp.pad(even, ((0, level.w % 2), (0, 0)))
    image = jnp.eye(level.num_images, dtype=dtype)
    return jnp.kron(even[:, ::2], image), jnp.kron(even[:, 1::2], image)


def _row_pairs(x, level: Level):
    """Returns the upper and the lower rows of a chunk's windows, Float[..., h // 2, w * q] each."""
    x = x.reshape(*x.shape[:-1], level.h, -1)[..., : level.h // 2 * 2, :]
    x = x.reshape(*x.shape[:-2], level.h // 2, 2, -1)
    return x[..., 0, :], x[..., 1, :]


def _select(row, half):
    """Returns the pixels that a matrix of zeros and ones picks, to the bit on any device."""
    return jnp.matmul(row, half, precision=lax.Precision.HIGHEST)


def _corners(x, level: Level):
    """Returns the four pixels of each 2x2 window: Float[..., h // 2, w // 2 * q]."""
    if level.num_images >= WIDE:
        return [half for row in _row_pairs(x, level) for half in _split(row, level)]
    return [_select(row, half) for row in _row_pairs(x, level) for half in _halves(level, x.dtype)]


def _split(row, level: Level):
    """Returns a row's even and its odd pixels, Float[..., w // 2 * q] each."""
    pairs = row.reshape(*row.shape[:-1], level.w, -1)[..., : level.w // 2 * 2, :]
    pairs = pairs.reshape(*row.shape[:-1], level.w // 2, 2, level.num_images)
    return tuple(pairs[..., i, :].reshape(*row.shape[:-1], -1) for i in range(2))


def _join(even, odd, level: Level):
    """Returns the row of `_split`'s halves, Float[..., w * q]; an odd last pixel is 0."""
    shape = (*even.shape[:-1], level.w // 2, level.num_images)
    if level.num_images >= WIDE:
        row = jnp.stack([even.reshape(shape), odd.reshape(shape)], -2)
        row = row.reshape(*even.shape[:-1], -1)
        missing = level.w % 2 * level.num_images
        return jnp.pad(row, (*((0, 0),) * (row.ndim - 1), (0, missing)))
    halves = _halves(level, even.dtype)
    return _select(even, halves[0].T) + _select(odd, halves[1].T)


def _first_of(corners):
    """Returns, for each corner, True where it is the first of its window's largest."""
    most = jnp.maximum(jnp.maximum(*corners[:2]), jnp.maximum(*corners[2:]))
    free, found = jnp.ones(most.shape, bool), []
    for corner in corners:
        found.append(free & (corner == most))
        free &= ~found[-1]
    return found


def pool_windows(x, level: Level, by_max):
    """Pools pieces of one group, Float[piece, c, pixel] to Float[piece, c, h // 2, w // 2 * q]."""

    def mean(x):
        upper, lower = _row_pairs(x, level)
        if level.num_images >= WIDE:
            even, odd = _split(upper + lower, level)
            return (even + odd) * 0.25
        even, odd = _halves(level, x.dtype)
        return _select(upper + lower, (even + odd) * 0.25)

    def most(x):
        corners = _corners(x, level)
        return jnp.maximum(jnp.maximum(*corners[:2]), jnp.maximum(*corners[2:]))

    return lax.cond(by_max, most, mean, x) if level.index == 0 else mean(x)


def unpool_windows(g, x, level: Level, by_max):
    """Returns the gradient of `pool_windows`'s x; of equal values the first one gets it."""

    def rows(upper, lower):
        whole = jnp.stack([upper, lower], -2).reshape(*g.shape[:2], level.h // 2 * 2, -1)
        whole = jnp.pad(whole, ((0, 0), (0, 0), (0, level.h % 2), (0, 0)))
        return whole.reshape(*g.shape[:2], level.pixels)

    def mean(g, x):
        if level.num_images >= WIDE:
            row = _join(g * 0.25, g * 0.25, level)
        else:
            even, odd = _halves(level, g.dtype)
            row = _select(g, ((even + odd) * 0.25).T)
        return rows(row, row)

    def most(g, x):
        parts = [jnp.where(first, g, 0) for first in _first_of(_corners(x, level))]
        return rows(*(_join(a, b, level) for a, b in (parts[:2], parts[2:])))

    return lax.cond(by_max, most, mean, g, x) if level.index == 0 else mean(g, x)
