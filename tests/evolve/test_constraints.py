"""Constraint domination: against its definition in plain Python, and in NSGA-II.

Deb's rules: feasible before infeasible, infeasible by violation alone, feasible
by the objectives; and ours: failed rows last.
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepmaker_jax.errors import InputError
from deepmaker_jax.evolve import NSGA2, pareto

N, KEEP = 10, 6
CASES = 1000
NAN, INF = math.nan, math.inf


def select(fitness, valid, violation):
    rank = pareto.non_dominated_rank(fitness, valid=valid, violation=violation)
    kept = pareto.survivors(fitness, fitness, num=KEEP, valid=valid, violation=violation)
    return rank, pareto.crowding_distance(fitness, rank=rank, valid=valid), kept


@jax.jit
def select_all(fitness, valid, violation):
    return jax.vmap(select)(fitness, valid, violation)


def tables(m):
    """Draws float32[CASES, N, m] with ties, duplicates, constant columns and failures."""
    rng = np.random.default_rng(100 + m)
    kind = rng.integers(4, size=(CASES, 1, 1))
    fitness = rng.integers(0, 4, (CASES, N, m)) * 1.0
    fitness = np.where(kind == 0, rng.normal(size=fitness.shape), fitness)
    constant = rng.integers(m, size=(CASES, 1, 1)) == np.arange(m)
    fitness = np.where((kind == 2) & constant, 2.5, fitness)
    rows = rng.integers(0, 4, (CASES, N, 1))
    fitness = np.where(kind == 3, np.take_along_axis(fitness, rows, axis=1), fitness)
    odd = (rng.random(fitness.shape) < 0.1) & (rng.random((CASES, 1, 1)) < 0.5)
    fitness = np.where(odd, rng.choice([NAN, INF, -INF], fitness.shape), fitness)
    valid = rng.random((CASES, N)) < np.where(np.arange(CASES) % 2, 0.7, 1.0)[:, None]
    violation = np.maximum(rng.integers(-3, 4, (CASES, N)), 0) * 0.5
    odd = (rng.random((CASES, N)) < 0.1) & (rng.random((CASES, 1)) < 0.5)
    violation = np.where(odd, rng.choice([NAN, INF], (CASES, N)), violation)
    return fitness.astype(np.float32), valid, violation.astype(np.float32)


def beats(a, b):
    """Tells whether row a = (violation, *objectives) dominates row b."""
    a_failed, b_failed = (not all(map(math.isfinite, row)) for row in (a, b))
    if a_failed != b_failed:
        return b_failed
    if not a_failed and (a[0] > 0 or b[0] > 0):
        return a[0] < b[0]
    pairs = [
        [x if math.isfinite(x) else INF for x in pair] for pair in zip(a[1:], b[1:], strict=True)
    ]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def brute_rank(rows, valid):
    """The longest chain of rows that dominate one another and end above a row."""
    real = [i for i in range(N) if valid[i]]
    above = {i: [j for j in real if beats(rows[j], rows[i])] for i in real}
    known = {}

    def rank(i):
        if i not in known:
            known[i] = max((rank(j) + 1 for j in above[i]), default=0)
        return known[i]

    return [rank(i) if valid[i] else N for i in range(N)]


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_rank_and_survivors_equal_brute_force(m):
    fitness, valid, violation = tables(m)
    rank, crowding, kept = map(np.asarray, (*(found := select_all(*tables(m)))[:2], found[2].index))
    rows = np.concatenate([violation[..., None], fitness], axis=-1).tolist()
    for i in range(CASES):
        expected = brute_rank(rows[i], valid[i])
        assert rank[i].tolist() == expected
        best = sorted(range(N), key=lambda k: (expected[k], -crowding[i, k], k))[:KEEP]
        assert kept[i].tolist() == best
        if valid[i].all():
            host = pareto.host_rank(fitness[i], violation=violation[i])
            assert host.tolist() == expected
    np.testing.assert_array_equal(found[2].rank, np.take_along_axis(rank, kept, axis=1))


@pytest.mark.parametrize(
    ("a", "b", "violation", "expected"),
    [
        ([9, 9], [0, 0], (0, 1), True),
        ([0, 0], [9, 9], (1, 0), False),
        ([9, 9], [0, 0], (1, 2), True),
        ([0, 0], [9, 9], (1, 1), False),
        ([1, 2], [1, 3], (0, 0), True),
        ([9, 9], [0, 0], (5, NAN), True),
        ([0, 0], [9, 9], (INF, 5), False),
        ([9, 9], [0, NAN], (5, 0), True),
        ([0, 0], [9, 9], (NAN, INF), True),
    ],
)
def test_dominance_of_single_points(a, b, violation, expected):
    a, b = jnp.array(a, float), jnp.array(b, float)
    assert bool(pareto.dominates(a, b, violation=jnp.array(violation, float))) is expected


def test_without_violations_all_is_as_before():
    for m in (1, 3):
        fitness, valid, _ = tables(m)
        without = jax.jit(jax.vmap(lambda f, v: select(f, v, None)))(fitness, valid)
        chex.assert_trees_all_equal(without, select_all(fitness, valid, np.zeros((CASES, N))))


def started(fitness, *, size, **settings):
    """Returns NSGA-II, and its state after len(fitness) genomes (0, 0), (0, 1), ..."""
    algorithm = NSGA2(size, jnp.zeros(2, jnp.int32), num_choices=(3, 3), **settings)
    genomes = jnp.array([[i // 3, i % 3] for i in range(len(fitness))])
    params = algorithm.default_params
    return algorithm, algorithm.init(jax.random.key(0), genomes, jnp.array(fitness), params)


def test_nsga2_sums_broken_constraints_and_ranks_by_them():
    _, state = started(
        [
            [0, 0, 3, -9],  # broken by 3: what is kept by far makes up for nothing
            [0, 0, 1, 1],  # by 2
            [8, 1, 0, -1],
            [1, 8, 0, 0],
            [9, 9, -5, 0],
            [0, 0, NAN, 0],
            [0, 0, -INF, 0],
        ],
        size=7,
        num_constraints=2,
    )  # fmt: skip
    order = [2, 3, 4, 1, 0, 5, 6]
    np.testing.assert_array_equal(state.population, [[i // 3, i % 3] for i in order])
    np.testing.assert_array_equal(state.rank, [0, 0, 1, 2, 3, 4, 4])
    assert state.fitness.shape == (7, 4)


def test_nsga2_remembers_the_best_of_feasible_rows_only():
    algorithm, state = started([[0, 0, 1], [5, 6, 0], [7, 4, -1]], size=2, num_constraints=1)
    np.testing.assert_array_equal(state.best_fitness, [5, 4])
    np.testing.assert_array_equal(state.best_solution, [[0, 1], [0, 2]])
    told, fitness = jnp.array([[1, 1], [2, 2]]), jnp.array([[1.0, 9, 2], [4, 9, 0]])
    params = algorithm.default_params
    state, metrics = algorithm.tell(jax.random.key(0), told, fitness, state, params)
    np.testing.assert_array_equal(state.best_fitness, [4, 4])
    np.testing.assert_array_equal(metrics["best_fitness_in_generation"], [4, 9])
    assert int(metrics["num_failed"]) == 0


def test_nsga2_scales_objectives_alone():
    shapes = []
    started(
        [[1, 2, 0, 0]] * 3, size=2, num_constraints=2, scale=lambda f: shapes.append(f.shape) or f
    )
    assert shapes == [(3, 2)]


def test_constraints_are_checked():
    with pytest.raises(InputError, match="num_constraints=-1 must not be negative"):
        started([[0.0]], size=1, num_constraints=-1)
    with pytest.raises(
        ValueError, match=r"fitness has shape \(1, 2\); give \(1, m \+ 2\), one row"
    ):
        started([[0.0, 0.0]], size=1, num_constraints=2)
