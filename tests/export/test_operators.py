"""Which operators a network's TFLite file may have."""

import pytest

from deepmaker_jax.arch import ACTIVATIONS
from deepmaker_jax.export.operators import allowed_operators, check_operators
from tests.export.networks import make

PLAIN = {"CONV_2D", "CONCATENATION", "AVERAGE_POOL_2D", "FULLY_CONNECTED"}


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_relu_networks_need_convolutions_pools_concatenations_and_a_dense_layer(activation):
    arch = make(activation)
    assert allowed_operators(arch, "float32") == PLAIN
    assert allowed_operators(arch, "dynamic") == PLAIN
    assert allowed_operators(arch, "float16") == PLAIN | {"DEQUANTIZE"}
    assert allowed_operators(arch, "int8") == PLAIN | {"QUANTIZE"}


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"stem": "pool"}, {"MAX_POOL_2D"}),
        ({"stem": "stride"}, set()),
        ({"shape": (16, 16, 1)}, {"DEPTHWISE_CONV_2D"}),
        ({"activation": "hard_swish"}, {"HARD_SWISH"}),
        ({"activation": "silu"}, {"LOGISTIC", "MUL"}),
        ({"activation": "elu"}, {"GREATER", "SELECT", "SELECT_V2", "EXP", "SUB"}),
        ({"order": "pre"}, {"MUL", "ADD"}),
        ({"order": "pre", "activation": "tanh/relu6"},
         {"MUL", "ADD", "LESS", "SELECT", "TANH", "RELU6"}),
    ],
)  # fmt: skip
def test_what_a_network_has_more_may_be_in_its_file(changes, more):
    assert allowed_operators(make(**changes), "float32") == PLAIN | more


def test_a_network_without_a_concatenation_may_not_have_one():
    arch = make(depths=(1,), connectivity="harmonic")
    assert "CONCATENATION" not in allowed_operators(arch, "int8")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_known(activation):
    assert allowed_operators(make(activation), "int8") >= PLAIN


def test_a_file_with_more_is_refused(exported):
    silu = exported("silu").float32
    with pytest.raises(RuntimeError, match=r"used LOGISTIC, MUL: .* only AVERAGE_POOL_2D, CONC"):
        check_operators(silu, make("relu"), "float32")
    check_operators(silu, make("silu"), "float32")
