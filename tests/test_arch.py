"""Layer lists: connectivity, shapes and what is refused."""

import dataclasses

import pytest

from deepmaker_jax.arch import (
    check,
    conv_paths,
    from_json,
    layers,
    outputs,
    sources,
    to_json,
    transition_channels,
)
from deepmaker_jax.errors import InputError
from tests.examples import ARCH, LAST, PLAIN


def channels_into(arch, name):
    return next(layer.in_channels for layer in layers(arch) if layer.name == name)


def test_full_connectivity_reads_and_hands_on_everything():
    assert sources("full", 4) == (0, 1, 2, 3)
    assert outputs("full", 3) == (0, 1, 2, 3)
    assert [channels_into(ARCH, f"s1l{i}") for i in (1, 2, 3)] == [16, 24, 32]
    assert channels_into(ARCH, "t1") == 16 + 3 * 8


def test_window_connectivity_reads_the_last_three_maps():
    assert sources("window", 2) == (0, 1)
    assert sources("window", 6) == (3, 4, 5)
    assert outputs("window", 6) == (4, 5, 6)


def test_harmonic_connectivity_is_hardnets():
    # HarDNet, figure 1: layer k reads k - 2**i where 2**i divides k.
    assert [sources("harmonic", k) for k in range(1, 9)] == [
        (0,), (0, 1), (2,), (0, 2, 3), (4,), (4, 5), (6,), (0, 4, 6, 7),
    ]  # fmt: skip
    assert outputs("harmonic", 8) == (1, 3, 5, 7, 8)
    assert outputs("harmonic", 3) == (1, 3)


def test_odd_sides_lose_their_rim_in_a_pool_and_round_up_in_a_stride():
    shapes = {layer.name: layer.shape for layer in layers(ARCH)}
    assert shapes["stem"] == (29, 32, 16)
    assert shapes["t1_pool"] == (14, 16, 20)
    strided = dataclasses.replace(ARCH, stem_reduction="stride")
    assert next(layer.shape for layer in layers(strided)) == (15, 16, 16)


@pytest.mark.parametrize(
    ("channels", "percent", "kept"),
    [(40, 50, 20), (10, 25, 4), (8, 25, 4), (44, 75, 32), (13, 100, 13)],
)
def test_transitions_keep_multiples_of_four(channels, percent, kept):
    assert transition_channels(channels, percent) == kept


def test_the_shortest_way_skips_every_layer_that_the_connectivity_lets_it():
    assert conv_paths(layers(ARCH)) == (2, 8)  # stem, transition; and all
    window = dataclasses.replace(LAST, connectivity="window", num_layers=6)
    # Only layers 4 to 6 are handed on; the fourth reads the first, which reads the stem.
    assert conv_paths(layers(dataclasses.replace(ARCH, stages=(window,)))) == (3, 7)


def test_a_bottleneck_puts_a_1x1_before_each_layer():
    stage = dataclasses.replace(LAST, bottleneck=4)
    network = layers(dataclasses.replace(ARCH, stages=(stage,)))
    squeeze = [layer for layer in network if layer.name.endswith("_squeeze")]
    assert [(layer.kernel, layer.shape[-1]) for layer in squeeze] == [(1, 32)] * 3
    assert channels_into(dataclasses.replace(ARCH, stages=(stage,)), "s1l3") == 32


def test_pre_activation_normalises_before_every_convolution_and_the_head():
    network = layers(dataclasses.replace(ARCH, order="pre"))
    norms = [layer.name for layer in network if layer.op == "norm"]
    assert norms == [
        "s1l1_norm", "s1l2_norm", "s1l3_norm", "t1_norm", "s2l1_norm", "s2l2_norm", "s2l3_norm",
        "head_norm",
    ]  # fmt: skip
    assert not any(layer.norm or layer.activation for layer in network if layer.op == "conv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem_width": 0}, r"stem_width \(=0\) must be a whole number in 1"),
        ({"stem_width": True}, r"stem_width \(=True\)"),
        ({"num_classes": 1}, r"num_classes \(=1\)"),
        ({"activation": "gelu"}, r"activation \(='gelu'\) must be one of relu, relu6"),
        ({"optimizer": "lion"}, r"optimizer \(='lion'\)"),
        ({"stem_reduction": "crop"}, r"stem_reduction \(='crop'\)"),
        ({"stages": ()}, r"stages \(=0\) must be 1\.\.16"),
        ({"stages": (dataclasses.replace(LAST, kernel=4),)}, r"kernel \(=4\)"),
        ({"stages": (dataclasses.replace(LAST, num_layers=0),)}, r"num_layers \(=0\)"),
        ({"stages": (LAST, LAST)}, r"compression_percent \(=0\)"),
        (
            {"input_shape": (2, 2, 3), "stages": (PLAIN, PLAIN, LAST)},
            r"images of 2x2 are too small",
        ),
    ],
)
def test_a_field_out_of_range_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        check(dataclasses.replace(ARCH, **change))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v.pop("stages"),
        lambda v: v.update(colour="red"),
        lambda v: v.update(stages=[{"growth": 4}]),
        lambda v: v.update(stages=3),
        lambda v: v.update(input_shape=[8, 8]),
        lambda v: v.update(input_shape=[8, 8.5, 1]),
        lambda v: v.update(activation=None),
        lambda v: v["stages"][0].update(growth="8"),
    ],
)
def test_damaged_json_is_one_line(spoil):
    value = to_json(ARCH)
    spoil(value)
    with pytest.raises(InputError, match="not an architecture") as caught:
        from_json(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, "arch", []])
def test_json_of_another_kind_is_refused(value):
    with pytest.raises(InputError, match="not an architecture"):
        from_json(value)
