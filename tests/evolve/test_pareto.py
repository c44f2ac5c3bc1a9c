"""Fronts, crowding and selection against definitions written out in plain Python."""

import math

import chex
import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest

from deepmaker_jax.evolve import pareto

N = 16
KEEP = 7
NUM_CASES = 80


def rank_and_select(fitness, scaled, valid):
    rank = pareto.non_dominated_rank(fitness, valid=valid)
    crowding = pareto.crowding_distance(scaled, rank=rank, valid=valid)
    return rank, crowding, pareto.survivors(fitness, scaled, num=KEEP, valid=valid)


ranked_and_selected = jax.jit(rank_and_select)


def table(rng, m, n=N):
    """Draws float32[n, m] with ties, duplicates, constant columns and failures."""
    kind = rng.integers(4)
    fitness = rng.normal(size=(n, m)) if kind == 0 else rng.integers(0, 4, (n, m)) * 1.0
    if kind == 2:
        fitness[:, rng.integers(m)] = 2.5
    if kind == 3:
        fitness = fitness[rng.integers(0, 5, n)]
    if rng.random() < 0.5:
        failures = rng.choice([np.nan, np.inf, -np.inf], (n, m))
        fitness = np.where(rng.random((n, m)) < 0.15, failures, fitness)
    return fitness.astype(np.float32)


def cases(m):
    rng = np.random.default_rng(m)
    for index in range(NUM_CASES):
        valid = rng.random(N) < 0.7 if index % 2 else np.ones(N, bool)
        yield table(rng, m), valid


def beats(a, b):
    a_failed, b_failed = (not all(map(math.isfinite, row)) for row in (a, b))
    if a_failed != b_failed:
        return b_failed
    pairs = [[x if math.isfinite(x) else math.inf for x in pair] for pair in zip(a, b, strict=True)]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def brute_rank(fitness, valid):
    rows, rank = fitness.tolist(), [len(fitness)] * len(fitness)
    waiting, level = {i for i in range(len(rows)) if valid[i]}, 0
    better = {i: {j for j in waiting if beats(rows[j], rows[i])} for i in waiting}
    while waiting:
        front = {i for i in waiting if not better[i] & waiting}
        for i in front:
            rank[i] = level
        waiting, level = waiting - front, level + 1
    return np.array(rank)


def brute_crowding(scaled, rank, valid):
    distance = np.where(valid, 0.0, -np.inf)
    for level in sorted(set(rank[valid].tolist())):
        front, seen = [], set()
        for i in np.flatnonzero(valid & (rank == level)):
            row = tuple(scaled[i].tolist())
            if all(map(math.isfinite, row)) and row not in seen:
                front.append(i)
                seen.add(row)
        if len(front) == 1:
            distance[front[0]] = np.inf
        for column in scaled.T.astype(np.float64):
            order = sorted(front, key=lambda i, column=column: (column[i], i))
            if not order or column[order[0]] == column[order[-1]]:
                continue
            extent = column[order[-1]] - column[order[0]]
            distance[order[0]] = distance[order[-1]] = np.inf
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                distance[i] += (column[after] - column[before]) / extent
    return distance


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_rank_crowding_and_survivors_equal_brute_force(m):
    for fitness, valid in cases(m):
        scaled = fitness * 0.25 - 1  # exact: the order of every column is kept
        rank, crowding, kept = ranked_and_selected(fitness, scaled, valid)
        rank, crowding = np.asarray(rank), np.asarray(crowding)
        expected = brute_rank(fitness, valid)
        np.testing.assert_array_equal(rank, expected)
        np.testing.assert_allclose(
            crowding, brute_crowding(scaled, expected, valid), rtol=1e-5, atol=1e-6
        )
        best = sorted(range(N), key=lambda i: (expected[i], -crowding[i], i))[:KEEP]
        np.testing.assert_array_equal(kept.index, best)
        np.testing.assert_array_equal(kept.rank, expected[best])
        np.testing.assert_array_equal(kept.crowding, crowding[best])


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_padding_rows_change_nothing_whatever_they_hold(m):
    rng = np.random.default_rng(10 + m)
    for fill in (np.nan, np.inf, -np.inf, -1e30, 0.0):
        fitness, valid = table(rng, m), rng.random(N) < 0.6
        other = np.where(valid[:, None], fitness, np.float32(fill))
        chex.assert_trees_all_equal(
            ranked_and_selected(fitness, fitness, valid), ranked_and_selected(other, other, valid)
        )


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_finite_ranks_equal_those_of_moocore(m):
    rng = np.random.default_rng(20 + m)
    everything = np.ones(N, bool)
    for _ in range(20):
        fitness = rng.integers(0, 5, (N, m)).astype(np.float32)
        rank = ranked_and_selected(fitness, fitness, everything)[0]
        np.testing.assert_array_equal(rank, moocore.pareto_rank(fitness))


@pytest.mark.parametrize("m", [2, 3])
def test_order_of_distinct_rows_does_not_matter(m):
    rng = np.random.default_rng(30 + m)
    everything = np.ones(N, bool)
    for _ in range(20):
        fitness, order = rng.normal(size=(N, m)).astype(np.float32), rng.permutation(N)
        rank, crowding, _ = ranked_and_selected(fitness, fitness, everything)
        shuffled = ranked_and_selected(fitness[order], fitness[order], everything)
        np.testing.assert_array_equal(shuffled[0], rank[order])
        np.testing.assert_array_equal(shuffled[1], crowding[order])


def test_ranking_and_selection_compile_once_a_shape():
    traced = jax.jit(chex.assert_max_traces(rank_and_select, n=1))
    for fitness, valid in cases(2):
        traced(fitness, fitness, valid)


def test_types_are_int32_and_the_given_float():
    fitness = np.zeros((N, 2), np.float32)
    rank, crowding, kept = ranked_and_selected(fitness, fitness, np.ones(N, bool))
    assert rank.dtype == kept.index.dtype == kept.rank.dtype == jnp.int32
    assert crowding.dtype == kept.crowding.dtype == jnp.float32
    assert kept.index.shape == (KEEP,)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2], [1, 3], True),
        ([1, 3], [1, 2], False),
        ([1, 2], [1, 2], False),
        ([1, 2], [2, 1], False),
        ([9, 9], [0, math.nan], True),
        ([0, math.nan], [9, 9], False),
        ([9, 9], [-math.inf, 0], True),
        ([0, math.nan], [1, math.inf], True),
        ([0, math.nan], [0, math.inf], False),
        ([1], [2], True),
    ],
)
def test_dominance_of_single_points(a, b, expected):
    assert bool(pareto.dominates(jnp.array(a, float), jnp.array(b, float))) is expected


def test_all_failed_rows_are_ranked_among_themselves_and_below_padding_rank():
    fitness = jnp.array([[math.nan, 2.0], [math.inf, 1.0], [math.nan, 1.0], [0.0, 0.0]])
    rank = pareto.non_dominated_rank(fitness, valid=jnp.array([True, True, True, False]))
    np.testing.assert_array_equal(rank, [1, 0, 0, 4])


def test_crowding_of_a_worked_example():
    scaled = jnp.array([[0.0, 1.0], [0.25, 0.5], [0.5, 0.25], [1.0, 0.0], [0.25, 0.5]])
    crowding = pareto.crowding_distance(scaled, rank=jnp.zeros(5, jnp.int32))
    np.testing.assert_array_equal(crowding, [np.inf, 0.5 + 0.75, 0.75 + 0.5, np.inf, 0.0])


def test_constant_objective_adds_nothing_and_a_lone_point_is_a_boundary():
    scaled = jnp.array([[0.0, 3.0], [0.25, 3.0], [1.0, 3.0], [7.0, 7.0]])
    crowding = pareto.crowding_distance(scaled, rank=jnp.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(crowding, [np.inf, 1.0, np.inf, np.inf])


def test_crowding_survives_the_extremes_of_float32():
    big = np.finfo(np.float32).max
    scaled = jnp.array([[-big, big], [0.0, 0.0], [big, -big], [math.nan, 0.0], [0.0, -math.inf]])
    crowding = pareto.crowding_distance(scaled, rank=jnp.zeros(5, jnp.int32))
    np.testing.assert_array_equal(crowding, [np.inf, 2.0, np.inf, 0.0, 0.0])


def test_survivors_take_crowding_from_the_scaled_values_and_rank_from_the_raw():
    # Gaps of column 1 around rows 1, 2, 3: raw 1008, 60, 15 of 1023; log2 6, 4, 4 of 10.
    raw = jnp.array(
        [[1.0, 1024.0], [2.0, 64.0], [3.0, 16.0], [6.0, 4.0], [9.0, 1.0], [9.0, 2000.0]]
    )
    logged = raw.at[:, 1].set(jnp.log2(raw[:, 1]))
    np.testing.assert_array_equal(pareto.survivors(raw, raw, num=3).index, [0, 4, 1])
    np.testing.assert_array_equal(pareto.survivors(raw, logged, num=3).index, [0, 4, 3])


def test_more_survivors_than_rows_is_refused():
    with pytest.raises(ValueError, match="num=3 is more than the 2 rows"):
        pareto.survivors(jnp.zeros((2, 2)), jnp.zeros((2, 2)), num=3)


def test_repeats_marks_all_but_the_first_of_equal_rows():
    genomes = jnp.array([[1, 2], [1, 2], [3, 4], [1, 2], [3, 4]])
    fitness = jnp.array([[1.0], [1.0], [math.nan], [2.0], [math.nan]])
    np.testing.assert_array_equal(pareto.repeats(genomes), [False, True, False, True, True])
    np.testing.assert_array_equal(
        pareto.repeats(genomes, fitness), [False, True, False, False, False]
    )


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_front_holds_every_finite_row_of_rank_zero(m):
    for fitness, _ in cases(m):
        rank = brute_rank(fitness, np.ones(N, bool))
        finite = np.isfinite(fitness).all(1)
        np.testing.assert_array_equal(pareto.front(fitness), np.flatnonzero((rank == 0) & finite))


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_rank_on_the_host_is_the_rank(m):
    rank = jax.jit(pareto.non_dominated_rank)
    for fitness, _ in cases(m):
        np.testing.assert_array_equal(pareto.host_rank(fitness), rank(fitness))
    many = table(np.random.default_rng(40 + m), m, n=400)
    np.testing.assert_array_equal(pareto.host_rank(many), rank(many))
    assert pareto.host_rank(np.zeros((0, m))).tolist() == []


def test_rank_on_the_host_goes_by_order_alone_from_end_to_end_of_float64():
    rng, info = np.random.default_rng(50), np.finfo(float)
    small = info.smallest_subnormal
    values = np.array([-info.max, -1, -small, 0, small, 1, 1 + info.eps, 1e300, info.max])
    for _ in range(300):
        places = rng.integers(0, len(values), (rng.integers(1, 20), rng.integers(1, 6)))
        np.testing.assert_array_equal(pareto.host_rank(values[places]), pareto.host_rank(places))


def test_front_compares_in_float64_where_float32_ties():
    fitness = np.array([[0.5, 2.0**24 + 1], [0.5, 2.0**24]])
    np.testing.assert_array_equal(pareto.front(fitness), [1])
    np.testing.assert_array_equal(pareto.non_dominated_rank(fitness.astype(np.float32)), [0, 0])


def test_front_without_a_finite_row_is_empty():
    assert pareto.front(np.full((3, 2), np.nan)).tolist() == []
    assert pareto.front(np.zeros((0, 2))).tolist() == []
