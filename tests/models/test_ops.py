"""The operations' own gradients equal those that JAX derives, in float64, and lower for a GPU."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from deepmaker_jax.arch import ACTIVATIONS
from deepmaker_jax.models import ops, winograd
from deepmaker_jax.models.activation import activate, slope

# (batch, height, width, channels in, channels out, kernel, stride)
CONVOLUTIONS = [
    (6, 8, 8, 12, 4, 3, 1),  # patches of the gradient
    (6, 7, 9, 4, 12, 3, 1),  # patches of the input, odd sides
    (4, 8, 8, 3, 8, 3, 2),  # a strided stem
    (4, 7, 7, 3, 2, 3, 2),
    (6, 5, 8, 12, 4, 1, 1),
    (6, 3, 3, 20, 6, 5, 1),  # a window larger than the image
    (64, 16, 16, 12, 10, 3, 1),  # in several chunks of images
    (4, 6, 6, 16, 8, 3, 1),  # few channels on both sides
]
BY_TILES = [(6, 8, 12, 8, 9, 5, 1), (6, 16, 16, 32, 16, 3, 1)]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def normal(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape))


def textbook(x, kernel, stride):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("shape", CONVOLUTIONS + BY_TILES)
def test_convolution_and_its_gradients_are_the_textbook_ones(shape):
    b, h, w, c, o, side, stride = shape
    by_tiles = winograd.pays((b, h, w, c), (side, side, c, o), stride)
    assert by_tiles == (shape in BY_TILES)
    x, kernel = normal(b, h, w, c), normal(side, side, c, o)
    y, pull = jax.vjp(lambda x, kernel: ops.conv(x, kernel, stride), x, kernel)
    wanted, wanted_pull = jax.vjp(lambda x, kernel: textbook(x, kernel, stride), x, kernel)
    np.testing.assert_allclose(y, wanted, atol=1e-10)
    g = normal(*y.shape)
    for got, want in zip(pull(g), wanted_pull(g), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-10 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9)])
def test_max_pool_gives_its_gradient_to_the_first_of_equals(height, width):
    x = jnp.round(normal(3, height, width, 5))  # rounded: many ties
    y, pull = jax.vjp(ops.max_pool, x)
    wanted, wanted_pull = jax.vjp(lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)), x)
    np.testing.assert_array_equal(y, wanted)
    g = normal(*y.shape)
    np.testing.assert_array_equal(pull(g)[0], wanted_pull(g)[0])


@pytest.mark.parametrize("name", [*ACTIVATIONS, "tanh/relu", ""])
def test_slope_is_the_derivative(name):
    x = jnp.linspace(-7.03, 7.01, 97)  # no kink among them
    wanted = jax.vmap(jax.grad(lambda x: activate(name, x)))(x)
    np.testing.assert_allclose(slope(name, x), wanted, atol=1e-12)


@pytest.mark.parametrize("name", ["relu", "hard_swish", "elu", ""])
def test_norm_and_activation_have_the_gradient_that_jax_derives(name):
    z, scale, bias = normal(4, 5, 6, 3) * 2 + 1, normal(3), normal(3)

    def wanted(z, scale, bias):
        mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))
        return ops.normalise(z, scale, bias, mean, var, name)

    (y, mean, var), pull = jax.vjp(
        lambda z, scale, bias: ops.norm_activate(z, scale, bias, name), z, scale, bias
    )
    want, want_pull = jax.vjp(wanted, z, scale, bias)
    np.testing.assert_allclose(y, want, atol=1e-12)
    np.testing.assert_allclose(mean, z.mean((0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(var, z.var((0, 1, 2)), atol=1e-12)
    g = normal(*y.shape)
    zeros = jnp.zeros_like(mean)
    for got, expected in zip(pull((g, zeros, zeros)), want_pull(g), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-10)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_the_plain_convolutions(platform):
    with jax.enable_x64(False):

        def loss(kernel, x):
            return ops.max_pool(ops.conv(x, kernel, 1)).sum()

        arguments = (jnp.ones((3, 3, 12, 8)), jnp.ones((4, 8, 8, 12)))
        text = jax.export.export(jax.jit(jax.grad(loss)), platforms=[platform])(*arguments)
        assert "dot_general" not in text.mlir_module()
        assert text.mlir_module().count("stablehlo.convolution") >= 1
