"""Winograd's transforms on maps that stay in the order in which their tiles are read.

A chunk of a map is [row in tile, column in tile, image, row of tiles, column of tiles, channel],
[4, 4, q, h, w, c]: each transform reads and writes whole planes of it. Each has its adjoint, by
which gradients go back.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from deepmaker_jax.models.winograd import NUM_TILES, TILE, combined, transforms, written


def to_tiles(x: jax.Array) -> jax.Array:
    """Returns Float[b, h, w, c] as [chunk, row in tile, column in tile, image, row, column, c]."""
    b, h, w, c = x.shape
    high, wide = h // TILE, w // TILE
    wanted = max(1, NUM_TILES // (high * wide))
    images = next(q for q in range(min(wanted, b), 0, -1) if b % q == 0)
    x = x.reshape(b // images, images, high, TILE, wide, TILE, c)
    return x.transpose(0, 3, 5, 1, 2, 4, 6)


def from_tiles(x: jax.Array) -> jax.Array:
    """Returns [chunk, row in tile, column in tile, image, row, column, c] as Float[b, h, w, c]."""
    num, rows, columns, images, high, wide, c = x.shape
    x = x.transpose(0, 3, 4, 1, 5, 2, 6)
    return x.reshape(num * images, high * rows, wide * columns, c)


def halved(x: jax.Array) -> jax.Array:
    """Returns the mean of each 2x2 pixels of [chunk, 4, 4, ...], [chunk, 2, 2, ...]."""
    return sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4  # type: ignore[return-value]


def doubled(g: jax.Array) -> jax.Array:
    """Returns a chunk's gradient, [4, 4, ...], from that of its mean of 2x2 pixels, [2, 2, ...]."""
    each = jnp.broadcast_to(g[:, None, :, None] / 4, (2, 2, 2, 2, *g.shape[2:]))
    return each.reshape(TILE, TILE, *g.shape[2:])


def _shifted(x: jax.Array, by: int, axis: int) -> jax.Array:
    """Returns what lies `by` (-1, 0 or 1) tiles further along an axis, zero beyond the image."""
    if not by:
        return x
    zero = jnp.zeros_like(lax.slice_in_dim(x, 0, 1, axis=axis))
    size = x.shape[axis]
    if by > 0:
        parts = [lax.slice_in_dim(x, 1, size, axis=axis), zero]
    else:
        parts = [zero, lax.slice_in_dim(x, 0, size - 1, axis=axis)]
    return jnp.concatenate(parts, axis)


def _places(side: int) -> list[tuple[int, int]]:
    """Returns (tile, place in it) of each row that an output tile reads."""
    return [divmod(row, TILE) for row in range(-(side // 2), TILE + side // 2)]


def input_tiles(x: jax.Array, side: int) -> jax.Array:
    """Transforms a chunk, Float[4, 4, q, h, w, c], to Float[n * n, q * h * w, c]."""
    matrix = transforms(side)[2]
    rows = [_shifted(x[place], tile, 2) for tile, place in _places(side)]
    r = written(jnp.stack([combined(row, rows) for row in matrix]))  # [n, 4, q, h, w, c]
    columns = [_shifted(r[:, place], tile, 3) for tile, place in _places(side)]
    tiles = jnp.stack([combined(row, columns) for row in matrix], 1)
    return written(tiles.reshape(len(matrix) ** 2, -1, x.shape[-1]))


def input_adjoint(tiles: jax.Array, side: int, shape: tuple[int, ...]) -> jax.Array:
    """Transforms Float[n * n, q * h * w, c] by `input_tiles`' adjoint, to a chunk of this shape."""
    matrix = transforms(side)[2]
    n = len(matrix)
    m = tiles.reshape(n, n, *shape[2:-1], tiles.shape[-1])

    def fold(planes, axis):
        terms: list[list[jax.Array]] = [[] for _ in range(TILE)]
        for j, (tile, place) in enumerate(_places(side)):
            terms[place].append(_shifted(combined(matrix[:, j], planes), -tile, axis))
        return [functools.reduce(jnp.add, some) for some in terms]

    r = written(jnp.stack(fold([m[:, b] for b in range(n)], 3), 1))  # [n, 4, q, h, w, c]
    return written(jnp.stack(fold(list(r), 2)))


def output(tiles: jax.Array, side: int, shape: tuple[int, ...]) -> jax.Array:
    """Transforms Float[n * n, q * h * w, c] to an output chunk, Float[4, 4, q, h, w, c]."""
    matrix = transforms(side)[0]
    n, c = matrix.shape[1], tiles.shape[-1]
    m = tiles.reshape(n, n, -1)
    r = written(jnp.stack([combined(row, list(m)) for row in matrix]))
    y = jnp.stack([combined(row, [r[:, j] for j in range(n)]) for row in matrix], 1)
    return written(y.reshape(TILE, TILE, *shape[2:-1], c))


def output_adjoint(g: jax.Array, side: int) -> jax.Array:
    """Transforms an output chunk's gradient, Float[4, 4, q, h, w, c], by `output`'s adjoint."""
    matrix = transforms(side)[0].T
    c = g.shape[-1]
    g = g.reshape(TILE, TILE, -1)
    r = written(jnp.stack([combined(row, list(g)) for row in matrix]))
    m = jnp.stack([combined(row, [r[:, j] for j in range(TILE)]) for row in matrix], 1)
    return written(m.reshape(len(matrix) ** 2, -1, c))
