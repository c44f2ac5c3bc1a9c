"""NSGA-III against the paper's algorithms, written out one row at a time in NumPy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepmaker_jax.errors import InputError
from deepmaker_jax.evolve import NSGA3, das_dennis, pareto, reference
from deepmaker_jax.evolve.hypervolume import hypervolume

N, KEEP = 14, 8
CASES = 200
BOX = (0.0, 2.0)
PARTITIONS = {1: 1, 2: 7, 3: 3, 4: 2, 5: 2}


def tables(m):
    """Draws [CASES, N, m] with duplicates, constant columns, failures, masks and violations."""
    rng = np.random.default_rng(200 + m)
    kind = rng.integers(5, size=(CASES, 1, 1))
    fitness = rng.random((CASES, N, m)) * 10.0 ** rng.integers(-1, 3, (CASES, 1, m))
    # Many on one front, in which niches decide.
    fitness = np.where(kind < 3, fitness / fitness.sum(-1, keepdims=True), fitness)
    constant = rng.integers(m, size=(CASES, 1, 1)) == np.arange(m)
    fitness = np.where((kind == 2) & constant, 2.5, fitness)
    rows = rng.integers(0, 9, (CASES, N, 1))
    fitness = np.where(kind == 3, np.take_along_axis(fitness, rows, axis=1), fitness)
    odd = (rng.random(fitness.shape) < 0.05) & (kind == 4)
    fitness = np.where(odd, rng.choice([np.nan, np.inf, -np.inf], fitness.shape), fitness)
    valid = rng.random((CASES, N)) < np.where(np.arange(CASES) % 3, 1.0, 0.8)[:, None]
    some = (np.arange(CASES) % 4 == 0)[:, None]
    violation = np.where(some, np.maximum(rng.integers(-6, 3, (CASES, N)), 0), 0.0)
    violation = np.where(some & (rng.random((CASES, N)) < 0.05), np.nan, violation)
    return fitness, valid, violation


def brute_bounds(points, first, before):
    """Algorithm 2: ideal point, extreme points, intercepts."""
    ideal = np.minimum(points.min(0), before)
    m = len(ideal)
    extremes = []
    for axis in range(m):
        weights = [1.0 if k == axis else 1e-6 for k in range(m)]
        sizes = [max((p - z) / w for p, z, w in zip(f, ideal, weights, strict=True)) for f in first]
        extremes.append(first[int(np.argmin(sizes))] - ideal)
    worst = points.max(0) - ideal
    try:
        plane = np.linalg.solve(extremes, np.ones(m))
        extent = np.array([1 / a if a else math.inf for a in plane])
        sound = np.isfinite(extent).all() and (extent > 1e-6).all()
        sound = sound and len(np.unique(extremes, axis=0)) == m
        sound = sound and np.allclose(np.array(extremes) @ plane, 1, rtol=1e-5, atol=1e-5)
    except np.linalg.LinAlgError:
        sound = False
    extent = np.minimum(extent, worst) if sound else first.max(0) - ideal
    extent = np.where(extent > 1e-6, extent, worst)
    return ideal, np.where(extent > 0, extent, 1)


def brute_survivors(fitness, valid, violation, draws, rank, *, directions, before, box=None):
    """Algorithms 1, 3 and 4; where the paper draws, the row or niche of the least draw is first."""
    draw, turn = draws
    usable = [
        i for i in range(N) if valid[i] and np.isfinite(fitness[i]).all() and not violation[i]
    ]
    chosen, last = [], []
    for r in range(N + 1):
        last = [i for i in range(N) if rank[i] == r]
        if len(chosen) + len(last) >= KEEP:
            break
        chosen += last
    waiting = [i for i in last if i in usable]
    if not waiting:
        return chosen + last[: KEEP - len(chosen)]
    if box is None:
        first = fitness[[i for i in usable if rank[i] == 0]]
        low, extent = brute_bounds(fitness[usable], first, before)
    else:
        low, extent = box
    niche, distance = {}, {}
    for i in usable:
        point = (fitness[i] - low) / extent
        far = [np.linalg.norm(point - w * (w @ point) / (w @ w)) for w in directions]
        far = np.round(np.array(far) * 2**20)
        niche[i], distance[i] = int(np.argmin(far)), min(far)
    count = [sum(niche[i] == j for i in chosen if i in usable) for j in range(len(directions))]
    while len(chosen) < KEEP:
        heads = {}
        for j in {niche[i] for i in waiting}:
            members = [i for i in waiting if niche[i] == j]
            by = [(distance[i] if count[j] == 0 else 0, draw[i]) for i in members]
            heads[j] = members[by.index(min(by))]
        least = min(count[j] for j in heads)
        j = min((j for j in heads if count[j] == least), key=lambda j: turn[j])
        chosen.append(heads[j])
        waiting.remove(heads[j])
        count[j] += 1
    return chosen


@pytest.mark.parametrize(
    ("m", "fixed"), [(1, False), (2, False), (3, False), (4, False), (5, False), (3, True)]
)
def test_survivors_equal_the_paper_row_by_row(m, fixed):
    fitness, valid, violation = tables(m)
    directions = das_dennis(m, PARTITIONS[m])
    box = (0.0, 1.0) if fixed else (np.full(m, 0.05), None)

    def select(key, fitness, valid, violation):
        kept = reference.survivors(
            key,
            fitness,
            fitness,
            num=KEEP,
            directions=directions,
            box=box,
            valid=valid,
            violation=violation,
        )
        keys = jax.random.split(jax.random.clone(key))
        draws = [
            jax.random.permutation(k, jnp.arange(num, dtype=jnp.int32))
            for k, num in zip(keys, (N, len(directions)), strict=True)
        ]
        return kept, pareto.non_dominated_rank(fitness, valid=valid, violation=violation), draws

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(m), CASES)
        kept, ranks, draws = jax.jit(jax.vmap(select))(keys, fitness, valid, violation)
    draws = [np.asarray(draw) for draw in draws]
    ranks, index, by_niche = np.asarray(ranks), np.asarray(kept.index), 0
    for i in range(CASES):
        expected = brute_survivors(
            fitness[i],
            valid[i],
            violation[i],
            [draw[i] for draw in draws],
            ranks[i],
            directions=directions,
            before=np.full(m, 0.05),
            box=(0.0, 1.0) if fixed else None,
        )
        assert sorted(index[i].tolist()) == sorted(expected)
        assert (np.diff(ranks[i][index[i]]) >= 0).all()
        by_niche += len(set(range(N)) - set(expected)) > (ranks[i] > ranks[i][expected].max()).sum()
    assert m == 1 or by_niche > CASES / 2
    np.testing.assert_array_equal(kept.rank, np.take_along_axis(ranks, index, axis=1))


def test_of_equally_empty_niches_each_is_as_likely_to_be_next_however_many_wait_in_it():
    fitness = jnp.array([[0.0, 2.0], [2.0, 0.0], *[[0.1 * i, 2 - 0.1 * i] for i in range(1, 10)]])
    fitness = fitness.at[-1].set(jnp.array([1.9, 0.1]))  # the others are nearer to the first

    def last(key):
        directions = jnp.eye(2)
        kept = reference.survivors(key, fitness, fitness, num=3, directions=directions, box=BOX)
        return kept.index

    index = np.asarray(jax.jit(jax.vmap(last))(jax.random.split(jax.random.key(0), 2000)))
    assert set(index.ravel()) == set(range(len(fitness)))
    lone = (index == len(fitness) - 1).any(1).mean()
    assert 0.45 < lone < 0.55


@pytest.mark.parametrize(("m", "p"), [(1, 3), (2, 5), (3, 12), (5, 4)])
def test_das_dennis_is_the_whole_lattice_of_the_simplex(m, p):
    lattice = [row for row in itertools.product(range(p + 1), repeat=m) if sum(row) == p]
    np.testing.assert_array_equal(das_dennis(m, p), np.array(lattice) / p)


@pytest.mark.parametrize(
    ("m", "most", "num"), [(1, 9, 1), (2, 16, 16), (3, 91, 91), (3, 90, 78), (4, 2, 4)]
)
def test_directions_are_as_many_as_fit(m, most, num):
    found = reference.directions(m, most)
    assert found.shape == (num, m)


def test_das_dennis_of_nothing_is_refused():
    with pytest.raises(ValueError, match="num_objectives=0 and num_partitions=3 must be >= 1"):
        das_dennis(0, 3)


def test_points_belong_to_the_nearest_line_through_the_origin():
    niche, distance = reference.associate(
        jnp.array([[2.0, 0.1], [3.0, 3.0], [0.0, 0.0], [1.0, 2.0]]),
        jnp.array([[1.0, 0.0], [0.5, 0.5], [0.0, 7.0]]),
    )
    np.testing.assert_array_equal(niche, [0, 1, 0, 1])
    np.testing.assert_allclose(distance, [0.1, 0, 0, 0.5**0.5], atol=1e-6)


def test_intercepts_of_a_plane_are_found_and_never_past_the_worst():
    scaled = jnp.array([[0.0, 4.0], [1.0, 2.0], [2.0, 0.0], [9.0, 3.0]])
    first, usable = jnp.array([True, True, True, False]), jnp.ones(4, bool)
    bounds = jax.jit(reference.bounds)
    low, high = bounds(scaled, first=first, usable=usable, ideal=jnp.zeros(2))
    np.testing.assert_allclose([low, high], [[0, 0], [2, 4]], rtol=1e-5)
    # One point is no plane: the worst of the first front, where it has an extent.
    one = jnp.array([True, False, False, False])
    low, high = bounds(scaled, first=one, usable=usable, ideal=jnp.zeros(2))
    np.testing.assert_allclose(high, [9, 4])


G = 6
CHOICES = 9


def evaluate(genomes):
    """Three objectives whose front is the plane that they sum to 1 on, last genes 0."""
    x = genomes / (CHOICES - 1)
    back = 1 + x[:, 2:].sum(-1)
    return jnp.stack(
        [x[:, 0] * x[:, 1] * back, x[:, 0] * (1 - x[:, 1]) * back, (1 - x[:, 0]) * back], axis=1
    )


def make(**settings):
    given = {"directions": das_dennis(3, 6), **settings}
    return NSGA3(28, jnp.zeros(G, jnp.int32), num_choices=(CHOICES,) * G, **given)


def run(seed, algorithm, num_generations=30):
    params = algorithm.default_params
    first, rest = jax.random.split(jax.random.key(seed))
    draw, begin = jax.random.split(first)
    population = jax.random.randint(draw, (28, G), 0, CHOICES)
    state = algorithm.init(begin, population, evaluate(population), params)

    def step(state, key):
        ask, tell = jax.random.split(key)
        population, state = algorithm.ask(ask, state, params)
        return algorithm.tell(tell, population, evaluate(population), state, params)

    return jax.lax.scan(step, state, jax.random.split(rest, num_generations))


def test_searches_within_a_scan_and_repeats_by_key():
    algorithm = make()
    program = jax.jit(lambda seed: run(seed, algorithm))
    (state, metrics), (again, _), (other, _) = program(0), program(0), program(1)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (np.asarray(other.population) != np.asarray(state.population)).any()
    assert int(metrics["num_first_front"][-1]) == 28
    # The whole front dominates 0.96 of the box to 1.1; 28 points of it at most 0.88.
    assert hypervolume(np.asarray(state.fitness) / 1.1) * 1.1**3 > 1.0
    assert state.crowding.max() <= 0


def test_parents_win_by_constraints_alone():
    algorithm = make(num_constraints=1)
    genomes = jnp.arange(28 * G).reshape(28, G) % CHOICES
    broken = jnp.where(jnp.arange(28) < 4, 0, jnp.arange(28) % 3).astype(jnp.float32)
    fitness = jnp.concatenate([evaluate(genomes), broken[:, None]], axis=1)
    fitness = fitness.at[5, 0].set(jnp.nan)
    state = algorithm.init(jax.random.key(0), genomes, fitness, algorithm.default_params)
    rank, crowding = jax.jit(algorithm._mating_order)(state)
    violation = np.where(np.isfinite(state.fitness).all(1), state.fitness[:, 3], 9)
    order = np.unique(violation, return_inverse=True)[1]
    np.testing.assert_array_equal(rank, order)
    np.testing.assert_array_equal(crowding, 0)
    assert len(set(order.tolist())) == 4


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (np.zeros(3), r"directions has shape \(3,\); give rows of m numbers >= 0"),
        (np.zeros((2, 3)), "none all 0"),
        (np.array([[1.0, -1.0]]), "numbers >= 0"),
        (np.array([[1.0, math.nan]]), "numbers >= 0"),
    ],
)
def test_bad_directions_are_refused(directions, message):
    with pytest.raises(InputError, match=message):
        make(directions=directions)


def test_directions_of_another_number_of_objectives_are_refused():
    algorithm = make(directions=das_dennis(2, 6))
    with pytest.raises(ValueError, match="fitness has 3 objectives, directions have 2"):
        jax.eval_shape(lambda: run(0, algorithm))
