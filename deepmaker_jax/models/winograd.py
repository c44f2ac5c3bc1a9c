"""Convolutions by Winograd's minimal filtering, in a form that keeps its speed on a CPU.

F(4 x 4, k x k): an output tile of 4x4 takes (k + 3)^2 products for each pair of
channels and not 16 k^2: 36 and not 144 for 3x3, 64 and not 400 for 5x5. The transforms
are Toom and Cook's (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
Networks"). A few images go through at a time, so that their tiles stay in a
core's second-level cache.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILE = 4  # side of an output tile
NUM_TILES = 64  # at a time
_POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)  # and infinity


def pays(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int) -> bool:
    """Whether training by this form is faster (benchmarks/results/winograd.json).

    For 3x3 kernels that depends on the processor: 0.8 to 1.3 times as fast on that file's, 1.1 to
    1.7 times on the one of the file's first form.

    Args:
      x_shape: (b, h, w, c).
      kernel_shape: (k, k, c, o).
      stride: of the convolution.
    """
    side, _, c, o = kernel_shape
    height, width = x_shape[1:3]
    whole = all(size % TILE == 0 and size >= 2 * TILE for size in (height, width))
    if side == 3:
        enough = height * width >= 16 * 16 and min(c, o) >= 12 and max(c, o) >= 16
    else:
        enough = side == 5 and min(c, o) >= 8
    return stride == 1 and whole and enough


@functools.cache
def transforms(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the transforms (output [4, n], kernel [n, k], input [n, n]) for n = side + 3."""
    n = side + TILE - 1
    points = np.array(_POINTS[: n - 1])
    output, kernel, of_input = np.zeros((TILE, n)), np.zeros((n, side)), np.zeros((n, n))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        output[:, i] = point ** np.arange(TILE)
        kernel[i] = point ** np.arange(side) / np.prod(point - others)
        of_input[i, :-1] = np.poly(others)[::-1]
    output[-1, -1] = kernel[-1, -1] = 1  # the point at infinity
    of_input[-1] = np.poly(points)[::-1]
    return output, kernel, of_input


# Without a barrier XLA computes a stage anew for each entry that the next one reads.
written = lax.optimization_barrier


def combined(row: np.ndarray, planes: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum of planes times a row of a transform, zeros left out."""
    terms = []
    for j in np.flatnonzero(row):
        factor, plane = float(row[j]), planes[int(j)]
        terms.append(plane if factor == 1 else -plane if factor == -1 else plane * factor)
    return functools.reduce(jnp.add, terms)


def _rows(matrix: np.ndarray, planes: Sequence[jax.Array]) -> list[jax.Array]:
    return [combined(row, planes) for row in matrix]


def kernel_tiles(w: jax.Array) -> jax.Array:
    """Transforms Float[k, k, c, o] to Float[n * n, c, o]."""
    both = _both_axes(len(w), w.dtype)
    return written((both @ w.reshape(w.shape[0] ** 2, -1)).reshape(len(both), *w.shape[2:]))


def kernel_adjoint(d: jax.Array, side: int) -> jax.Array:
    """Transforms Float[n * n, c, o] by `kernel_tiles`' adjoint, to Float[k, k, c, o]."""
    both = _both_axes(side, d.dtype)
    return (both.T @ d.reshape(len(both), -1)).reshape(side, side, *d.shape[1:])


def _both_axes(side: int, dtype: Any) -> jax.Array:
    """Returns the kernel's transform along rows and columns at once, Float[n * n, k * k]."""
    matrix = transforms(side)[1]
    return jnp.asarray(np.kron(matrix, matrix), dtype)


def _input_tiles(x: jax.Array, side: int) -> jax.Array:
    """Transforms the overlapping tiles of Float[q, h, w, c]: Float[n * n, tile, c]."""
    q, h, w, c = x.shape
    n, high, wide = side + TILE - 1, h // TILE, w // TILE
    more = -(-n // TILE) - 1  # tiles that an input tile reaches beyond its own
    pad = (side // 2, more * TILE - side // 2)
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    x = x.reshape(q, high + more, TILE, w + more * TILE, c)
    matrix = transforms(side)[2]
    planes = [x[:, i // TILE : i // TILE + high, i % TILE] for i in range(n)]
    x = written(jnp.stack(_rows(matrix, planes)))
    x = x.reshape(n, q, high, wide + more, TILE, c)
    planes = [x[:, :, :, i // TILE : i // TILE + wide, i % TILE] for i in range(n)]
    return written(jnp.stack(_rows(matrix, planes), 1).reshape(n * n, -1, c))


def _output(tiles: jax.Array, side: int, q: int, h: int, w: int) -> jax.Array:
    """Transforms Float[n * n, tile, o] to maps, Float[q, h, w, o]."""
    matrix = transforms(side)[0]
    n, o = matrix.shape[1], tiles.shape[-1]
    tiles = tiles.reshape(n, n, q, h // TILE, w // TILE, o)
    x = written(jnp.stack(_rows(matrix, [tiles[:, i] for i in range(n)]), 4))
    return jnp.stack(_rows(matrix, list(x)), 2).reshape(q, h, w, o)


def _gradient_tiles(g: jax.Array, side: int) -> jax.Array:
    """Transforms Float[q, h, w, o] by the transpose of `_output`'s: Float[n * n, tile, o]."""
    q, h, w, o = g.shape
    matrix = transforms(side)[0].T
    n, high, wide = len(matrix), h // TILE, w // TILE
    g = g.reshape(q, high, TILE, w, o)
    g = written(jnp.stack(_rows(matrix, [g[:, :, i] for i in range(TILE)])))
    g = g.reshape(n, q, high, wide, TILE, o)
    planes = [g[:, :, :, :, i] for i in range(TILE)]
    return written(jnp.stack(_rows(matrix, planes), 1).reshape(n * n, -1, o))


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the products of matrices one by one, Float[n, i, k] and Float[n, k, j]."""
    return lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))))


def _chunks(x: jax.Array) -> jax.Array:
    """Returns Float[b, h, w, c] as [chunk, image, h, w, c]."""
    wanted = max(1, NUM_TILES * TILE * TILE // (x.shape[1] * x.shape[2]))
    images = next(q for q in range(min(wanted, len(x)), 0, -1) if len(x) % q == 0)
    return x.reshape(-1, images, *x.shape[1:])


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of Float[b, h, w, c] and Float[k, k, c, o], zero-padded "SAME".

    Args:
      x: h and w multiples of 4.
      kernel: k is 3 or 5.
    """
    side, kernels = len(kernel), kernel_tiles(kernel)

    def chunk(x):
        return _output(written(product(_input_tiles(x, side), kernels)), side, *x.shape[:3])

    return lax.map(chunk, _chunks(x)).reshape(*x.shape[:3], -1)


def kernel_gradient(x: jax.Array, g: jax.Array, *, side: int) -> jax.Array:
    """Returns the gradient of `convolve`'s kernel, Float[k, k, c, o].

    Args:
      x: Float[b, h, w, c], what was convolved.
      g: Float[b, h, w, o], the output's gradient.
      side: k, of the kernel.
    """
    num, c, o = (side + TILE - 1) ** 2, x.shape[-1], g.shape[-1]

    def add(total, chunk):
        x, g = chunk
        tiles = written(_gradient_tiles(g, side).transpose(0, 2, 1))
        return total + product(tiles, _input_tiles(x, side)), None

    total, _ = lax.scan(add, jnp.zeros((num, o, c), x.dtype), (_chunks(x), _chunks(g)))
    return kernel_adjoint(total.swapaxes(1, 2), side)
