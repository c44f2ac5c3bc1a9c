"""Operations of a network whose gradients XLA makes slow on a CPU, in an equal, faster form.

The functions are the textbook ones; only the order of the arithmetic differs.
XLA's own gradients of a convolution's weights, of a max pool and of batch norm
took 1.4 times as long a step (benchmarks/results/plain_step_xla_gradients.json,
and the plain_step.json of its commit, c17eb17).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deepmaker_jax.models import winograd
from deepmaker_jax.models.activation import activate, slope

PATCH_BYTES = 1 << 20  # of patches at a time: they stay in a core's second-level cache
BATCH_NORM_EPSILON = 1e-5
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution of Float[b, h, w, c] and Float[k, k, c, o], zero-padded "SAME"."""
    return _by_xla(x, kernel, stride)


def _by_xla(x, kernel, stride):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS
    )


def _by_ynnpack(x, kernel, stride):
    """Returns `conv` in shapes that XLA hands to YNNPACK; what it keeps is up to 20 times slower.

    XLA 0.10 keeps a window larger than the image, 16 channels or fewer on both
    sides, and 3 input channels with fewer than 48 outputs.
    """
    side, _, c, o = kernel.shape
    if side > min(x.shape[1:3]):
        pads = [_same_padding(size, side, stride) for size in x.shape[1:3]]
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "VALID", dimension_numbers=_DIMENSIONS
        )
    if side > 1 and c == 3 and o < 48:
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0),) * 3 + ((0, 1),)))
        kernel = jnp.pad(kernel, ((0, 0),) * 2 + ((0, 1), (0, 0)))
    if side > 1 and c <= 16 and o <= 16:
        return _by_xla(x, jnp.pad(kernel, ((0, 0),) * 3 + ((0, 20 - o),)), stride)[..., :o]
    return _by_xla(x, kernel, stride)


def _by_product(x, kernel):
    """Returns a 1x1 `conv` as one matrix product, which XLA does up to twice as fast."""
    product = lax.optimization_barrier(x.reshape(-1, x.shape[-1]) @ kernel[0, 0])
    return product.reshape(*x.shape[:3], -1)


def _convolve(x, kernel, stride):
    if kernel.shape[0] == 1 and stride == 1:
        on_cpu = _by_product
    elif winograd.pays(x.shape, kernel.shape, stride):
        on_cpu = winograd.convolve
    else:
        on_cpu = functools.partial(_by_ynnpack, stride=stride)
    elsewhere = functools.partial(_by_xla, stride=stride)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _conv_forward(x, kernel, stride):
    # Written once and read by both passes: XLA would build a concatenation anew for each.
    x = lax.optimization_barrier(x)
    return _convolve(x, kernel, stride), (x, kernel)


def _conv_backward(stride, saved, g):
    x, kernel = saved
    if stride == 1:
        dx = _convolve(g, kernel[::-1, ::-1].swapaxes(2, 3), 1)
    else:
        (dx,) = jax.linear_transpose(lambda x: _by_xla(x, kernel, stride), x)(g)

    def by_xla(x, g):
        return jax.linear_transpose(lambda kernel: _by_xla(x, kernel, stride), kernel)(g)[0]

    if winograd.pays(x.shape, kernel.shape, stride):
        on_cpu = functools.partial(winograd.kernel_gradient, side=kernel.shape[0])
    else:
        on_cpu = functools.partial(kernel_gradient, side=kernel.shape[0], stride=stride)
    return dx, lax.platform_dependent(x, g, cpu=on_cpu, default=by_xla)


conv.defvjp(_conv_forward, _conv_backward)


def kernel_gradient(x: jax.Array, g: jax.Array, *, side: int, stride: int) -> jax.Array:
    """Returns the gradient of `conv`'s kernel as matrix products, a few images at a time.

    The patches are taken of whichever has fewer channels, x or g: for a dense
    layer that is g. XLA's own form is a convolution whose window is the image.

    Args:
      x: Float[b, h, w, c], what was convolved.
      g: Float[b, h / stride, w / stride, o], the output's gradient.
      side: k, of the kernel.
      stride: of the convolution.

    Returns:
      Float[k, k, c, o].
    """
    b, h, w, c = x.shape
    o = g.shape[-1]
    of_output = stride == 1 and o < c
    narrow, wide = (g, x) if of_output else (x, g)
    rows, columns = g.shape[1:3]
    before, after = _same_padding(h, side, stride), _same_padding(w, side, stride)
    if of_output:  # the mirror image of the padding
        before, after = before[::-1], after[::-1]

    def product(narrow, wide):
        planes = lax.optimization_barrier(
            jnp.pad(narrow.transpose(3, 0, 1, 2), ((0, 0), (0, 0), before, after))
        )
        height, width = (rows - 1) * stride + 1, (columns - 1) * stride + 1
        patches = jnp.stack([
            planes[:, :, i : i + height : stride, j : j + width : stride]
            for i in range(side)
            for j in range(side)
        ])  # fmt: skip
        patches = lax.optimization_barrier(patches.reshape(side * side * len(planes), -1))
        return patches @ wide.reshape(-1, wide.shape[-1])

    size = 4 * side * side * narrow.shape[-1] * rows * columns
    images = next(q for q in range(max(1, min(b, PATCH_BYTES // size)), 0, -1) if b % q == 0)
    if images == b:
        total = product(narrow, wide)
    else:
        chunks = [a.reshape(b // images, images, *a.shape[1:]) for a in (narrow, wide)]
        zero = jnp.zeros((side * side * narrow.shape[-1], wide.shape[-1]), x.dtype)
        total, _ = lax.scan(lambda sum, chunk: (sum + product(*chunk), None), zero, tuple(chunks))
    total = total.reshape(side, side, narrow.shape[-1], wide.shape[-1])
    return total[::-1, ::-1].swapaxes(2, 3) if of_output else total


def _same_padding(size: int, side: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + side - size, 0)
    return total // 2, total - total // 2


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Returns the largest of each 2x2 window of Float[b, h, w, c]; odd rims are dropped.

    Of equal values the first one, row by row, gets the gradient.
    """
    return functools.reduce(jnp.maximum, _corners(x))


def _corners(x):
    """Returns the four pixels of the 2x2 windows, row by row: Float[b, h // 2, w // 2, c] each."""
    height, width = (x.shape[1] // 2) * 2, (x.shape[2] // 2) * 2
    return [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]


def _max_pool_forward(x):
    y = max_pool(x)
    return y, (x, y)


def _max_pool_backward(saved, g):
    x, y = saved
    b, h, w, c = x.shape
    free, parts = jnp.ones_like(y, bool), []
    for corner in _corners(x):
        chosen = free & (corner == y)
        parts.append(jnp.where(chosen, g, 0))
        free &= ~chosen
    rows = [jnp.stack(parts[i : i + 2], 3) for i in (0, 2)]
    dx = jnp.stack(rows, 2).reshape(b, h // 2 * 2, w // 2 * 2, c)
    return (jnp.pad(dx, ((0, 0), (0, h % 2), (0, w % 2), (0, 0))),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def normalise(z, scale, bias, mean, variance, activation):
    """Normalises Float[b, h, w, c] by given statistics, Float[c] each, then activates it."""
    gain = scale * lax.rsqrt(variance + BATCH_NORM_EPSILON)
    shift = bias - mean * gain
    return activate(activation, z * _row(gain) + _row(shift))


def _norm_activate(
    z: jax.Array, scale: jax.Array, bias: jax.Array, activation: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises Float[b, h, w, c] by its batch's own statistics, then activates it.

    Returns:
      (Float[b, h, w, c], mean Float[c], variance Float[c]); no gradient flows
      through the statistics, which only feed the running averages.
    """
    axes = (0, 1, 2)
    mean = z.mean(axes)
    variance = jnp.maximum((z * z).mean(axes) - mean * mean, 0.0)
    return normalise(z, scale, bias, mean, variance, activation), mean, variance


class NormSlope(NamedTuple):
    """How a gradient goes back through batch norm: dz = dy * gain + z * slant + level.

    Float[c] each; `dscale` and `dbias` are the gradients of its parameters.
    """

    gain: jax.Array
    slant: jax.Array
    level: jax.Array
    dscale: jax.Array
    dbias: jax.Array


def norm_slope(gain, inverse, mean, sums, count: int) -> NormSlope:
    """Returns batch norm's slope.

    Args:
      gain: scale * inverse, Float[c].
      inverse: of the deviation.
      mean: of z over the batch.
      sums: of dy, and of dy * (z - mean), over the batch.
      count: pixels of a channel in the batch.
    """
    dbias, dscale = sums[0], sums[1] * inverse
    slant = -gain * inverse * dscale / count
    return NormSlope(gain, slant, -gain * dbias / count - slant * mean, dscale, dbias)


def _norm_activate_forward(z, scale, bias, activation):
    y, mean, variance = _norm_activate(z, scale, bias, activation)
    return (y, mean, variance), (z, scale, bias, mean, variance)


def _norm_activate_backward(activation, saved, gradients):
    z, scale, bias, mean, variance = saved
    g = gradients[0]
    axes, count = (0, 1, 2), z.size // z.shape[-1]
    inverse = lax.rsqrt(variance + BATCH_NORM_EPSILON)
    gain = scale * inverse
    shift = bias - mean * gain
    dy = lax.optimization_barrier(g * slope(activation, z * _row(gain) + _row(shift)))
    sums = dy.sum(axes), (dy * (z - _row(mean))).sum(axes)
    of = norm_slope(gain, inverse, mean, sums, count)
    return dy * _row(gain) + z * _row(of.slant) + _row(of.level), of.dscale, of.dbias


norm_activate = jax.custom_vjp(_norm_activate, nondiff_argnums=(3,))
norm_activate.defvjp(_norm_activate_forward, _norm_activate_backward)


def _row(vector):
    return vector[None, None, None, :]
