"""Costs against hand counts and against the real Flax network."""

import dataclasses

import jax
import numpy as np
import pytest

from deepmaker_jax.arch import layers
from deepmaker_jax.cost import cost, peak_activation_bytes
from deepmaker_jax.spaces import SPACES
from deepmaker_jax.train.init import shapes
from tests.examples import ARCH, LAST

ONE_LAYER = dataclasses.replace(
    ARCH,
    input_shape=(8, 8, 1),
    stem_width=4,
    stages=(dataclasses.replace(LAST, num_layers=1, growth=4),),
)


def test_parameters_and_macs_by_hand():
    # stem 3*3*1*4 + norm 8; layer 3*3*4*4 + norm 8; classifier 8*7 + 7
    assert cost(ONE_LAYER).params == 36 + 8 + 144 + 8 + 63
    assert cost(ONE_LAYER).macs == 64 * 36 + 64 * 144 + 56


def test_peak_activations_by_hand():
    # stem out 256 + layer out 256 + their concatenation 512
    assert cost(ONE_LAYER).peak_activation_bytes == 1024


@pytest.mark.parametrize(
    ("activation", "extra"),
    [
        ("relu", 0),
        ("relu6", 0),
        ("elu", 256),
        ("hard_swish", 0),
        ("silu", 0),
        ("sigmoid/tanh", 256),
    ],
)
def test_activations_that_cannot_be_fused_keep_more_alive(activation, extra):
    # At the layer's activation the stem's map is alive too: 256 + raw 256 + result 256, and for a
    # silu the sigmoid's 256; an elu selects among three tensors, as a two-sided one does.
    arch = dataclasses.replace(ONE_LAYER, activation=activation)
    assert cost(arch).peak_activation_bytes == 1024 + extra


def test_a_tensor_dies_after_its_last_reader():
    chain = tuple(layer for layer in layers(ONE_LAYER) if layer.op != "concat")
    chain = (*chain[:2], chain[2]._replace(inputs=("s1l1",)), *chain[3:])
    assert peak_activation_bytes(chain, (8, 8, 1)) == 512


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1)])
def test_parameters_equal_the_real_networks(name, shape):
    space = SPACES[name](shape, 10)
    for genome in space.sample(np.random.default_rng(0), num=6):
        arch = space.decode(genome)
        leaves = jax.tree.leaves(shapes(arch)["params"])
        assert cost(arch).params == sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize("name", SPACES)
def test_macs_equal_the_dot_products_of_the_real_network(name):
    from deepmaker_jax.models import Network

    space = SPACES[name]((16, 16, 3), 10)
    for genome in space.sample(np.random.default_rng(1), num=3):
        arch = space.decode(genome)
        network = Network(layers(arch))
        image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
        variables = shapes(arch)
        jaxpr = jax.make_jaxpr(network.apply)(variables, image)
        assert cost(arch).macs == _macs(jaxpr.jaxpr)


def _macs(jaxpr):
    """Counts multiply-accumulates of convolutions and products, padding included."""
    total = 0
    for eqn in jaxpr.eqns:
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None:
                total += _macs(inner)
        out = eqn.outvars[0].aval
        if eqn.primitive.name == "conv_general_dilated":
            total += out.size * int(np.prod(eqn.invars[1].aval.shape[:3]))
        elif eqn.primitive.name == "dot_general":
            total += out.size * eqn.invars[0].aval.shape[-1]
    return total
