"""The gradient of the network of any wiring: `forward`'s loops in reverse."""

import jax
import jax.numpy as jnp
from jax import lax

from deepmaker_jax.lanes.forward import forward, head_logits, stem_images
from deepmaker_jax.lanes.level import Level, joined, levels, patches, stem_patches
from deepmaker_jax.lanes.pooling import unpool_windows
from deepmaker_jax.lanes.running import LaneRun, Params, affine, column, multiply, over_pixels
from deepmaker_jax.lanes.scratch import (
    Work,
    add_to,
    get,
    put,
    put_group,
    set_window,
    window,
)
from deepmaker_jax.lanes.size_class import SizeClass
from deepmaker_jax.lanes.wiring import Counts, Wiring
from deepmaker_jax.models.activation import slope
from deepmaker_jax.models.ops import BATCH_NORM_EPSILON, norm_slope


def value_and_grad(
    size_class: SizeClass, params: Params, wiring: Wiring, trips: Counts, work: Work,
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
    lane, all_levels = LaneRun(size_class, params, wiring, trips), levels(size_class, len(images))
    chunks = stem_images(images, all_levels, work.a[0].dtype)
    work, statistics = forward(lane, all_levels, work, chunks, None)

    def of_head(head, head_bias, features):
        return loss(head_logits(head, head_bias, features))

    value, gradients = jax.value_and_grad(of_head, argnums=(0, 1, 2))(
        params["head"], params["head_bias"], work.features
    )
    grads = {"head": gradients[0], "head_bias": gradients[1]}
    k, c = size_class.kernel, size_class.group
    turned = params["conv"].reshape(-1, c, k * k, c)[:, :, ::-1].transpose(0, 3, 2, 1)
    turned = {
        "conv": turned.reshape(params["conv"].shape),
        "pointwise": params["pointwise"].swapaxes(1, 2),
    }

    def with_trash(x):
        return jnp.zeros((len(x) + 1, *x.shape[:0:-1]), x.dtype)  # each kernel transposed

    kernels = {name: with_trash(params[name]) for name in ("conv", "pointwise", "stem")}
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
    grads |= {name: kernels[name][:-1].swapaxes(1, 2) for name in ("pointwise", "stem")}
    found = zip(("mean", "var"), zip(*statistics, strict=True), strict=True)
    return value, grads, {name: flat(parts) for name, parts in found}, work


def _outputs(lane: LaneRun, level: Level, below: Level | None, work: Work, dfeatures) -> Work:
    """Writes the gradients that leave a level's maps with: the head's, or the level's below."""
    wiring, s = lane.wiring, level.index
    shape = (level.num_chunks, lane.of.group, level.pixels)

    def begin(i, live, d):
        share = get(dfeatures, i) * jnp.where(wiring.is_last[s], 1.0 / (level.h * level.w), 0.0)
        share = share.reshape(-1, level.num_chunks, 1, level.num_images).swapaxes(0, 1)
        g = jnp.broadcast_to(share, (*shape[:2], level.h * level.w, level.num_images))
        return put_group(d, g.reshape(shape).astype(d.dtype), lane.group(live, i, level))

    d = lane.repeat("num_groups", begin, work.d[s], s)
    if below is not None:
        pieces, shape = joined(level, below)

        def unpool(i, live, d):
            source = lane.group(live, i, below)
            target = lane.group(live, wiring.first_pooled[s] + i, level)

            def chunk(c, d):
                g = get(work.d[below.index], c, source)
                g = g.reshape(-1, below.h, below.w, pieces, level.num_images)
                g = g.transpose(3, 0, 1, 2, 4).reshape(
                    pieces, -1, below.h, below.w * level.num_images
                )
                at = (c * pieces, target, 0, 0)
                x = window(work.a[s], at, (pieces, 1, *d.shape[2:]))[:, 0]
                return set_window(d, unpool_windows(g, x, level, wiring.by_max[s])[:, None], at)

            return lax.fori_loop(0, below.num_chunks, chunk, d)

        d = lane.repeat("num_pooled", unpool, d, s)
    return work._replace(d=(*work.d[:s], d, *work.d[s + 1 :]))


def _backward_level(lane: LaneRun, level: Level, work: Work, statistics, turned, kernels, images):
    """Goes through a level's groups in reverse; returns (work, kernels, (dscale, dbias)).

    Args:
      lane: the lane.
      level: the level.
      work: `d` holds the gradients that leave the level.
      statistics: (mean, variance), Float[group, c] each.
      turned: the weights of "conv" and "pointwise" for the way back: [e, c in, k * k * c out] and
        [e, c in, c out].
      kernels: gradients of "conv" (turned too), "pointwise" and "stem" so far, transposed.
      images: the level's chunks of images, or None.
    """
    wiring, s = lane.wiring, level.index
    scale, bias = lane.by_group("scale", level), lane.by_group("bias", level)
    z, a = work.z[s], work.a[s]
    count = level.num_chunks * level.pixels

    def group(turn, live, carry):
        d, kernels, of_norms = carry
        i = get(lane.trips.num_groups, s) - 1 - turn  # lanes with fewer groups begin later
        live = i < get(wiring.counts.num_groups, s)
        g = lane.group(live, i, level)
        normed = g >= wiring.num_inputs[s]
        mean, variance = (get(x, g) for x in statistics)
        gain, shift = affine(get(scale, g), get(bias, g), mean, variance)

        def sum_up(chunk, sums):
            def behind(name, z, d):
                dy = d * slope(name, z * column(gain) + column(shift))
                return dy.sum(1), (dy * (z - column(mean))).sum(1)

            operands = get(z, chunk, g), get(d, chunk, g)
            found = lane.by_activation(normed, lambda z, d: (none, none), behind, *operands)
            return sums[0] + found[0], sums[1] + found[1]

        none = jnp.zeros(mean.shape, mean.dtype)
        sums = lax.fori_loop(0, level.num_chunks, sum_up, (none, none))
        inverse = lax.rsqrt(variance + BATCH_NORM_EPSILON)
        norm = norm_slope(gain, inverse, mean, sums, count)
        of_norms = (put(of_norms[0], norm.dscale, g), put(of_norms[1], norm.dbias, g))

        def pull(chunk, carry):
            d, dconv = carry

            def behind(name, z, d):
                dy = d * slope(name, z * column(gain) + column(shift))
                return dy * column(gain) + z * column(norm.slant) + column(norm.level)

            operands = get(z, chunk, g), get(d, chunk, g)
            dz = lane.by_activation(normed, lambda z, d: d, behind, *operands)
            d, dconv = _pull_conv(lane, level, turned["conv"], dz, a, (d, dconv), chunk, i)
            # The stem's and the 1x1 edges' gradients are taken later, from what stands here.
            return put(d, dz, chunk, g), dconv

        d, dconv = lax.fori_loop(0, level.num_chunks, pull, (d, kernels["conv"]))
        carry = d, kernels["pointwise"]
        d, dpointwise = _pull_pointwise(lane, level, turned["pointwise"], a, carry, i, g)
        return d, kernels | {"conv": dconv, "pointwise": dpointwise}, of_norms

    none = jnp.zeros((level.num_groups, lane.of.group), z.dtype)
    carry = work.d[s], kernels, (none, none)
    d, kernels, of_norms = lane.repeat("num_groups", group, carry, s)
    if images is not None:
        kernels = kernels | {"stem": _stem_gradient(lane, level, d, kernels["stem"], images)}
    return work._replace(d=(*work.d[:s], d, *work.d[s + 1 :])), kernels, of_norms


def _pull_conv(lane: LaneRun, level: Level, turned, dz, a, carry, chunk, i):
    """Takes a chunk's gradient of group i through its k x k edges; `carry` is (d, dconv)."""
    wiring, s = lane.wiring, level.index

    def convolve(zero, carry):
        around = patches(jnp.where(zero == 0, dz, 0).astype(a.dtype), level, lane.of.kernel)

        def edge(j, live, carry):
            d, dconv = carry
            e = get(wiring.conv_in, lane.edge(live, get(wiring.first_conv_in, s, i) + j))
            source = lane.group(live, get(wiring.conv_source, e), level)
            d = add_to(d, multiply(get(turned, e), around, d.dtype), chunk, source)
            product = over_pixels(around, get(a, chunk, source), d.dtype)
            return d, add_to(dconv, product, jnp.where(live, e, lane.of.num_convs))

        return lane.repeat("num_conv_in", edge, carry, s, i)

    return lane.when("num_conv_in", convolve, carry, s, i)


def _pull_pointwise(lane: LaneRun, level: Level, turned, a, carry, i, g):
    """Takes the gradient of the block from group i on, at g, through its 1x1 edges."""
    wiring, s = lane.wiring, level.index

    def chunk(chunk, carry):
        dz = lane.block(carry[0], chunk, g).astype(a.dtype)

        def edge(j, live, carry):
            d, dpointwise = carry
            e = lane.edge(live, get(wiring.first_pointwise, s, i) + j)
            source = lane.group(live, get(wiring.pointwise_source, e), level)
            back = jnp.where(live, multiply(get(turned, e), dz, d.dtype), 0)
            product = over_pixels(lane.block(a, chunk, source), dz, d.dtype)
            at = jnp.where(live, e, lane.of.num_pointwise)
            return lane.add_block(d, back, chunk, source), add_to(dpointwise, product, at)

        return lane.repeat("num_pointwise", edge, carry, s, i)

    def chunks(_, carry):
        return lax.fori_loop(0, level.num_chunks, chunk, carry)

    return lane.when("num_pointwise", chunks, carry, s, i)


def _stem_gradient(lane: LaneRun, level: Level, d, dstem, images):
    """Adds the gradient of the stem's kernels, from the gradients of its groups."""
    s = level.index

    def chunk(c, dstem):
        around = stem_patches(get(images, c), level)

        def group(i, live, dstem):
            at = jnp.where(live, i, lane.of.num_stem)
            dz = get(d, c, lane.group(live, i, level)).astype(around.dtype)
            return add_to(dstem, over_pixels(around, dz, d.dtype), at)

        return lane.repeat("num_stem", group, dstem, s)

    def chunks(_, dstem):
        return lax.fori_loop(0, level.num_chunks, chunk, dstem)

    return lane.when("num_stem", chunks, dstem, s)
