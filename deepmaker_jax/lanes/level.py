"""The resolutions of a size class: how a batch's maps lie in chunks, and their neighbourhoods.

A level's maps lie in chunks of a few images that fit a core's cache, or one chunk on an
accelerator, one row of pixels per channel: Float[chunk, group, channel, pixel], pixels in the
order (h, w, image of the chunk). Then every 3x3 edge is a matrix product with long rows,
[group, 9 group] @ [9 group, pixel].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deepmaker_jax.lanes.size_class import BLOCK, SizeClass


class Level(NamedTuple):
    """Static shapes of one resolution.

    Attributes:
      index: 0 for the image's own.
      h, w: of its maps.
      num_chunks, num_images: the batch is `num_chunks * num_images` images.
      first_row, num_groups: its part of the class's rows; groups with the trash.
      trash: the first of the groups that nobody reads, as many as a 1x1 edge reads at once: where
        a lane writes while a neighbour's loop is longer than its own.
    """

    index: int
    h: int
    w: int
    num_chunks: int
    num_images: int
    first_row: int
    num_groups: int
    trash: int

    @property
    def pixels(self) -> int:
        """Pixels of a chunk."""
        return self.h * self.w * self.num_images


def levels(size_class: SizeClass, batch_size: int):
    """Returns the class's resolutions for a batch; a chunk's images are whole chunks above it."""
    found, num_images, first_row = [], 1, 0
    for index, rows in enumerate(size_class.num_rows):
        h, w = size_class.side(index)
        wanted = max(num_images, size_class.num_pixels // (h * w))
        fits = [q for q in range(num_images, batch_size + 1, num_images) if batch_size % q == 0]
        num_images = max(q for q in fits if q <= wanted or q == num_images)
        trash, num_groups = rows // size_class.group, (rows + BLOCK) // size_class.group
        chunks = batch_size // num_images
        found.append(Level(index, h, w, chunks, num_images, first_row, num_groups, trash))
        first_row += rows
    return tuple(found)


def joined(level: Level, below: Level) -> tuple[int, tuple[int, ...]]:
    """Returns how many of a level's chunks make one below, and their shape once pooled."""
    pieces = below.num_images // level.num_images
    return pieces, (pieces, -1, below.h, below.w, level.num_images)


def _shift(x, distance):
    """Moves the last axis by `distance` and fills with zeros."""
    if distance == 0:
        return x
    if abs(distance) >= x.shape[-1]:
        return jnp.zeros_like(x)
    zeros = jnp.zeros((*x.shape[:-1], abs(distance)), x.dtype)
    parts = [x[..., distance:], zeros] if distance > 0 else [zeros, x[..., :distance]]
    return jnp.concatenate(parts, -1)


def patches(x: jax.Array, level: Level, side: int) -> jax.Array:
    """Returns each pixel's neighbourhood, zero outside the image.

    Args:
      x: Float[c, pixel].
      level: whose pixels they are.
      side: k, odd.

    Returns:
      Float[k * k * c, pixel], rows in the order (dy, dx, c).
    """
    reach, row = side // 2, level.w * level.num_images
    x = x.reshape(-1, level.h, row)
    columns = [_shift(x, d * level.num_images) for d in range(-reach, reach + 1)]
    # Materialised twice on purpose: XLA would compute a concatenation of slices element by element.
    x = jnp.pad(jnp.stack(columns), ((0, 0), (0, 0), (reach, reach), (0, 0)))
    x = lax.optimization_barrier(x)
    rows = [x[:, :, i : i + level.h].reshape(-1, level.pixels) for i in range(side)]
    return lax.optimization_barrier(jnp.concatenate(rows))


def stem_patches(image: jax.Array, level: Level) -> jax.Array:
    """Returns the stem's 3x3 neighbourhoods, strided by 2 where the level is the second.

    Args:
      image: Float[c, h, w, q], a chunk of the level's, at the image's own resolution.
      level: the stem's output.

    Returns:
      Float[9 * c, pixel], rows in the order (dy, dx, c).
    """
    c, h, w, _ = image.shape
    if level.index == 0:
        return patches(image.reshape(c, -1), level, 3)
    pads = [(0, 0)]
    for size in (h, w):  # "SAME"
        total = (-(-size // 2) - 1) * 2 + 3 - size
        pads.append((total // 2, total - total // 2))
    x = lax.optimization_barrier(jnp.pad(image, (*pads, (0, 0))))
    high, wide = level.h * 2 - 1, level.w * 2 - 1
    taps = [
        x[:, i : i + high : 2, j : j + wide : 2].reshape(c, -1) for i in range(3) for j in range(3)
    ]
    return jnp.concatenate(taps)


def in_chunks(images: jax.Array, level: Level) -> jax.Array:
    """Returns Float[b, h, w, c] images as the level's chunks, Float[chunk, c, h, w, q]."""
    x = images.reshape(level.num_chunks, level.num_images, *images.shape[1:])
    return x.transpose(0, 4, 2, 3, 1)
