"""The network of any wiring: one forward pass for a whole size class.

The patches of a source group are built once for all its edges. Loops over groups and edges have
the lane's own trip counts, so what a network lacks costs memory and no time; padding within groups
of 8 and blocks of 32 channels does. The arithmetic is that of
`models.Network`: convolution, batch norm by the batch's own statistics (in training) or the
running ones, activation.
"""

import jax
import jax.numpy as jnp
from jax import lax

from deepmaker_jax.lanes.level import Level, in_chunks, joined, levels, patches, stem_patches
from deepmaker_jax.lanes.pooling import pool_windows
from deepmaker_jax.lanes.running import LaneRun, Params, affine, column, moments, multiply
from deepmaker_jax.lanes.scratch import Work, add_to, get, get_group, put, put_group, window
from deepmaker_jax.lanes.size_class import BLOCK, SizeClass
from deepmaker_jax.lanes.wiring import Counts, Wiring
from deepmaker_jax.models.activation import activate


def predict(
    size_class: SizeClass, params: Params, statistics: Params, wiring: Wiring, trips: Counts,
    work: Work, images: jax.Array,
) -> tuple[jax.Array, Work]:  # fmt: skip
    """Returns (logits of scaled images, Float[b, classes], work), by the running statistics."""
    lane, all_levels = LaneRun(size_class, params, wiring, trips), levels(size_class, len(images))
    of = lane._replace(params=statistics)
    running = tuple([of.by_group(name, level) for level in all_levels] for name in ("mean", "var"))
    chunks = stem_images(images, all_levels, work.a[0].dtype)
    work, _ = forward(lane, all_levels, work, chunks, running)
    return head_logits(params["head"], params["head_bias"], work.features), work


def forward(lane: LaneRun, all_levels, work: Work, images, running):
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


def _inputs(lane: LaneRun, level: Level, above: Level | None, work: Work, images) -> Work:
    """Writes what enters a level: the stem's convolution, or the level above, pooled."""
    wiring, s = lane.wiring, level.index
    z, a = work.z[s], work.a[s]
    empty = jnp.zeros((level.num_chunks, lane.of.group, level.pixels), z.dtype)

    def clear(i, live, z):
        return put_group(z, empty, lane.group(live, i, level))

    z = lane.repeat("num_groups", clear, z, s)
    if above is not None:
        pieces, shape = joined(above, level)

        def pool(i, live, a):
            source = lane.group(live, wiring.first_pooled[above.index] + i, above)
            target = lane.group(live, i, level)

            def chunk(c, a):
                x = work.a[above.index]
                x = window(x, (c * pieces, source, 0, 0), (pieces, 1, *x.shape[2:]))[:, 0]
                x = pool_windows(x.astype(z.dtype), above, wiring.by_max[above.index])
                x = x.reshape(shape).astype(a.dtype)
                return put(a, x.transpose(1, 2, 3, 0, 4).reshape(-1, level.pixels), c, target)

            return lax.fori_loop(0, level.num_chunks, chunk, a)

        a = lane.repeat("num_pooled", pool, a, above.index)
    if images is not None:

        def convolve(c, z):
            around = stem_patches(get(images, c), level)

            def one(i, live, z):
                product = multiply(get(lane.params["stem"], i), around, z.dtype)
                return put(z, product, c, lane.group(live, i, level))

            return lane.repeat("num_stem", one, z, s)

        z = lane.when(
            "num_stem", lambda _, z: lax.fori_loop(0, level.num_chunks, convolve, z), z, s
        )
    return work._replace(z=(*work.z[:s], z, *work.z[s + 1 :]), a=(*work.a[:s], a, *work.a[s + 1 :]))


def _forward_level(lane: LaneRun, level: Level, work: Work, running):
    """Computes a level's maps, group by group; returns (work, its groups' mean and variance).

    Args:
      lane: the lane.
      level: the level.
      work: its inputs stand in `a` or `z`.
      running: (mean, variance) to normalise by, Float[group, c] each, or None
        for the batch's own.
    """
    s = level.index
    scale, bias = lane.by_group("scale", level), lane.by_group("bias", level)

    def group(i, live, carry):
        z, a, statistics = carry
        g = lane.group(live, i, level)
        normed = g >= lane.wiring.num_inputs[s]
        z = _push_pointwise(lane, level, a, z, i, g)
        if running is None:
            mean, variance = moments(get_group(z, g), level)
            statistics = tuple(
                put(x, v, g) for x, v in zip(statistics, (mean, variance), strict=True)
            )
        else:
            mean, variance = (get(x, g) for x in running)
        gain, shift = affine(get(scale, g), get(bias, g), mean, variance)

        def push(chunk, carry):
            z, a = carry
            x = lane.by_activation(
                normed,
                lambda z, a, gain, shift: a.astype(z.dtype),
                lambda name, z, a, gain, shift: activate(name, z * column(gain) + column(shift)),
                get(z, chunk, g), get(a, chunk, g), gain, shift,
            )  # fmt: skip
            x = x.astype(a.dtype)
            a = put(a, x, chunk, g)
            return _push_conv(lane, level, x, z, chunk, i), a

        z, a = lax.fori_loop(0, level.num_chunks, push, (z, a))
        return z, a, statistics

    statistics = (jnp.zeros((level.num_groups, lane.of.group), work.z[s].dtype),) * 2
    z, a, statistics = lane.repeat("num_groups", group, (work.z[s], work.a[s], statistics), s)
    work = Work(
        (*work.z[:s], z, *work.z[s + 1 :]), (*work.a[:s], a, *work.a[s + 1 :]), work.d,
        _read(lane, level, a, work.features),
    )  # fmt: skip
    return work, statistics


def _push_pointwise(lane: LaneRun, level: Level, a, z, i, g):
    """Adds what the 1x1 edges bring to the block from group i on, at g."""
    wiring, s = lane.wiring, level.index

    def chunk(chunk, z):
        def edge(j, live, sum):
            e = lane.edge(live, get(wiring.first_pointwise, s, i) + j)
            source = lane.group(live, get(wiring.pointwise_source, e), level)
            block = lane.block(a, chunk, source)
            product = multiply(get(lane.params["pointwise"], e), block, z.dtype)
            return sum + jnp.where(live, product, 0)

        none = jnp.zeros((BLOCK, level.pixels), z.dtype)
        return lane.add_block(z, lane.repeat("num_pointwise", edge, none, s, i), chunk, g)

    def chunks(_, z):
        return lax.fori_loop(0, level.num_chunks, chunk, z)

    return lane.when("num_pointwise", chunks, z, s, i)


def _push_conv(lane: LaneRun, level: Level, x, z, chunk, i):
    """Adds what the k x k edges of group i, whose chunk is x, bring to others."""
    wiring, s = lane.wiring, level.index

    def convolve(zero, z):
        around = patches(jnp.where(zero == 0, x, 0), level, lane.of.kernel)

        def edge(j, live, z):
            e = lane.edge(live, get(wiring.first_conv_out, s, i) + j)
            product = multiply(get(lane.params["conv"], e), around, z.dtype)
            target = lane.group(live, get(wiring.conv_target, e), level)
            return add_to(z, product, chunk, target)

        return lane.repeat("num_conv_out", edge, z, s, i)

    return lane.when("num_conv_out", convolve, z, s, i)


def _read(lane: LaneRun, level: Level, a, features):
    """Writes the means of the groups that the head reads."""
    unread = len(features) - BLOCK // lane.of.group  # behind what the head reads of any level

    def group(i, live, features):
        x = get_group(a, lane.group(live, i, level))
        x = x.reshape(level.num_chunks, -1, level.h * level.w, level.num_images)
        x = x.mean(2, dtype=features.dtype)
        x = x.swapaxes(0, 1).reshape(-1, level.num_chunks * level.num_images)
        return put(features, x, jnp.where(live, i, unread))

    return lane.repeat("num_read", group, features, level.index)


def stem_images(images, all_levels, dtype):
    """Returns the images as the chunks of the two levels that a stem may write, None below."""
    images = images.astype(dtype)
    return [in_chunks(images, level) if level.index < 2 else None for level in all_levels]


def head_logits(head, head_bias, features):
    features = features[: len(head) // features.shape[1]]
    return features.reshape(len(head), -1).T @ head + head_bias[None, :]
