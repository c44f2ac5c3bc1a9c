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

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deepmaker_jax.lanes.size_class import BLOCK, SizeClass
from deepmaker_jax.lanes.wiring import Ranges, Wiring
from deepmaker_jax.models.activation import activate, slope
from deepmaker_jax.models.ops import BATCH_NORM_EPSILON

Params = dict[str, Any]
NUM_PIXELS = 1024  # of a chunk, about: 8 channels of it are 32 KiB


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
      a: activated maps.
      d: gradients of `a`.
      features: Float[group, channel, b], means of the last level's maps.
    """

    z: tuple[jax.Array, ...]
    a: tuple[jax.Array, ...]
    d: tuple[jax.Array, ...]
    features: jax.Array


def levels(size_class: SizeClass, batch_size: int, *, num_pixels: int = NUM_PIXELS):
    """Returns the class's resolutions for a batch; a chunk's images are whole chunks above it."""
    found, num_images, first_row = [], 1, 0
    for index, rows in enumerate(size_class.num_rows):
        h, w = size_class.side(index)
        wanted = max(num_images, num_pixels // (h * w))
        fits = [q for q in range(num_images, batch_size + 1, num_images) if batch_size % q == 0]
        num_images = max(q for q in fits if q <= wanted or q == num_images)
        num_groups = (rows + BLOCK) // size_class.group
        chunks = batch_size // num_images
        found.append(Level(index, h, w, chunks, num_images, first_row, num_groups))
        first_row += rows
    return tuple(found)


def make_work(size_class: SizeClass, batch_size: int, dtype: Any = jnp.float32) -> Work:
    """Returns cleared scratch memory."""
    all_levels = levels(size_class, batch_size)

    def maps():
        return tuple(
            jnp.zeros((v.num_chunks, v.num_groups, size_class.group, v.pixels), dtype)
            for v in all_levels
        )

    most = max(v.num_groups for v in all_levels)
    features = jnp.zeros((most, size_class.group, batch_size), dtype)
    return Work(maps(), maps(), maps(), features)


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


def stem_patches(images: jax.Array, level: Level) -> jax.Array:
    """Returns the stem's 3x3 neighbourhoods, strided by 2 where the level is the second.

    Args:
      images: Float[b, h, w, c].
      level: the stem's output.

    Returns:
      Float[chunk, 9 * c, pixel], rows in the order (dy, dx, c).
    """
    stride = level.index + 1
    b, h, w, c = images.shape
    pads = []
    for size in (h, w):  # "SAME"
        total = (-(-size // stride) - 1) * stride + 3 - size
        pads.append((total // 2, total - total // 2))
    x = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    x = x.reshape(level.num_chunks, level.num_images, *x.shape[1:]).transpose(0, 4, 2, 3, 1)
    x = lax.optimization_barrier(x)
    high, wide = (level.h - 1) * stride + 1, (level.w - 1) * stride + 1
    taps = [
        x[:, :, i : i + high : stride, j : j + wide : stride].reshape(level.num_chunks, c, -1)
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(taps, 1)


def _corners(x, level: Level):
    """Returns the four pixels of each 2x2 window: Float[..., h // 2, w // 2, image] each."""
    x = x.reshape(*x.shape[:-1], level.h, level.w, level.num_images)
    high, wide = level.h // 2 * 2, level.w // 2 * 2
    return [x[..., i:high:2, j:wide:2, :] for i in (0, 1) for j in (0, 1)]


def _pool(x, level: Level, below: Level, by_max):
    """Pools one group of all chunks, Float[chunk, c, pixel], into the next level's chunks."""
    corners = _corners(x, level)
    mean = sum(corners) * 0.25
    if level.index == 0:
        most = jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(*corners[2:]))
        mean = jnp.where(by_max, most, mean)
    c = x.shape[1]
    mean = mean.reshape(below.num_chunks, -1, c, below.h, below.w, level.num_images)
    return mean.transpose(0, 2, 3, 4, 1, 5).reshape(below.num_chunks, c, below.pixels)


def _unpool(g, x, level: Level, below: Level, by_max):
    """Returns the gradient of `_pool`'s input; of equal values the first one gets it."""
    c, q = x.shape[1], level.num_images
    g = g.reshape(below.num_chunks, c, below.h, below.w, -1, q)
    g = g.transpose(0, 4, 1, 2, 3, 5).reshape(level.num_chunks, c, below.h, below.w, q)
    parts = [g * 0.25] * 4
    if level.index == 0:
        corners = _corners(x, level)
        most = jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(*corners[2:]))
        free = jnp.ones(most.shape, bool)
        for i, corner in enumerate(corners):
            chosen = free & (corner == most)
            parts[i] = jnp.where(by_max, jnp.where(chosen, g, 0), parts[i])
            free &= ~chosen
    rows = [jnp.stack(parts[i : i + 2], 4) for i in (0, 2)]  # [..., h, w, 2, image]
    x = jnp.stack(rows, 3).reshape(level.num_chunks, c, below.h * 2, below.w * 2, q)
    rims = ((0, 0), (0, 0), (0, level.h % 2), (0, level.w % 2), (0, 0))
    return jnp.pad(x, rims).reshape(level.num_chunks, c, level.pixels)


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
        trips, own = _get(getattr(self.trips, name), *at), _get(getattr(self.wiring.counts, name), *at)
        return lax.fori_loop(0, trips, lambda i, carry: body(i, i < own, carry), carry)

    def when(self, name, body, carry, *at):
        """Runs `body(carry)` if any lane here repeats `name` at all."""
        trips = jnp.minimum(_get(getattr(self.trips, name), *at), 1)
        return lax.fori_loop(0, trips, lambda _, carry: body(carry), carry)

    def group(self, live, index):
        return jnp.where(live, index, self.of.trash)

    def by_group(self, name, level):
        """Returns a level's part of a per-channel array, Float[group, c]."""
        rows = self.of.num_rows[level.index]
        return self.params[name][level.first_row : level.first_row + rows].reshape(-1, self.of.group)

    def activate(self, x):
        return lax.switch(
            self.wiring.activation, [lambda x, n=n: activate(n, x) for n in self.of.activations], x
        )

    def slope(self, x):
        return lax.switch(
            self.wiring.activation, [lambda x, n=n: slope(n, x) for n in self.of.activations], x
        )

    def block(self, x, chunk, edge):
        """Returns where a 1x1 edge reads, and what: Float[BLOCK, pixel]."""
        size = BLOCK // self.of.group
        first = _get(self.wiring.mix_block, edge) * size
        rows = _slice(x, (chunk, first, 0, 0), (1, size, *x.shape[2:]))
        return first, rows.reshape(BLOCK, -1)


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


def _inputs(lane: _Lane, level: Level, above: Level | None, work: Work, stem) -> Work:
    """Clears a level and writes what enters it: the stem's convolution or the level above, pooled."""
    wiring, s = lane.wiring, level.index
    z, a = work.z[s], work.a[s]
    empty = jnp.zeros((level.num_chunks, lane.of.group, level.pixels), z.dtype)

    def clear(i, live, maps):
        g = lane.group(live, i)
        return tuple(_put_group(x, empty, g) for x in maps)

    z, a = lane.repeat("num_cleared", clear, (z, a), s)
    if above is not None:

        def pool(i, live, a):
            source = lane.group(live, wiring.first_pooled[above.index] + i)
            x = _get_group(work.a[above.index], source)
            x = _pool(x, above, level, wiring.by_max[above.index])
            return _put_group(a, x, lane.group(live, i))

        a = lane.repeat("num_pooled", pool, a, above.index)
    if stem is not None:

        def convolve(i, live, z):
            kernel, g = _get(lane.params["stem"], i), lane.group(live, i)
            return lax.fori_loop(
                0, level.num_chunks, lambda c, z: _put(z, kernel @ _get(stem, c), c, g), z
            )

        z = lane.repeat("num_stem", convolve, z, s)
    return work._replace(
        z=(*work.z[:s], z, *work.z[s + 1 :]), a=(*work.a[:s], a, *work.a[s + 1 :])
    )


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
        z, a, features, statistics = carry
        g = lane.group(live, i)
        normed = g >= wiring.num_inputs[s]

        def mix_chunk(chunk, z):
            def mix(j, live, sum):
                edge = jnp.where(live, _get(wiring.first_mix, s, i) + j, lane.of.num_mixes)
                product = _get(lane.params["mix"], edge) @ lane.block(a, chunk, edge)[1]
                return sum + jnp.where(live, product, 0)

            sum = lane.repeat("num_mix", mix, jnp.zeros(z.shape[2:], z.dtype), s, i)
            return _add(z, sum, chunk, g)

        z = lane.when(
            "num_mix", lambda z: lax.fori_loop(0, level.num_chunks, mix_chunk, z), z, s, i
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
            x = lane.activate(_get(z, chunk, g) * _column(gain) + _column(shift))
            x = jnp.where(normed, x, _get(a, chunk, g))
            a = _put(a, x, chunk, g)

            def convolve(z):
                around = patches(x, level, lane.of.kernel)

                def edge(j, live, z):
                    e = jnp.where(live, _get(wiring.first_conv_out, s, i) + j, lane.of.num_convs)
                    product = _get(lane.params["conv"], e) @ around
                    return _add(z, product, chunk, _get(wiring.conv_target, e))

                return lane.repeat("num_conv_out", edge, z, s, i)

            return lane.when("num_conv_out", convolve, z, s, i), a

        z, a = lax.fori_loop(0, level.num_chunks, push, (z, a))
        x = _get_group(a, g)
        x = x.reshape(level.num_chunks, -1, level.h * level.w, level.num_images).mean(2)
        x = x.swapaxes(0, 1).reshape(-1, level.num_chunks * level.num_images)
        at = lane.group(live & wiring.is_last[s], i)
        return z, a, _put(features, x, at), statistics

    statistics = (jnp.zeros((level.num_groups, lane.of.group), work.z[s].dtype),) * 2
    carry = work.z[s], work.a[s], work.features, statistics
    z, a, features, statistics = lane.repeat("num_groups", group, carry, s)
    work = Work(
        (*work.z[:s], z, *work.z[s + 1 :]), (*work.a[:s], a, *work.a[s + 1 :]), work.d, features
    )
    return work, statistics


def _stems(lane: _Lane, all_levels, images):
    """Returns the patches that the stem reads at the first two levels, zeros where it does not."""
    found = []
    for level in all_levels:
        if level.index > 1:
            found.append(None)
            continue
        like = jax.eval_shape(lambda x, level=level: stem_patches(x, level), images)
        found.append(
            lax.cond(
                lane.trips.num_stem[level.index] > 0,
                lambda x, level=level: stem_patches(x, level),
                lambda x, like=like: jnp.zeros(like.shape, like.dtype),
                images,
            )
        )
    return found


def _forward(lane: _Lane, work: Work, images, running):
    batch_size = len(images)
    all_levels = levels(lane.of, batch_size)
    stems = _stems(lane, all_levels, images)
    # A lane with a shorter list than its neighbour's leaves the trash in `features`: only its last
    # level's groups count, and the head's padding is zero, so they must be finite.
    work = work._replace(features=jnp.zeros_like(work.features))
    found, above = [], None
    for level, stem in zip(all_levels, stems, strict=True):
        work = _inputs(lane, level, above, work, stem)
        rows = None if running is None else tuple(r[level.index] for r in running)
        work, statistics = _forward_level(lane, level, work, rows)
        found.append(statistics)
        above = level
    return work, found, all_levels, stems


def _logits(head, head_bias, features):
    features = features[: len(head) // features.shape[1]]
    return features.reshape(len(head), -1).T @ head + head_bias[None, :]


def predict(
    size_class: SizeClass, params: Params, statistics: Params, wiring: Wiring, trips: Ranges,
    work: Work, images: jax.Array,
) -> tuple[jax.Array, Work]:  # fmt: skip
    """Returns (logits of scaled images, Float[b, classes], work), by the running statistics."""
    lane = _Lane(size_class, params, wiring, trips)
    of = lane._replace(params=statistics)
    running = tuple(
        [of.by_group(name, level) for level in levels(size_class, len(images))]
        for name in ("mean", "var")
    )
    work, *_ = _forward(lane, work, images, running)
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
    lane = _Lane(size_class, params, wiring, trips)
    work, statistics, all_levels, stems = _forward(lane, work, images, None)

    def of_head(head, head_bias, features):
        return loss(_logits(head, head_bias, features))

    value, gradients = jax.value_and_grad(of_head, argnums=(0, 1, 2))(
        params["head"], params["head_bias"], work.features
    )
    grads = {"head": gradients[0], "head_bias": gradients[1]}
    k, c = size_class.kernel, size_class.group
    turned = params["conv"].reshape(-1, c, k * k, c)[:, :, ::-1].transpose(0, 3, 2, 1)
    turned = lax.optimization_barrier(turned.reshape(params["conv"].shape))

    def with_trash(x):
        return jnp.zeros((len(x) + 1, *x.shape[1:]), x.dtype)

    kernels = {name: with_trash(params[name]) for name in ("conv", "mix", "stem")}
    vectors = []
    for level in reversed(all_levels):
        below = all_levels[level.index + 1] if level.index + 1 < len(all_levels) else None
        work = _outputs(lane, level, below, work, gradients[2])
        work, kernels, of_norms = _backward_level(
            lane, level, work, statistics[level.index], turned, kernels, stems[level.index]
        )
        vectors.append(of_norms)

    def flat(parts):
        rows = [p.reshape(-1)[:n] for p, n in zip(parts, size_class.num_rows, strict=True)]
        return jnp.concatenate(rows)

    by_name = zip(("scale", "bias"), zip(*reversed(vectors), strict=True), strict=True)
    grads |= {name: flat(parts) for name, parts in by_name}
    dconv = kernels["conv"][:-1].reshape(-1, c, k * k, c)[:, :, ::-1].transpose(0, 3, 2, 1)
    grads |= {"conv": dconv.reshape(params["conv"].shape)}
    grads |= {name: kernels[name][:-1] for name in ("mix", "stem")}
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

        def unpool(i, live, d):
            at = lane.group(live, wiring.first_pooled[s] + i)
            g = _get_group(work.d[below.index], lane.group(live, i))
            g = _unpool(g, _get_group(work.a[s], at), level, below, wiring.by_max[s])
            return _put_group(d, g, at)

        d = lane.repeat("num_pooled", unpool, d, s)
    return work._replace(d=(*work.d[:s], d, *work.d[s + 1 :]))


def _backward_level(lane: _Lane, level: Level, work: Work, statistics, turned, kernels, stem):
    """Goes through a level's groups in reverse; returns (work, kernels, (dscale, dbias)).

    Args:
      lane: the lane.
      level: the level.
      work: `d` holds the gradients that leave the level.
      statistics: (mean, variance), Float[group, c] each.
      turned: the weights of "conv" for the way back, [e, c in, k * k * c out].
      kernels: gradients of "conv" (turned too), "mix" and "stem" so far.
      stem: the stem's patches, or None.
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

        def through(d, chunk):
            """Returns (z, gradient of the norm's output) of a chunk."""
            x = _get(z, chunk, g)
            return x, _get(d, chunk, g) * lane.slope(x * _column(gain) + _column(shift))

        def sum_up(chunk, sums):
            x, dy = through(d, chunk)
            return sums[0] + dy.sum(1), sums[1] + (dy * (x - _column(mean))).sum(1)

        none = jnp.zeros(mean.shape, mean.dtype)
        dbias, dscale = lax.fori_loop(0, level.num_chunks, sum_up, (none, none))
        dscale = dscale * inverse
        of_norms = (_put(of_norms[0], dscale, g), _put(of_norms[1], dbias, g))
        slant = -gain * inverse * dscale / count
        offset = -gain * dbias / count - slant * mean

        def pull(chunk, carry):
            d, kernels = carry
            x, dy = through(d, chunk)
            dz = dy * _column(gain) + x * _column(slant) + _column(offset)
            dz = jnp.where(normed, dz, 0)

            def convolve(carry):
                around = patches(dz, level, lane.of.kernel)

                def edge(j, live, carry):
                    d, dconv = carry
                    at = jnp.where(live, _get(wiring.first_conv_in, s, i) + j, lane.of.num_convs)
                    e = _get(wiring.conv_in, at)
                    source = _get(wiring.conv_source, e)
                    d = _add(d, _get(turned, e) @ around, chunk, source)
                    product = lax.dot_general(
                        _get(a, chunk, source), around, (((1,), (1,)), ((), ()))
                    )
                    return d, _add(dconv, product, e)

                return lane.repeat("num_conv_in", edge, carry, s, i)

            d, dconv = lane.when("num_conv_in", convolve, (d, kernels["conv"]), s, i)

            def mix(j, live, carry):
                d, dmix = carry
                edge = jnp.where(live, _get(wiring.first_mix, s, i) + j, lane.of.num_mixes)
                first, block = lane.block(a, chunk, edge)
                product = lax.dot_general(dz, block, (((1,), (1,)), ((), ())))
                back = lax.dot_general(_get(lane.params["mix"], edge), dz, (((0,), (0,)), ((), ())))
                back = jnp.where(live, back, 0).reshape(1, -1, *dz.shape)
                at = (chunk, first, 0, 0)
                return _update(d, _slice(d, at, back.shape) + back, at), _add(dmix, product, edge)

            d, dmix = lane.repeat("num_mix", mix, (d, kernels["mix"]), s, i)
            dstem = kernels["stem"]
            if stem is not None:

                def of_stem(dstem):
                    at = jnp.where(live & (i < wiring.counts.num_stem[s]), i, lane.of.num_stem)
                    product = lax.dot_general(dz, _get(stem, chunk), (((1,), (1,)), ((), ())))
                    return _add(dstem, product, at)

                trips = jnp.where(i < lane.trips.num_stem[s], 1, 0)
                dstem = lax.fori_loop(0, trips, lambda _, x: of_stem(x), dstem)
            return d, {"conv": dconv, "mix": dmix, "stem": dstem}

        d, kernels = lax.fori_loop(0, level.num_chunks, pull, (d, kernels))
        return d, kernels, of_norms

    none = jnp.zeros((level.num_groups, lane.of.group), z.dtype)
    carry = work.d[s], kernels, (none, none)
    d, kernels, of_norms = lane.repeat("num_groups", group, carry, s)
    return work._replace(d=(*work.d[:s], d, *work.d[s + 1 :])), kernels, of_norms
