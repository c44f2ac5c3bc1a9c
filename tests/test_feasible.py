"""The space within its limits."""

import dataclasses

import numpy as np
import pytest

from deepmaker_jax.backends import BACKENDS
from deepmaker_jax.config import COSTS, LimitConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.errors import InputError
from deepmaker_jax.feasible import make
from deepmaker_jax.spaces import Gene, Space, deepmaker, neuropower
from tests.examples import ARCH

WIDE = deepmaker((32, 32, 3), 10)
LIMITS = LimitConfig(params=60_000, macs=5_000_000, peak_activation_bytes=60_000)


@pytest.fixture(scope="module")
def feasible():
    return make(WIDE, LIMITS, spread="params")


def test_samples_meet_every_limit_and_differ(feasible):
    genomes = feasible.sample(np.random.default_rng(0), num=30)
    costs = [cost(WIDE.decode(g)) for g in genomes]
    assert len({WIDE.id(g) for g in genomes}) == 30
    assert max(c.params for c in costs) <= 60_000
    assert max(c.macs for c in costs) <= 5_000_000
    assert max(c.peak_activation_bytes for c in costs) <= 60_000


def test_samples_spread_over_the_size_axis(feasible):
    genomes = feasible.sample(np.random.default_rng(1), num=60)
    sizes = np.array([cost(WIDE.decode(g)).params for g in genomes])
    thirds = np.histogram(np.log(sizes), np.log([658, 3_000, 13_500, 60_000]))[0]
    assert thirds.min() >= 6


def test_samples_begin_at_the_floor():
    part = make(WIDE, LIMITS, spread="params", floor=10_000)
    sizes = [cost(WIDE.decode(g)).params for g in part.sample(np.random.default_rng(1), num=40)]
    near = [size for size in sizes if 7_000 <= size <= 60_000]  # a draw ends close below its size
    assert len(near) >= 36
    assert np.median(sizes) > 18_000


def test_a_floor_above_every_network_is_refused():
    make(WIDE, LIMITS, spread="params", floor=50_000).check(4)
    with pytest.raises(
        InputError, match=r"search.floor \(=60000\) must be below the params of the"
    ):
        make(WIDE, LIMITS, spread="params", floor=60_000).check(4)
    with pytest.raises(InputError, match=r"search.floor \(=1000000000\) must be below the params"):
        make(WIDE, LimitConfig(), spread="params", floor=10**9).check(4)


def test_a_floor_that_another_limit_keeps_every_network_below_is_refused():
    both = LimitConfig(flash_bytes=200_000, macs=200_000)
    make(WIDE, both, spread="flash_bytes", floor=16_384).check(8)
    with pytest.raises(InputError, match=r"search.floor \(=150000\) must be below the flash_bytes"):
        make(WIDE, both, spread="flash_bytes", floor=150_000).check(8)


@pytest.mark.parametrize("macs", [300_000, 2_000_000, 24_000_000])
def test_sizes_are_drawn_up_to_the_largest_that_all_limits_leave(macs):
    part = make(WIDE, LimitConfig(params=200_000, macs=macs), spread="params")
    sizes = [part._size(g) for g in part.sample(np.random.default_rng(1), num=60)]
    assert max(sizes) <= part._most <= 200_000
    # Not most of them at the upper end, as if they had been drawn beyond it.
    assert np.median(sizes) < part._most / 2


def test_a_limit_that_no_network_reaches_spreads_samples_as_one_that_the_largest_meets():
    draws = [
        make(WIDE, LimitConfig(params=limit), spread="params").sample(
            np.random.default_rng(1), num=12
        )
        for limit in (10**12, 10**15)
    ]
    np.testing.assert_array_equal(*draws)
    sizes = [cost(WIDE.decode(g)).params for g in draws[0]]
    assert min(sizes) < 20_000 < np.median(sizes) < 2_000_000 < max(sizes)


def test_samples_depend_on_the_generator_alone_and_avoid_the_known(feasible):
    first = feasible.sample(np.random.default_rng(5), num=8)
    again = feasible.sample(np.random.default_rng(5), num=8)
    np.testing.assert_array_equal(first, again)
    known = {WIDE.id(g) for g in first}
    others = feasible.sample(np.random.default_rng(5), num=8, known=known)
    assert not known & {WIDE.id(g) for g in others}


def test_shrinking_leaves_a_feasible_genome_as_it_is(feasible):
    genome = feasible.sample(np.random.default_rng(2), num=1)[0]
    np.testing.assert_array_equal(feasible.shrink(np.random.default_rng(0), genome), genome)


def test_shrinking_brings_a_large_genome_under_every_limit(feasible):
    largest = WIDE.repair(np.array(WIDE.num_choices) - 1)
    assert not feasible.allows(largest)
    assert feasible.allows(feasible.shrink(np.random.default_rng(0), largest))


@pytest.mark.parametrize("name", COSTS)
def test_a_limit_that_nothing_meets_names_the_nearest_value(name):
    nearest = getattr(cost(WIDE.decode([0] * 20)), name)
    with pytest.raises(InputError, match=rf"limits\.{name.replace('_', '-')} \(=1\)") as caught:
        make(WIDE, LimitConfig(**{name: 1}), spread="params").check(4)
    found = int(str(caught.value).split("reaches here, ")[1].split(":")[0])
    assert 1 < found <= nearest


def test_limits_that_exclude_each_other_are_refused():
    # Two networks: few parameters and large maps, or many parameters and small maps.
    def to_arch(row):
        reduction = "stride" if row["width"] == 32 else "none"
        return dataclasses.replace(ARCH, stem_width=row["width"], stem_reduction=reduction)

    space = Space("pair", (Gene("width", (8, 32)),), to_arch)
    narrow, wide = cost(space.decode([0])), cost(space.decode([1]))
    tight = LimitConfig(params=narrow.params, peak_activation_bytes=wide.peak_activation_bytes)
    assert narrow.params < wide.params
    assert narrow.peak_activation_bytes > wide.peak_activation_bytes
    with pytest.raises(InputError, match=r"are met by no genome .* at once; the nearest has"):
        make(space, tight, spread="params").check(4)


def test_fewer_networks_than_the_population_are_refused_with_their_number():
    space = neuropower((32, 32, 3), 10)
    limited = make(space, LimitConfig(params=66_000), spread="params")
    limited.check(150)
    with pytest.raises(InputError, match=r"population \(=151\) is more than the 150 different"):
        limited.check(151)


def test_a_small_space_is_sampled_to_its_last_genome():
    space = neuropower((32, 32, 3), 10).narrow({"optimizer": ("adam",), "depth": (16,)})
    feasible = make(space, LimitConfig(), spread="params")
    genomes = feasible.sample(np.random.default_rng(0), num=100)
    assert len({space.id(g) for g in genomes}) == 60
    known = {space.id(g) for g in genomes[:58]}
    rest = feasible.sample(np.random.default_rng(1), num=100, known=known)
    assert {space.id(g) for g in rest} == {space.id(g) for g in genomes[58:]}


FPGA = {"fpga": BACKENDS["fpga"].supports}


def test_targets_cut_the_space_as_limits_do():
    cut = make(WIDE, LIMITS, spread="params", targets=FPGA)
    cut.check(16)
    archs = [WIDE.decode(g) for g in cut.sample(np.random.default_rng(0), num=20)]
    assert {arch.activation for arch in archs} == {"relu"}
    assert max(cost(arch).params for arch in archs) <= 60_000
    others = [g for g in feasible_genomes() if WIDE.decode(g).activation != "relu"]
    assert others
    assert not any(cut.allows(genome) for genome in others)
    for genome in others:
        repaired = cut.shrink(np.random.default_rng(0), genome)
        assert cut.allows(repaired)


def feasible_genomes():
    return make(WIDE, LIMITS, spread="params").sample(np.random.default_rng(3), num=6)


def test_a_network_with_several_faults_is_repaired_one_after_the_other():
    def picky(arch):
        wrong = {"kernel 3": arch.stages[0].kernel == 3, "relu": arch.activation == "relu"}
        return [reason for reason, holds in wrong.items() if holds]

    cut = make(WIDE, LimitConfig(), spread="params", targets={"mine": picky})
    genome = WIDE.repair(np.zeros(len(WIDE.genes), np.int32))
    assert picky(WIDE.decode(genome)) == ["kernel 3", "relu"]
    assert picky(WIDE.decode(cut.shrink(np.random.default_rng(0), genome))) == []


def test_a_space_that_a_target_cannot_do_is_refused_with_the_reason():
    space = neuropower((32, 32, 3), 10)
    with pytest.raises(InputError, match=r"targets \(fpga\) can do no network of space neuropower"):
        make(space, LimitConfig(), spread="params", targets=FPGA).check(4)
    narrow = WIDE.narrow({"activation": ("elu",)})
    with pytest.raises(InputError, match=r"mcu: activation elu needs EXP and SELECT"):
        make(narrow, LIMITS, spread="params", targets={"mcu": BACKENDS["mcu"].supports}).check(4)
