"""The network of any wiring: one forward and one backward pass for a whole size class.

A level's maps lie in chunks of a few images that fit a core's cache, one row of
pixels per channel: Float[chunk, group, channel, pixel], pixels in the order
(h, w, image of the chunk). Then every 3x3 edge is a matrix product with long
rows, [group, 9 group] @ [9 group, pixel]; the patches of a source group are
built once for all its edges. Loops over groups and edges have the lane's own
trip counts, so padding costs memory and no time.

The arithmetic is that of `models.Network` in training: convolution, batch norm
by the batch's own statistics, activation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deepmaker_jax.lanes.size_class import BLOCK, SizeClass
from deepmaker_jax.lanes.wiring import Ranges, Wiring
from deepmaker_jax.models.activation import activate, slope
from deepmaker_jax.models.ops import BATCH_NORM_EPSILON

Params = dict[str, Any]
WIDE = 32  # images of a chunk from which on picking pixels is cheaper than a product with zeros


class Level(NamedTuple):
    """Static shapes of one resolution.

    Attributes:
      index: 0 for the image's own.
      h, w: of its maps.
      num_chunks, num_images: the batch is `num_chunks * num_images` images.
      first_row, num_groups: its part of the class's rows; groups with the trash.
    """

    index: int
    h: int
    w: int
    num_chunks: int
    num_images: int
    first_row: int
    num_groups: int

    @property
    def pixels(self) -> int:
        """Pixels of a chunk."""
        return self.h * self.w * self.num_images


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


def levels(size_class: SizeClass, batch_size: int):
    """Returns the class's resolutions for a batch; a chunk's images are whole chunks above it."""
    found, num_images, first_row = [], 1, 0
    for index, rows in enumerate(size_class.num_rows):
        h, w = size_class.side(index)
        wanted = max(num_images, size_class.num_pixels // (h * w))
        fits = [q for q in range(num_images, batch_size + 1, num_images) if batch_size % q == 0]
        num_images = max(q for q in fits if q <= wanted or q == num_images)
        num_groups = (rows + BLOCK) // size_class.group
        chunks = batch_size // num_images
        found.append(Level(index, h, w, chunks, num_images, first_row, num_groups))
        first_row += rows
    return tuple(found)


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


def _slice(x, start, shape):
    return lax.dynamic_slice(x, [jnp.int32(i) for i in start], shape)


def _update(x, value, start):
    return lax.dynamic_update_slice(x, value, [jnp.int32(i) for i in start])


def _get(x, *index):
    """Returns x[index] for traced indices into its first axes."""
    rest = x.shape[len(index) :]
    return _slice(x, (*index, *(0,) * len(rest)), (1,) * len(index) + rest).reshape(rest)


def _put(x, value, *index):
    """Returns x with x[index] replaced."""
    start = (*index, *(0,) * (x.ndim - len(index)))
    return _update(x, value.reshape((1,) * len(index) + value.shape), start)


def _add(x, value, *index):
    return _put(x, _get(x, *index) + value, *index)


def _get_group(x, group):
    """Returns one group of all chunks, Float[chunk, c, pixel]."""
    chunks, _, c, pixels = x.shape
    return _slice(x, (0, group, 0, 0), (chunks, 1, c, pixels))[:, 0]


def _put_group(x, value, group):
    return _update(x, value[:, None], (0, group, 0, 0))


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


def _stem_patches(image: jax.Array, level: Level) -> jax.Array:
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


def _chunked(images: jax.Array, level: Level) -> jax.Array:
    """Returns Float[b, h, w, c] images as the level's chunks, Float[chunk, c, h, w, q]."""
    x = images.reshape(level.num_chunks, level.num_images, *images.shape[1:])
    return x.transpose(0, 4, 2, 3, 1)


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


def _pool(x, level: Level, by_max):
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


def _unpool(g, x, level: Level, by_max):
    """Returns the gradient of `_pool`'s x; of equal values the first one gets it."""

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


class _Lane(NamedTuple):
    """What both passes over a lane read: static shapes, weights, wiring and loop counts."""

    of: SizeClass
    params: Params
    wiring: Wiring
    trips: Ranges

    def repeat(self, name, body, carry, *at):
        """Runs `body(i, live, carry)` as often as the longest lane beside this one needs.

        `live` is False beyond the lane's own count: what such a turn writes must
        go to the trash.
        """
        trips, own = (
            _get(getattr(self.trips, name), *at),
            _get(getattr(self.wiring.counts, name), *at),
        )
        return lax.fori_loop(0, trips, lambda i, carry: body(i, i < own, carry), carry)

    def when(self, name, body, carry, *at):
        """Runs `body(zero, carry)` if any lane here repeats `name` at all.

        `zero` is 0: what depends on it is not moved out of the branch by XLA.
        """
        trips = jnp.minimum(_get(getattr(self.trips, name), *at), 1)
        return lax.fori_loop(0, trips, body, carry)

    def group(self, live, index):
        return jnp.where(live, index, self.of.trash)

    def by_group(self, name, level):
        """Returns a level's part of a per-channel array, Float[group, c]."""
        rows = self.of.num_rows[level.index]
        return self.params[name][level.first_row : level.first_row + rows].reshape(
            -1, self.of.group
        )

    def by_activation(self, normed, plain, function, *operands):
        """Returns `plain(*operands)` or, behind a norm, `function(activation's name, *operands)`.

        A branch's operands and result are arrays in memory: what reads them does
        not read the scratch memory again, which would be copied whole for that.
        """
        kinds = [lambda *x, n=n: function(n, *x) for n in self.of.activations]
        return lax.switch(
            jnp.where(normed, 1 + self.wiring.activation, 0), [plain, *kinds], *operands
        )

    def block(self, x, chunk, group):
        """Returns BLOCK channels of a chunk from a group on, Float[BLOCK, pixel]."""
        size = BLOCK // self.of.group
        return _slice(x, (chunk, group, 0, 0), (1, size, *x.shape[2:])).reshape(BLOCK, -1)

    def add_block(self, x, value, chunk, group):
        at, shape = (chunk, group, 0, 0), (1, BLOCK // self.of.group, *x.shape[2:])
        return _update(x, _slice(x, at, shape) + value.reshape(shape), at)


def _product(kernel, x, dtype):
    """Returns kernel @ x, of x's type and summed in `dtype`."""
    return jnp.matmul(kernel.astype(x.dtype), x, preferred_element_type=dtype)


def _over_pixels(x, y, dtype):
    """Returns x @ y.T. The order matters: with the larger one last, XLA takes twice as long."""
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())), preferred_element_type=dtype)


def _column(vector):
    return vector[:, None]


def _statistics(z, level):
    """Returns a group's mean and variance over the batch, Float[c] each."""
    count = level.num_chunks * level.pixels
    mean = z.sum((0, 2)) / count
    return mean, jnp.maximum((z * z).sum((0, 2)) / count - mean * mean, 0.0)


def _affine(scale, bias, mean, variance):
    """Returns batch norm as a gain and a shift."""
    gain = scale * lax.rsqrt(variance + BATCH_NORM_EPSILON)
    return gain, bias - mean * gain


def _joined(level: Level, below: Level) -> tuple[int, tuple[int, ...]]:
    """Returns how many of a level's chunks make one below, and their shape once pooled."""
    pieces = below.num_images // level.num_images
    return pieces, (pieces, -1, below.h, below.w, level.num_images)


def _inputs(lane: _Lane, level: Level, above: Level | None, work: Work, images) -> Work:
    """Writes what enters a level: the stem's convolution, or the level above, pooled."""
    wiring, s = lane.wiring, level.index
    z, a = work.z[s], work.a[s]
    empty = jnp.zeros((level.num_chunks, lane.of.group, level.pixels), z.dtype)

    z = lane.repeat(
        "num_groups", lambda i, live, z: _put_group(z, empty, lane.group(live, i)), z, s
    )
    if above is not None:
        pieces, shape = _joined(above, level)

        def pool(i, live, a):
            source, target = (
                lane.group(live, wiring.first_pooled[above.index] + i),
                lane.group(live, i),
            )

            def chunk(c, a):
                x = work.a[above.index]
                x = _slice(x, (c * pieces, source, 0, 0), (pieces, 1, *x.shape[2:]))[:, 0]
                x = _pool(x.astype(z.dtype), above, wiring.by_max[above.index])
                x = x.reshape(shape).astype(a.dtype)
                return _put(a, x.transpose(1, 2, 3, 0, 4).reshape(-1, level.pixels), c, target)

            return lax.fori_loop(0, level.num_chunks, chunk, a)

        a = lane.repeat("num_pooled", pool, a, above.index)
    if images is not None:

        def convolve(c, z):
            around = _stem_patches(_get(images, c), level)

            def one(i, live, z):
                product = _product(_get(lane.params["stem"], i), around, z.dtype)
                return _put(z, product, c, lane.group(live, i))

            return lane.repeat("num_stem", one, z, s)

        z = lane.when(
            "num_stem", lambda _, z: lax.fori_loop(0, level.num_chunks, convolve, z), z, s
        )
    return work._replace(z=(*work.z[:s], z, *work.z[s + 1 :]), a=(*work.a[:s], a, *work.a[s + 1 :]))


def _forward_level(lane: _Lane, level: Level, work: Work, running):
    """Computes a level's maps, group by group; returns (work, its groups' mean and variance).

    Args:
      lane: the lane.
      level: the level.
      work: its inputs stand in `a` or `z`.
      running: (mean, variance) to normalise by, Float[group, c] each, or None
        for the batch's own.
    """
    wiring, s = lane.wiring, level.index
    scale, bias = lane.by_group("scale", level), lane.by_group("bias", level)

    def group(i, live, carry):
        z, a, statistics = carry
        g = lane.group(live, i)
        normed = g >= wiring.num_inputs[s]

        def mix_chunk(chunk, z):
            def mix(j, live, sum):
                edge = jnp.where(live, _get(wiring.first_mix, s, i) + j, lane.of.num_mixes)
                block = lane.block(a, chunk, _get(wiring.mix_source, edge))
                product = _product(_get(lane.params["mix"], edge), block, z.dtype)
                return sum + jnp.where(live, product, 0)

            none = jnp.zeros((BLOCK, level.pixels), z.dtype)
            return lane.add_block(z, lane.repeat("num_mix", mix, none, s, i), chunk, g)

        z = lane.when(
            "num_mix", lambda _, z: lax.fori_loop(0, level.num_chunks, mix_chunk, z), z, s, i
        )
        if running is None:
            mean, variance = _statistics(_get_group(z, g), level)
            statistics = tuple(
                _put(x, v, g) for x, v in zip(statistics, (mean, variance), strict=True)
            )
        else:
            mean, variance = (_get(x, g) for x in running)
        gain, shift = _affine(_get(scale, g), _get(bias, g), mean, variance)

        def push(chunk, carry):
            z, a = carry
            x = lane.by_activation(
                normed,
                lambda z, a, gain, shift: a.astype(z.dtype),
                lambda name, z, a, gain, shift: activate(name, z * _column(gain) + _column(shift)),
                _get(z, chunk, g), _get(a, chunk, g), gain, shift,
            )  # fmt: skip
            x = x.astype(a.dtype)
            a = _put(a, x, chunk, g)

            def convolve(zero, z):
                around = patches(jnp.where(zero == 0, x, 0), level, lane.of.kernel)

                def edge(j, live, z):
                    e = jnp.where(live, _get(wiring.first_conv_out, s, i) + j, lane.of.num_convs)
                    product = _product(_get(lane.params["conv"], e), around, z.dtype)
                    return _add(z, product, chunk, _get(wiring.conv_target, e))

                return lane.repeat("num_conv_out", edge, z, s, i)

            return lane.when("num_conv_out", convolve, z, s, i), a

        z, a = lax.fori_loop(0, level.num_chunks, push, (z, a))
        return z, a, statistics

    statistics = (jnp.zeros((level.num_groups, lane.of.group), work.z[s].dtype),) * 2
    z, a, statistics = lane.repeat("num_groups", group, (work.z[s], work.a[s], statistics), s)

    def read(i, live, features):
        x = _get_group(a, lane.group(live, i))
        x = x.reshape(level.num_chunks, -1, level.h * level.w, level.num_images)
        x = x.mean(2, dtype=features.dtype)
        x = x.swapaxes(0, 1).reshape(-1, level.num_chunks * level.num_images)
        return _put(features, x, lane.group(live, i))

    features = lane.repeat("num_read", read, work.features, s)
    work = Work(
        (*work.z[:s], z, *work.z[s + 1 :]), (*work.a[:s], a, *work.a[s + 1 :]), work.d, features
    )
    return work, statistics


def _forward(lane: _Lane, all_levels, work: Work, images, running):
    # Rows of `features` that nobody writes must be finite: the head's weights for them are zero.
    work = work._replace(features=jnp.zeros_like(work.features))
    found, above = [], None
    for level, chunks in zip(all_levels, images, strict=True):
        work = _inputs(lane, level, above, work, chunks)
        rows = None if running is None else tuple(r[level.index] for r in running)
        work, statistics = _forward_level(lane, level, work, rows)
        found.append(statistics)
        above = level
    return work, found


def _stem_images(images, all_levels, dtype):
    """Returns the images as the chunks of the two levels that a stem may write, None below."""
    images = images.astype(dtype)
    return [_chunked(images, level) if level.index < 2 else None for level in all_levels]


def _logits(head, head_bias, features):
    features = features[: len(head) // features.shape[1]]
    return features.reshape(len(head), -1).T @ head + head_bias[None, :]


def predict(
    size_class: SizeClass, params: Params, statistics: Params, wiring: Wiring, trips: Ranges,
    work: Work, images: jax.Array,
) -> tuple[jax.Array, Work]:  # fmt: skip
    """Returns (logits of scaled images, Float[b, classes], work), by the running statistics."""
    lane, all_levels = _Lane(size_class, params, wiring, trips), levels(size_class, len(images))
    of = lane._replace(params=statistics)
    running = tuple([of.by_group(name, level) for level in all_levels] for name in ("mean", "var"))
    chunks = _stem_images(images, all_levels, work.a[0].dtype)
    work, _ = _forward(lane, all_levels, work, chunks, running)
    return _logits(params["head"], params["head_bias"], work.features), work


def value_and_grad(
    size_class: SizeClass, params: Params, wiring: Wiring, trips: Ranges, work: Work,
    images: jax.Array, loss,
):  # fmt: skip
    """Returns a batch's loss, its gradient and its batch norms' statistics.

    Args:
      size_class: static shapes.
      params: a lane's parameters.
      wiring: the lane's.
      trips: its own counts, or the largest of the lanes that run beside it.
      work: scratch memory.
      images: Float[b, h, w, c], scaled.
      loss: `(logits Float[b, classes]) -> Float[]`.

    Returns:
      (loss, gradient like params, {"mean", "var"} Float[row] each, work). The
      gradient of entries that the plain network lacks is not zero everywhere:
      mask it.
    """
    lane, all_levels = _Lane(size_class, params, wiring, trips), levels(size_class, len(images))
    chunks = _stem_images(images, all_levels, work.a[0].dtype)
    work, statistics = _forward(lane, all_levels, work, chunks, None)

    def of_head(head, head_bias, features):
        return loss(_logits(head, head_bias, features))

    value, gradients = jax.value_and_grad(of_head, argnums=(0, 1, 2))(
        params["head"], params["head_bias"], work.features
    )
    grads = {"head": gradients[0], "head_bias": gradients[1]}
    k, c = size_class.kernel, size_class.group
    turned = params["conv"].reshape(-1, c, k * k, c)[:, :, ::-1].transpose(0, 3, 2, 1)
    turned = {"conv": turned.reshape(params["conv"].shape), "mix": params["mix"].swapaxes(1, 2)}

    def with_trash(x):
        return jnp.zeros((len(x) + 1, *x.shape[:0:-1]), x.dtype)  # each kernel transposed

    kernels = {name: with_trash(params[name]) for name in ("conv", "mix", "stem")}
    vectors = []
    for level in reversed(all_levels):
        below = all_levels[level.index + 1] if level.index + 1 < len(all_levels) else None
        work = _outputs(lane, level, below, work, gradients[2])
        work, kernels, of_norms = _backward_level(
            lane, level, work, statistics[level.index], turned, kernels, chunks[level.index]
        )
        vectors.append(of_norms)

    def flat(parts):
        rows = [p.reshape(-1)[:n] for p, n in zip(parts, size_class.num_rows, strict=True)]
        return jnp.concatenate(rows)

    by_name = zip(("scale", "bias"), zip(*reversed(vectors), strict=True), strict=True)
    grads |= {name: flat(parts) for name, parts in by_name}
    dconv = kernels["conv"][:-1].reshape(-1, k * k, c, c)[:, ::-1].transpose(0, 2, 1, 3)
    grads |= {"conv": dconv.reshape(params["conv"].shape)}
    grads |= {name: kernels[name][:-1].swapaxes(1, 2) for name in ("mix", "stem")}
    found = zip(("mean", "var"), zip(*statistics, strict=True), strict=True)
    return value, grads, {name: flat(parts) for name, parts in found}, work


def _outputs(lane: _Lane, level: Level, below: Level | None, work: Work, dfeatures) -> Work:
    """Writes the gradients that leave a level's maps with: the head's, or the level's below."""
    wiring, s = lane.wiring, level.index
    shape = (level.num_chunks, lane.of.group, level.pixels)

    def begin(i, live, d):
        share = _get(dfeatures, i) * jnp.where(wiring.is_last[s], 1.0 / (level.h * level.w), 0.0)
        share = share.reshape(-1, level.num_chunks, 1, level.num_images).swapaxes(0, 1)
        g = jnp.broadcast_to(share, (*shape[:2], level.h * level.w, level.num_images))
        return _put_group(d, g.reshape(shape).astype(d.dtype), lane.group(live, i))

    d = lane.repeat("num_groups", begin, work.d[s], s)
    if below is not None:
        pieces, shape = _joined(level, below)

        def unpool(i, live, d):
            source, target = lane.group(live, i), lane.group(live, wiring.first_pooled[s] + i)

            def chunk(c, d):
                g = _get(work.d[below.index], c, source)
                g = g.reshape(-1, below.h, below.w, pieces, level.num_images)
                g = g.transpose(3, 0, 1, 2, 4).reshape(
                    pieces, -1, below.h, below.w * level.num_images
                )
                at = (c * pieces, target, 0, 0)
                x = _slice(work.a[s], at, (pieces, 1, *d.shape[2:]))[:, 0]
                return _update(d, _unpool(g, x, level, wiring.by_max[s])[:, None], at)

            return lax.fori_loop(0, below.num_chunks, chunk, d)

        d = lane.repeat("num_pooled", unpool, d, s)
    return work._replace(d=(*work.d[:s], d, *work.d[s + 1 :]))


def _backward_level(lane: _Lane, level: Level, work: Work, statistics, turned, kernels, images):
    """Goes through a level's groups in reverse; returns (work, kernels, (dscale, dbias)).

    Args:
      lane: the lane.
      level: the level.
      work: `d` holds the gradients that leave the level.
      statistics: (mean, variance), Float[group, c] each.
      turned: the weights of "conv" and "mix" for the way back: [e, c in, k * k * c out] and
        [e, c in, c out].
      kernels: gradients of "conv" (turned too), "mix" and "stem" so far, transposed.
      images: the level's chunks of images, or None.
    """
    wiring, s = lane.wiring, level.index
    scale, bias = lane.by_group("scale", level), lane.by_group("bias", level)
    z, a = work.z[s], work.a[s]
    count = level.num_chunks * level.pixels

    def group(turn, live, carry):
        d, kernels, of_norms = carry
        i = _get(lane.trips.num_groups, s) - 1 - turn  # lanes with fewer groups begin later
        live = i < _get(wiring.counts.num_groups, s)
        g = lane.group(live, i)
        normed = g >= wiring.num_inputs[s]
        mean, variance = (_get(x, g) for x in statistics)
        gain, shift = _affine(_get(scale, g), _get(bias, g), mean, variance)
        inverse = lax.rsqrt(variance + BATCH_NORM_EPSILON)

        def sum_up(chunk, sums):
            def behind(name, z, d):
                dy = d * slope(name, z * _column(gain) + _column(shift))
                return dy.sum(1), (dy * (z - _column(mean))).sum(1)

            operands = _get(z, chunk, g), _get(d, chunk, g)
            found = lane.by_activation(normed, lambda z, d: (none, none), behind, *operands)
            return sums[0] + found[0], sums[1] + found[1]

        none = jnp.zeros(mean.shape, mean.dtype)
        dbias, dscale = lax.fori_loop(0, level.num_chunks, sum_up, (none, none))
        dscale = dscale * inverse
        of_norms = (_put(of_norms[0], dscale, g), _put(of_norms[1], dbias, g))
        slant = -gain * inverse * dscale / count
        offset = -gain * dbias / count - slant * mean

        def pull(chunk, carry):
            d, kernels = carry

            def behind(name, z, d):
                dy = d * slope(name, z * _column(gain) + _column(shift))
                return dy * _column(gain) + z * _column(slant) + _column(offset)

            operands = _get(z, chunk, g), _get(d, chunk, g)
            dz = lane.by_activation(normed, lambda z, d: d, behind, *operands)

            def convolve(zero, carry):
                around = patches(jnp.where(zero == 0, dz, 0).astype(a.dtype), level, lane.of.kernel)

                def edge(j, live, carry):
                    d, dconv = carry
                    at = jnp.where(live, _get(wiring.first_conv_in, s, i) + j, lane.of.num_convs)
                    e = _get(wiring.conv_in, at)
                    source = _get(wiring.conv_source, e)
                    d = _add(d, _product(_get(turned["conv"], e), around, d.dtype), chunk, source)
                    product = _over_pixels(around, _get(a, chunk, source), d.dtype)
                    return d, _add(dconv, product, e)

                return lane.repeat("num_conv_in", edge, carry, s, i)

            d, dconv = lane.when("num_conv_in", convolve, (d, kernels["conv"]), s, i)

            # The stem's and the 1x1 edges' gradients are taken later, from what stands here.
            return _put(d, dz, chunk, g), kernels | {"conv": dconv}

        def mix_chunk(chunk, carry):
            d, dmix = carry
            dz = lane.block(d, chunk, g).astype(a.dtype)

            def mix(j, live, carry):
                d, dmix = carry
                edge = jnp.where(live, _get(wiring.first_mix, s, i) + j, lane.of.num_mixes)
                source = _get(wiring.mix_source, edge)
                back = jnp.where(live, _product(_get(turned["mix"], edge), dz, d.dtype), 0)
                product = _over_pixels(lane.block(a, chunk, source), dz, d.dtype)
                return lane.add_block(d, back, chunk, source), _add(dmix, product, edge)

            return lane.repeat("num_mix", mix, (d, dmix), s, i)

        d, kernels = lax.fori_loop(0, level.num_chunks, pull, (d, kernels))
        d, dmix = lane.when(
            "num_mix",
            lambda _, carry: lax.fori_loop(0, level.num_chunks, mix_chunk, carry),
            (d, kernels["mix"]), s, i,
        )  # fmt: skip
        return d, kernels | {"mix": dmix}, of_norms

    none = jnp.zeros((level.num_groups, lane.of.group), z.dtype)
    carry = work.d[s], kernels, (none, none)
    d, kernels, of_norms = lane.repeat("num_groups", group, carry, s)
    if images is not None:

        def of_stem(c, dstem):
            around = _stem_patches(_get(images, c), level)

            def one(i, live, dstem):
                at = jnp.where(live, i, lane.of.num_stem)
                dz = _get(d, c, lane.group(live, i)).astype(around.dtype)
                return _add(dstem, _over_pixels(around, dz, d.dtype), at)

            return lane.repeat("num_stem", one, dstem, s)

        dstem = lane.when(
            "num_stem",
            lambda _, dstem: lax.fori_loop(0, level.num_chunks, of_stem, dstem),
            kernels["stem"], s,
        )  # fmt: skip
        kernels = kernels | {"stem": dstem}
    return work._replace(d=(*work.d[:s], d, *work.d[s + 1 :])), kernels, of_norms
