"""Which networks fit, where their weights lie, and that nothing else does."""

import dataclasses

import jax
import numpy as np
import pytest

from deepmaker_jax.arch import layers
from deepmaker_jax.cost import cost
from deepmaker_jax.lanes.size_class import table
from deepmaker_jax.lanes.wiring import STATISTICS, DoesNotFitError, choose, fit, put, take, valid
from deepmaker_jax.spaces import SPACES
from tests.examples import ARCH
from tests.lanes.drawn import draw, named, random_variables

SHAPE = (32, 32, 3)
TABLE = table(SHAPE, 10)


def test_sixty_genomes_need_at_most_twelve_classes_and_twice_as_many_need_no_more():
    archs = draw(SHAPE, num=120)
    first = {choose(arch, TABLE) for arch in archs[:60]}
    assert None not in first
    assert len(first) <= 4 <= len(TABLE) <= 12
    assert {choose(arch, TABLE) for arch in archs} == first


@pytest.mark.parametrize(("shape", "most"), [((32, 32, 3), 40_000), ((8, 8, 1), 60_000)])
def test_small_searches_need_two_classes(shape, most):
    found = [choose(arch, table(shape, 10)) for arch in draw(shape, num=60, most=most)]
    names = [None if c is None else c.name for c in found]
    assert set(names) <= {"small-3x3", "small-5x5"}


def test_large_networks_have_rows_too():
    for arch in draw(SHAPE, num=10, at_least=250_000, most=900_000):
        assert choose(arch, TABLE).name.startswith(("medium", "large"))


def test_weights_go_in_and_come_out_again_and_the_rest_is_zero():
    for arch in draw(SHAPE, num=12):
        size_class = choose(arch, TABLE)
        lane = fit(arch, size_class)
        variables = random_variables(arch, np.float32)
        arrays = put(lane, size_class, variables)
        back = take(lane, arrays)
        jax.tree.map(np.testing.assert_array_equal, back["params"], variables["params"])
        jax.tree.map(np.testing.assert_array_equal, back["batch_stats"], variables["batch_stats"])
        real = valid(lane, size_class)
        assert sum(mask.sum() for mask in real.values()) == cost(arch).params
        for name, mask in real.items():
            assert not arrays[name][~mask].any()
        assert set(arrays) - set(real) == set(STATISTICS)


def test_every_group_is_someones_and_edges_follow_execution_order():
    for arch in draw(SHAPE, num=12):
        wiring = fit(arch, choose(arch, TABLE)).wiring
        num = int(wiring.counts.num_conv_out.sum())
        assert num == wiring.counts.num_conv_in.sum()
        assert (wiring.conv_source[:num] < wiring.conv_target[:num]).all()
        assert sorted(wiring.conv_in[:num]) == list(range(num))
        made: dict[str, int] = {}  # groups of each layer's output
        for layer in layers(arch):
            read = sum(made.get(name, 0) for name in layer.inputs)
            made[layer.name] = -(-layer.shape[-1] // 8) if layer.op == "conv" else read
        kept = [layer for layer in layers(arch) if layer.op in ("conv", "max_pool", "avg_pool")]
        assert wiring.counts.num_groups.sum() == sum(made[layer.name] for layer in kept)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"activation": "sigmoid"}, "activation sigmoid"),  # sigmoid(0) is not 0
        ({"optimizer": "adagrad"}, "optimizer adagrad"),
        ({"order": "pre"}, "without a norm"),
        ({"num_classes": 12}, "12 classes"),
        ({"stem_width": 64}, "a stem of 64 channels"),
    ],
)
def test_what_does_not_fit_says_why(change, reason):
    arch = dataclasses.replace(ARCH, input_shape=SHAPE, num_classes=10)
    fit(arch, named("small-3x3", SHAPE))
    with pytest.raises(DoesNotFitError, match=reason):
        fit(dataclasses.replace(arch, **change), named("small-3x3", SHAPE))


def test_a_strided_stem_on_an_odd_side_trains_in_a_program_of_its_own():
    arch = dataclasses.replace(ARCH, num_classes=10, stem_reduction="stride")  # 29 pixels high
    assert choose(arch, table((29, 32, 3), 10)) is None
    pooled = dataclasses.replace(arch, stem_reduction="pool")
    assert choose(pooled, table((29, 32, 3), 10)).name == "small-3x3"


def test_neuropower_fits_no_class():
    space = SPACES["neuropower"](SHAPE, 10)
    arch = space.decode(space.sample(np.random.default_rng(0), num=1)[0])
    assert choose(arch, TABLE) is None
