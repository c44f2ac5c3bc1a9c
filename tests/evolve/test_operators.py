"""Invariants of the operators; frequencies at a fixed key, within 5 standard deviations."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepmaker_jax.evolve import operators

N = 4096
NUM_CHOICES = (4, 1, 2, 7, 3)
G = len(NUM_CHOICES)
CROSSOVERS = [operators.uniform_crossover, operators.two_point_crossover]

tournament = jax.jit(operators.tournament, static_argnames="num")
mutate = jax.jit(partial(operators.mutate, num_choices=NUM_CHOICES))
stepped = jax.jit(
    partial(operators.mutate, ordered=(True, False, True, True)), static_argnames="num_choices"
)
crossovers = {f: jax.jit(f) for f in CROSSOVERS}


def new_key(seed=3):
    """Returns a fresh key object: JAX's key-reuse check goes by object."""
    return jax.random.key(seed)


def parents():
    """Returns two parents that differ in every gene."""
    return jnp.zeros((N, G), jnp.int32), jnp.ones((N, G), jnp.int32)


def near(count, total, chance):
    return abs(count - total * chance) < 5 * (total * chance * (1 - chance)) ** 0.5


def test_tournament_prefers_low_rank_then_large_crowding():
    rank = jnp.array([1, 0, 0, 2])
    crowding = jnp.array([jnp.inf, 0.5, 1.5, jnp.inf])
    wins = Counter(np.asarray(tournament(new_key(), rank, crowding, num=N)).tolist())
    # Of the 6 pairs row 2 wins 3, row 1 wins 2, row 0 wins 1 and row 3 none.
    assert wins[3] == 0
    for row, pairs in ((2, 3), (1, 2), (0, 1)):
        assert near(wins[row], N, pairs / 6)


def test_tournament_between_equal_rows_is_fair():
    wins = tournament(new_key(), jnp.zeros(4, jnp.int32), jnp.full(4, jnp.inf), num=N)
    assert wins.dtype == jnp.int32
    assert all(near(int((wins == row).sum()), N, 1 / 4) for row in range(4))


def test_tournament_of_one_row_returns_it():
    wins = tournament(new_key(), jnp.zeros(1, jnp.int32), jnp.zeros(1), num=8)
    np.testing.assert_array_equal(wins, np.zeros(8))


@pytest.mark.parametrize("crossover", CROSSOVERS)
def test_each_gene_of_a_child_comes_from_a_parent_at_the_same_place(crossover):
    first, second = jax.random.randint(new_key(), (2, N, G), 0, 100, jnp.int32)
    child = crossovers[crossover](new_key(), first, second, rate=0.5)
    assert child.dtype == jnp.int32
    assert bool(((child == first) | (child == second)).all())


@pytest.mark.parametrize("crossover", CROSSOVERS)
def test_rate_is_the_share_of_pairs_that_cross(crossover):
    first, second = parents()
    none = crossovers[crossover](new_key(), first, second, rate=0.0)
    np.testing.assert_array_equal(none, first)
    full = crossovers[crossover](new_key(), first, second, rate=1.0)
    part = crossovers[crossover](new_key(), first, second, rate=0.25)
    # Under one key a smaller rate crosses some of the pairs, and those alike.
    same = np.asarray((part == full).all(1) & (full != first).any(1))
    np.testing.assert_array_equal(part[~same], first[~same])
    assert near(same.sum(), np.asarray((full != first).any(1)).sum(), 0.25)


def test_uniform_crossover_takes_half_of_the_genes_independently():
    child = np.asarray(crossovers[operators.uniform_crossover](new_key(), *parents(), rate=1.0))
    patterns = Counter(map(tuple, child.tolist()))
    assert len(patterns) == 2**G
    assert all(near(count, N, 2.0**-G) for count in patterns.values())


def test_two_point_crossover_takes_every_segment_equally_often():
    child = np.asarray(crossovers[operators.two_point_crossover](new_key(), *parents(), rate=1.0))
    segments = {
        tuple(int(low <= gene < high) for gene in range(G))
        for low in range(G)
        for high in range(low + 1, G + 1)
    }
    patterns = Counter(map(tuple, child.tolist()))
    assert set(patterns) == segments
    assert all(near(count, N, 1 / len(segments)) for count in patterns.values())


def test_mutation_at_rate_zero_changes_nothing():
    genomes = jax.random.randint(new_key(), (N, G), 0, jnp.array(NUM_CHOICES)[None, :])
    np.testing.assert_array_equal(mutate(new_key(), genomes, rate=0.0), genomes)


def test_mutation_at_rate_one_draws_every_other_choice_equally_often():
    genomes = jnp.zeros((N, G), jnp.int32).at[:, 3].set(5)
    mutants = mutate(new_key(), genomes, rate=1.0)
    assert mutants.dtype == jnp.int32
    for gene, count in enumerate(NUM_CHOICES):
        old = int(genomes[0, gene])
        others = [choice for choice in range(count) if choice != old] or [old]
        seen = Counter(np.asarray(mutants[:, gene]).tolist())
        assert sorted(seen) == others
        if len(others) > 1:
            assert all(near(seen[choice], N, 1 / len(others)) for choice in others)


def test_mutation_rate_is_the_chance_per_gene():
    genomes = jnp.zeros((N, G), jnp.int32)
    changed = np.asarray(mutate(new_key(), genomes, rate=0.3) != genomes).sum(0)
    for gene, count in enumerate(NUM_CHOICES):
        assert changed[gene] == 0 if count == 1 else near(changed[gene], N, 0.3)


def polynomial_chances(gene, count, eta=operators.MUTATION_ETA):
    """Returns the chance of each choice, by Deb's formula on a fine grid of draws."""
    draws = (np.arange(200_000) + 0.5) / 200_000
    last = count - 1
    down = 1 - gene / last
    up = 1 - (last - gene) / last
    delta = np.where(
        draws < 0.5,
        (2 * draws + (1 - 2 * draws) * down ** (eta + 1)) ** (1 / (eta + 1)) - 1,
        1 - (2 * (1 - draws) + (2 * draws - 1) * up ** (eta + 1)) ** (1 / (eta + 1)),
    )
    step = np.round(delta * last).astype(int)
    step = np.where(step == 0, np.where(draws < 0.5, -1, 1), step)
    place = gene + step
    place = np.where(place < 0, gene + 1, np.where(place > last, gene - 1, place))
    return np.bincount(place, minlength=count) / len(draws)


@pytest.mark.parametrize("gene", [0, 9, 55, 59])
def test_ordered_genes_step_like_polynomial_mutation(gene):
    counts = (60, 60, 2, 1)
    genomes = jnp.tile(jnp.array([[gene, 30, 1, 0]], jnp.int32), (N, 1))
    mutants = np.asarray(stepped(new_key(), genomes, num_choices=counts, rate=1.0))
    chances = polynomial_chances(gene, 60)
    seen = np.bincount(mutants[:, 0], minlength=60)
    assert len(seen) == 60
    # Where the chance is near none, a few more than expected of them are none.
    assert all(
        near(count, N, chance) if chance > 2e-3 else count < 30
        for count, chance in zip(seen, chances, strict=True)
    )
    assert seen[gene] == 0
    # A gene without order in the same genome goes anywhere; two choices swap; one stays.
    others = np.bincount(mutants[:, 1], minlength=60)
    assert all(near(others[choice], N, 1 / 59) for choice in range(60) if choice != 30)
    np.testing.assert_array_equal(mutants[:, 2:], [[0, 0]] * N)


def test_ordered_nowhere_is_as_without_an_order():
    genomes = jax.random.randint(new_key(), (N, G), 0, jnp.array(NUM_CHOICES)[None, :])
    np.testing.assert_array_equal(
        mutate(new_key(), genomes, rate=0.5, ordered=(False,) * G),
        mutate(new_key(), genomes, rate=0.5),
    )


def test_operators_repeat_by_key_and_differ_between_keys():
    first, second = jax.random.randint(
        new_key(), (2, N, G), 0, jnp.array(NUM_CHOICES)[None, None, :]
    )
    rank = jnp.arange(N) % 3
    calls = [
        lambda key: mutate(key, first, rate=0.5),
        lambda key: tournament(key, rank, jnp.zeros(N), num=N),
        *(lambda key, f=f: crossovers[f](key, first, second, rate=1.0) for f in CROSSOVERS),
    ]
    for call in calls:
        np.testing.assert_array_equal(call(new_key()), call(new_key()))
        assert (np.asarray(call(new_key())) != np.asarray(call(new_key(4)))).any()
