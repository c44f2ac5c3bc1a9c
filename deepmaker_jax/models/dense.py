"""A dense stage's forward and backward pass as one operation, in a form that is fast on a CPU.

The layers of a stage read the same maps. Here each map stays in the order in which Winograd's
tiles are read, and no concatenation is written. Forward there is one loop for each layer:
its maps are normalised and activated as they are loaded, and the sums of its own norm are
taken as it is made. Backward there is one loop for each map: it goes into Winograd's domain
once, and all that its readers ask of it, its gradient and those of their kernels, comes out.
Each loop takes a few images at a time, so that what passes between its steps stays in a core's
second-level cache. The gradient of the input is the adjoint of the forward pass, step by step.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deepmaker_jax.models.activation import activate, slope
from deepmaker_jax.models.ops import BATCH_NORM_EPSILON, NormSlope, norm_slope
from deepmaker_jax.models.stages import StageWiring
from deepmaker_jax.models.tiles import (
    doubled,
    from_tiles,
    halved,
    input_adjoint,
    input_tiles,
    output,
    output_adjoint,
    to_tiles,
)
from deepmaker_jax.models.winograd import kernel_adjoint, kernel_tiles, product, written


def _row(vector: jax.Array, x: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def _sum(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1]).sum(0)


class _Norm(NamedTuple):
    """A layer's norm by its batch, Float[c] each: y = activate(z * gain + shift)."""

    gain: jax.Array
    shift: jax.Array
    mean: jax.Array
    inverse: jax.Array

    def of(self, z: jax.Array) -> jax.Array:
        """Returns what is activated."""
        return z * _row(self.gain, z) + _row(self.shift, z)


def _activated(z: jax.Array, norm: _Norm | None, activation: str) -> jax.Array:
    return z if norm is None else activate(activation, norm.of(z))


def _measured(sums, count: int, scale, bias) -> tuple[_Norm, jax.Array]:
    """Returns the norm of a layer and its variance, from the sums over a batch."""
    mean = sums[0] / count
    variance = jnp.maximum(sums[1] / count - mean * mean, 0.0)
    inverse = lax.rsqrt(variance + BATCH_NORM_EPSILON)
    gain = inverse * scale
    return _Norm(gain, bias - mean * gain, mean, inverse), variance


def _forward(x, kernels, scales, biases, wiring):
    side, activation = wiring.side, wiring.activation
    maps, norms, statistics = [to_tiles(x)], list[_Norm | None]([None]), []
    count = x.size // x.shape[-1]
    reads = (*wiring.reads, wiring.leaves) if wiring.transition else wiring.reads
    for k, (kernel, scale, bias) in enumerate(zip(kernels, scales, biases, strict=True)):
        is_layer = k < len(wiring.reads)
        weights = kernel_tiles(kernel) if is_layer else kernel[0, 0]
        read = [norms[j] for j in reads[k]]

        def chunk(sums, zs, weights=weights, read=read, is_layer=is_layer):
            parts = [_activated(z, norm, activation) for z, norm in zip(zs, read, strict=True)]
            x = written(jnp.concatenate(parts, -1))
            if is_layer:
                y = output(written(product(input_tiles(x, side), weights)), side, x.shape)
            else:
                y = written(x.reshape(-1, x.shape[-1]) @ weights).reshape(*x.shape[:-1], -1)
            return (sums[0] + _sum(y), sums[1] + _sum(y * y)), y

        zero = jnp.zeros(kernel.shape[-1], x.dtype)
        sums, z = lax.scan(chunk, (zero, zero), tuple(maps[j] for j in reads[k]))
        norm, variance = _measured(sums, count, scale, bias)
        maps.append(z)
        norms.append(norm)
        statistics.append((norm.mean, variance))
    if wiring.transition:
        out = from_tiles(halved(_activated(maps[-1], norms[-1], activation)))
    else:
        whole = [
            _activated(maps[j], norms[j], activation).mean((1, 2, 4, 5)) for j in wiring.leaves
        ]
        out = jnp.concatenate(whole, -1).reshape(len(x), -1)
    return (out, tuple(statistics)), (maps, norms, kernels)


def _dense(x, kernels, scales, biases, wiring):
    """Returns what the pool behind a stage gives, and what its norms measured.

    Args:
      x: Float[b, h, w, c], h and w multiples of 4.
      kernels: for each layer Float[k, k, channels that it reads, o], then the transition's,
        Float[1, 1, channels that leave, o].
      scales: of the norms, Float[o] each.
      biases: of the norms, Float[o] each.
      wiring: how the layers are joined.

    Returns:
      (Float[b, h / 2, w / 2, o], or Float[b, channels that leave] of the last stage; for each
      kernel (mean, variance), Float[o] each); no gradient flows through the statistics, which
      only feed the running averages.
    """
    return _forward(x, kernels, scales, biases, wiring)[0]


def _in_front(norm: _Norm, z, da, activation: str):
    """Returns a gradient in front of norm and activation, but for the norm's own part, and sums."""
    dy = da * slope(activation, norm.of(z))
    return dy, (_sum(dy), _sum(dy * (z - _row(norm.mean, z))))


def _through(of: NormSlope, dy, z):
    gain, slant, level = (_row(v, z) for v in (of.gain, of.slant, of.level))
    return dy * gain + z * slant + level


class _Saved(NamedTuple):
    """What the backward pass goes by.

    Attributes:
      wiring: how the layers are joined.
      maps: in the order of tiles, in front of their norms: the input, then of each convolution.
      norms: of each map; None for the input.
      kernels: of the convolutions.
    """

    wiring: StageWiring
    maps: list[jax.Array]
    norms: list[_Norm | None]
    kernels: Sequence[jax.Array]

    @property
    def last(self) -> int:
        """The last layer's map."""
        return len(self.wiring.reads)

    @property
    def widths(self) -> list[int]:
        """Channels of each map."""
        return [z.shape[-1] for z in self.maps]

    @property
    def count(self) -> int:
        """Pixels of a map, all images together."""
        return self.maps[0].size // self.maps[0].shape[-1]

    def channels(self, i: int) -> slice:
        """Returns where a map that leaves stands among all that leave."""
        before = self.wiring.leaves[: self.wiring.leaves.index(i)]
        first = sum(self.widths[j] for j in before)
        return slice(first, first + self.widths[i])

    def readers(self, i: int) -> list[int]:
        """Returns the layers that read map i; the one behind it is the first."""
        return [j for j in range(i + 1, self.last + 1) if i in self.wiring.reads[j - 1]]

    def norm(self, i: int) -> _Norm:
        """Returns the norm of a map that is not the input."""
        found = self.norms[i]
        assert found is not None
        return found

    def zeros(self, i: int) -> tuple[jax.Array, jax.Array]:
        """Returns where the sums of the norm of map i begin."""
        zero = jnp.zeros(self.widths[i], self.maps[0].dtype)
        return zero, zero

    def slope(self, i: int, sums) -> NormSlope:
        """Returns the gradient through the norm of map i."""
        norm = self.norm(i)
        return norm_slope(norm.gain, norm.inverse, norm.mean, sums, self.count)


def _entering(saved: _Saved, gradient: jax.Array) -> tuple[jax.Array, dict[int, NormSlope]]:
    """Returns the gradient behind the pool as loops read it, and the transition's slope, if any."""
    images = saved.maps[0].shape[3]  # of a loop's step
    if not saved.wiring.transition:
        num_pixels = saved.count // len(gradient)
        return gradient.reshape(len(saved.maps[0]), images, -1) / num_pixels, {}
    b, rows, columns, _ = gradient.shape
    g = gradient.reshape(b // images, images, rows // 2, 2, columns // 2, 2, -1)
    entering = g.transpose(0, 3, 5, 1, 2, 4, 6)  # [chunk, 2, 2, image, row, column, c]
    end, activation = saved.last + 1, saved.wiring.activation
    norm = saved.norm(end)

    def chunk(sums, parts):
        more = _in_front(norm, parts[0], doubled(parts[1]), activation)[1]
        return tuple(map(jnp.add, sums, more)), None

    sums, _ = lax.scan(chunk, saved.zeros(end), (saved.maps[end], entering))
    return entering, {end: saved.slope(end, sums)}


def _from_readers(side: int, slope_behind: NormSlope, tiles, x, parts, kernels):
    """Returns what the layers give that read a map, for a few images.

    Args:
      side: of the kernels.
      slope_behind: through the norm of the layer behind the map.
      tiles: those layers' kernels, turned, in Winograd's domain.
      x: the map, activated.
      parts: `dy` and `z_next`, in front of that norm; `dz_others`, of the other readers.
      kernels: the sum so far of their kernels' gradient.

    Returns:
      (kernels, dz of the layer behind the map, gradient of x).
    """
    dz = written(_through(slope_behind, parts["dy"], parts["z_next"]))
    g = output_adjoint(written(jnp.concatenate([dz, *parts["dz_others"]], -1)), side)
    x_tiles = written(input_tiles(x, side).transpose(0, 2, 1))
    kernels += product(x_tiles, g)
    return kernels, dz, input_adjoint(written(product(g, tiles)), side, x.shape)


def _from_transition(saved: _Saved, slopes, kernel, is_last: bool, x, parts, point):
    """Returns what the 1x1 convolution gives to a map that leaves, for a few images.

    Args:
      saved: the forward pass.
      slopes: through the norms that are known.
      kernel: the part of it that reads the map.
      is_last: it is the last map, which turns what enters into the gradient of the output.
      x: it, activated.
      parts: `end`, what enters or that gradient; `z_end`, the output, for the last.
      point: the sum so far of the kernel's gradient.

    Returns:
      (point, gradient of the output, gradient of x).
    """
    end = parts["end"]
    if is_last:
        z = parts["z_end"]
        behind, _ = _in_front(saved.norm(saved.last + 1), z, doubled(end), saved.wiring.activation)
        end = written(_through(slopes[saved.last + 1], behind, z))
    g = end.reshape(-1, end.shape[-1])
    point += x.reshape(-1, x.shape[-1]).T @ g
    return point, end, written(g @ kernel.T).reshape(x.shape)


def _through_map(saved: _Saved, slopes, i: int, entering, dy, dz):
    """Goes backward through map i, a few images at a time.

    Args:
      saved: the forward pass.
      slopes: through the norms behind the map.
      i: the map.
      entering: what enters from behind the stage.
      dy: the gradient of map i + 1 in front of its activation.
      dz: of layers behind, in front of their norms.

    Returns:
      (sums, made): `kernels` of the layers that read the map, `point` of the transition, `sums` of
      its norm; `dy` of the map in front of its activation, `dz` of layer i + 1, `end` of the
      transition's output. Each only where there is such a thing.
    """
    wiring, activation = saved.wiring, saved.wiring.activation
    readers, leaves, dtype = saved.readers(i), i in wiring.leaves, saved.maps[0].dtype
    begin, parts, tiles, kernel = {}, {"z": saved.maps[i]}, None, None
    if readers:
        slices = [
            _slice(saved.kernels[j - 1], wiring.reads[j - 1], i, saved.widths) for j in readers
        ]
        turned = [w.swapaxes(2, 3) for w in slices]
        tiles = kernel_tiles(written(jnp.concatenate(turned, 2)))
        width = sum(saved.widths[j] for j in readers)
        begin["kernels"] = jnp.zeros((len(tiles), saved.widths[i], width), dtype)
        others = [dz[j] for j in readers[1:]]
        parts |= {"dy": dy, "z_next": saved.maps[i + 1], "dz_others": others}
    if leaves:
        parts["end"] = entering
    if leaves and wiring.transition:
        kernel = saved.kernels[-1][0, 0, saved.channels(i)]
        begin["point"] = jnp.zeros(kernel.shape, dtype)
        if i == saved.last:
            parts["z_end"] = saved.maps[-1]
    if i:
        begin["sums"] = saved.zeros(i)

    def chunk(carry, parts):
        carry, made, das = dict(carry), {}, []
        z = parts["z"]
        x = written(_activated(z, saved.norms[i], activation))
        if readers:
            carry["kernels"], made["dz"], da = _from_readers(
                wiring.side, slopes[i + 1], tiles, x, parts, carry["kernels"]
            )
            das.append(da)
        if leaves and wiring.transition:
            carry["point"], end, da = _from_transition(
                saved, slopes, kernel, i == saved.last, x, parts, carry["point"]
            )
            das.append(da)
            if i == saved.last:
                made["end"] = end
        elif leaves:
            mean = parts["end"][:, saved.channels(i)]
            das.append(jnp.broadcast_to(mean[None, None, :, None, None], x.shape))
        da = functools.reduce(jnp.add, das)
        if i:
            da, more = _in_front(saved.norm(i), z, da, activation)
            carry["sums"] = tuple(map(jnp.add, carry["sums"], more))
        made["dy"] = written(da)
        return carry, made

    return lax.scan(chunk, begin, parts)


def _backward(wiring, saved, gradients):
    saved = _Saved(wiring, *saved)
    last, widths = saved.last, saved.widths
    entering, slopes = _entering(saved, gradients[0])
    found: dict[tuple[int, int], jax.Array] = {}  # kernels' gradients, by (layer, map)
    dz: dict[int, jax.Array] = {}  # of layers, in front of their norms
    dy = saved.maps[0]  # the last map has none above it, and reads it not
    for i in range(last, -1, -1):
        sums, made = _through_map(saved, slopes, i, entering, dy, dz)
        dy = made["dy"]
        if readers := saved.readers(i):
            dz[i + 1] = made["dz"]
            parts = kernel_adjoint(sums["kernels"], wiring.side)
            parts = jnp.split(parts, np.cumsum([widths[j] for j in readers])[:-1], axis=-1)
            found |= {(j, i): part for j, part in zip(readers, parts, strict=True)}
        if "point" in sums:
            found[last + 1, i] = sums["point"][None, None]
            entering = made.get("end", entering)
        if i:
            slopes[i] = saved.slope(i, sums["sums"])
    reads = (*wiring.reads, wiring.leaves) if wiring.transition else wiring.reads
    dkernels = [jnp.concatenate([found[j, i] for i in read], 2) for j, read in enumerate(reads, 1)]
    each = [slopes[j] for j in range(1, len(reads) + 1)]
    dscales, dbiases = tuple(s.dscale for s in each), tuple(s.dbias for s in each)
    return from_tiles(dy), tuple(dkernels), dscales, dbiases


def _slice(kernel: jax.Array, reads: tuple[int, ...], i: int, widths: Sequence[int]) -> jax.Array:
    """Returns the part of a kernel that reads map i."""
    first = sum(widths[j] for j in reads[: reads.index(i)])
    return kernel[:, :, first : first + widths[i]]


dense = jax.custom_vjp(_dense, nondiff_argnums=(4,))
dense.defvjp(_forward, _backward)
