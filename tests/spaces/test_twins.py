"""Equal networks have equal genomes, in every space and in narrowed ones."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmaker_jax.arch import layers
from deepmaker_jax.config import LimitConfig
from deepmaker_jax.feasible import make
from deepmaker_jax.models.activation import activate
from deepmaker_jax.spaces import deepmaker, neuropower
from deepmaker_jax.spaces.neuropower import ACTIVATIONS
from deepmaker_jax.spaces.table import Row

SHAPES = {"digits": (8, 8, 1), "cifar": (32, 32, 3)}
NARROWED = {
    "whole": {},
    "compressions": {f"compression_percent_{s}": (25, 75, 100) for s in (1, 2, 3)},
    "stages and connectivity": {"stages": (2, 3), "connectivity": ("harmonic", "window")},
}
CASES = [
    pytest.param(deepmaker(shape, 10).narrow(allowed), id=f"{title}-{kind}")
    for title, shape in SHAPES.items()
    for kind, allowed in NARROWED.items()
]


def meaning(space, genome):
    """What makes two candidates the same one: the network, and how it is trained."""
    arch = space.decode(genome)
    return layers(arch), arch.optimizer, arch.learning_rate_log2


def assert_one_genome_each(space, genomes):
    """No two repaired genomes mean the same; returns how many there are."""
    seen = {}
    for genome in genomes:
        repaired = tuple(space.repair(genome))
        assert seen.setdefault(meaning(space, genome), repaired) == repaired
    return len(seen)


@pytest.mark.parametrize("space", CASES)
def test_small_networks_of_the_sampler(space):
    feasible = make(space, LimitConfig(params=2_500), spread="params")
    assert_one_genome_each(space, feasible.sample(np.random.default_rng(0), num=60))


@pytest.mark.parametrize("space", CASES)
def test_every_small_choice_of_two_stages(space):
    choices = {gene.name: gene.choices for gene in space.genes}
    free = ["stem_width", "layers_1", "growth_1", "layers_2", "growth_2", "stem_reduction"]
    free = {name: choices[name][:2] for name in free}
    free |= {name: choices[name] for name in ("compression_percent_1", "connectivity")}
    rows = [
        {"stages": 2} | dict(zip(free, row, strict=True))
        for row in itertools.product(*free.values())
    ]
    assert assert_one_genome_each(space, [space.genome(row) for row in rows]) < len(rows)


@pytest.mark.parametrize("space", CASES)
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_genomes_that_differ_where_twins_hide(space, data):
    small = [st.integers(0, min(num, 3) - 1) for num in space.num_choices]
    one = np.array(data.draw(st.tuples(*small)), np.int32)
    other = one.copy()
    for i, gene in enumerate(space.genes):
        if gene.name.startswith(("compression", "connectivity", "stages", "stem_reduction")):
            other[i] = data.draw(st.integers(0, len(gene.choices) - 1))
    same = meaning(space, one) == meaning(space, other)
    assert same == np.array_equal(space.repair(one), space.repair(other))


def test_a_compression_becomes_the_first_one_of_its_width():
    space = deepmaker((8, 8, 1), 10)
    row = {"stages": 2, "compression_percent_1": 75}  # 8 + 4 channels: 12 * 75 % is 8, 50 % is 8
    assert space.row(space.repair(space.genome(row)))["compression_percent_1"] == 50
    narrow = space.narrow({"compression_percent_1": (75, 100)})
    assert narrow.row(narrow.repair(narrow.genome(row)))["compression_percent_1"] == 75


def test_neuropowers_equal_activations_are_one_genome():
    """A sigmoid is no relu anywhere, so equal values on a grid are equal functions."""
    space, grid = neuropower((8, 8, 1), 10), jnp.linspace(-4, 4, 41)
    seen = {}
    for pair in itertools.product(ACTIVATIONS, ACTIVATIONS):
        row: Row = {"activation_negative": pair[0], "activation_positive": pair[1]}
        genome = space.repair(space.genome(row))
        values = np.asarray(activate("/".join(pair), grid)).round(6).tobytes()
        assert seen.setdefault(values, tuple(genome)) == tuple(genome)
        kept = activate(space.decode(genome).activation, grid)
        np.testing.assert_allclose(kept, activate("/".join(pair), grid), rtol=1e-6)
    assert len(seen) == len(set(seen.values())) == 30
