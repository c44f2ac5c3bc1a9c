"""Costs against hand counts and against the real Flax network."""

import dataclasses
import math

import flax.linen as nn
import jax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepmaker_jax.arch import layers, split_activation
from deepmaker_jax.cost import cost
from deepmaker_jax.models.network import Conv
from deepmaker_jax.spaces import SPACES
from deepmaker_jax.sram import peak_activation_bytes
from deepmaker_jax.train.init import shapes
from tests.examples import ARCH, LAST

SHAPES = ((32, 32, 3), (28, 28, 1), (8, 8, 1), (15, 13, 2))
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


# Made beforehand: checked annotations draw random numbers, which a strategy must not.
TABLES = {
    (name, shape, classes): SPACES[name](shape, classes)
    for name in SPACES
    for shape in SHAPES
    for classes in (2, 10, 100)
}
NUM_CHOICES = {key: space.num_choices for key, space in TABLES.items()}


@st.composite
def genomes(draw, name):
    """A space for one of four image shapes, and a genome of it."""
    key = name, draw(st.sampled_from(SHAPES)), draw(st.sampled_from([2, 10, 100]))
    return TABLES[key], draw(st.tuples(*(st.integers(0, num - 1) for num in NUM_CHOICES[key])))


@pytest.mark.parametrize("name", SPACES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_parameters_and_macs_equal_the_real_networks(name, data):
    space, genome = data.draw(genomes(name))
    arch = space.decode(genome)
    params, macs = _traced(arch)
    assert cost(arch).params == params
    assert cost(arch).macs == macs


def _traced(arch):
    """Counts the real network's leaves, and what its convolutions and dense layers multiply."""
    macs = []

    def counted(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(context.module, Conv | nn.Dense):
            kernel = context.module.get_variable("params", "kernel")
            macs.append(math.prod(out.shape) * math.prod(kernel.shape[:-1]))
        return out

    with nn.intercept_methods(counted):
        variables = shapes(arch)
    assert len(macs) == sum(layer.op in ("conv", "dense") for layer in layers(arch))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), sum(macs)


# What an activation's steps read of the tensors made since the layer's own: 0 is the layer's.
ACTIVATION_READS = {
    "": (),
    "relu": (),
    "relu6": (),
    "hard_swish": ((0,),),
    "tanh": ((0,),),
    "sigmoid": ((0,),),
    "silu": ((0,), (0, 1)),
    "swish": ((0,), (0, 1)),
    "elu": ((0,), (0, 1), (2,), (3,), (0, 1, 4)),
    "selu": ((0,), (0, 1), (2,), (3,), (0, 1, 4)),
}


@pytest.mark.parametrize("name", SPACES)
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_peak_activations_equal_the_sum_over_tensors_lives(name, data):
    space, genome = data.draw(genomes(name))
    arch = space.decode(genome)
    negative, positive = split_activation(arch.activation)
    assume(negative == positive)
    assert cost(arch).peak_activation_bytes == _peak_of_lives(arch)


def _peak_of_lives(arch):
    """Gives every tensor the interval from its writing to its last reading; adds up each moment."""
    size, written, last_read = {"input": math.prod(arch.input_shape)}, {"input": 0}, {"input": 0}
    now = 0

    def step(name, reads, bytes_):
        nonlocal now
        size[name], written[name], last_read[name] = bytes_, now, now
        last_read.update(dict.fromkeys(reads, now))
        now += 1

    final = {"input": "input"}
    for layer in layers(arch):
        reads, bytes_ = [final[source] for source in layer.inputs], math.prod(layer.shape)
        if layer.op == "norm":
            step((layer.name, "scale"), reads, bytes_)
            reads = [(layer.name, "scale")]
        own = [(layer.name, 0)]
        step(own[0], reads, bytes_)
        for places in ACTIVATION_READS[split_activation(layer.activation)[0]]:
            own.append((layer.name, len(own)))
            step(own[-1], [own[place] for place in places], bytes_)
        final[layer.name] = own[-1]
    lives = [(written[name], last_read[name], size[name]) for name in size]
    return max(sum(n for first, last, n in lives if first <= i <= last) for i in range(now))
