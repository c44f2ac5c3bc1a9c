"""NSGA-II in evosax's style of use, on a problem whose Pareto set is known.

The problem: genes of three choices; minimise how many genes follow the leading
2s, and how many precede the trailing 0s. Its Pareto set is 2...20...0, one
genome for each place of the step. (With two choices: LOTZ, Laumanns et al. 2004.)
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepmaker_jax.errors import InputError
from deepmaker_jax.evolve import NSGA2, RandomSearch, pareto
from deepmaker_jax.evolve.hypervolume import hypervolume

G = 8
N = 24
NUM_CHOICES = (3,) * G
PARETO_SET = {(2,) * ones + (0,) * (G - ones) for ones in range(G + 1)}


def evaluate(genomes):
    leading = jnp.cumprod(genomes == 2, axis=1).sum(1)
    trailing = jnp.cumprod((genomes == 0)[:, ::-1], axis=1).sum(1)
    return jnp.stack([G - leading, G - trailing], axis=1).astype(jnp.float32)


def make(algorithm=NSGA2, *, size=N, genes=G, **settings):
    solution = jnp.zeros(genes, jnp.int32)
    return algorithm(size, solution, num_choices=(3,) * genes, **settings)


def genomes_of(key, num=N, genes=G):
    return jax.random.randint(key, (num, genes), 0, 3)


@partial(jax.jit, static_argnames=("algorithm", "num_generations"))
def run(key, algorithm, num_generations):
    params = algorithm.default_params
    key_first, key_rest = jax.random.split(key)
    population = genomes_of(key_first)
    state = algorithm.init(key_first, population, evaluate(population), params)

    def step(state, key):
        key_ask, key_tell = jax.random.split(key)
        population, state = algorithm.ask(key_ask, state, params)
        state, metrics = algorithm.tell(key_tell, population, evaluate(population), state, params)
        return state, metrics

    return jax.lax.scan(step, state, jax.random.split(key_rest, num_generations))


NSGA = make()
RANDOM = make(RandomSearch)


@pytest.mark.parametrize("crossover", ["uniform", "two_point"])
def test_finds_the_whole_pareto_set_inside_jit_and_scan(crossover):
    algorithm = NSGA if crossover == "uniform" else make(crossover=crossover)
    state, _ = run(jax.random.key(0), algorithm, 80)
    first = np.asarray(state.population)[np.asarray(state.rank) == 0].tolist()
    assert set(map(tuple, first)) == PARETO_SET


def test_beats_random_search_in_hypervolume_at_equal_evaluations():
    for seed in range(5):
        ours, theirs = (
            hypervolume(np.asarray(run(jax.random.key(seed), algorithm, 80)[0].fitness) / G)
            for algorithm in (NSGA, RANDOM)
        )
        # The Pareto set dominates 0.4375 of the box of 1.
        assert ours > 0.4 > 0.3 > theirs


def test_same_key_gives_the_same_bits_and_another_key_another_run():
    first, again, other = (run(jax.random.key(seed), NSGA, 80)[0] for seed in (0, 0, 1))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (np.asarray(first.population) != np.asarray(other.population)).any()


def test_ask_and_tell_step_by_step_equal_the_scan():
    state, metrics = run(jax.random.key(2), NSGA, 4)
    key_first, key_rest = jax.random.split(jax.random.key(2))
    population = genomes_of(key_first)
    params = NSGA.default_params
    step_state = NSGA.init(key_first, population, evaluate(population), params)
    for index, key in enumerate(jax.random.split(key_rest, 4)):
        key_ask, key_tell = jax.random.split(key)
        population, step_state = NSGA.ask(key_ask, step_state, params)
        fitness = evaluate(population)
        step_state, step_metrics = NSGA.tell(key_tell, population, fitness, step_state, params)
        for name, value in step_metrics.items():
            np.testing.assert_array_equal(value, metrics[name][index])
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(step_state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(state.generation_counter) == 4


def test_shapes_and_dtypes_hold_through_init_ask_and_tell():
    genomes = np.asarray(genomes_of(jax.random.key(0)), np.int64)
    params = NSGA.default_params
    state = NSGA.init(jax.random.key(0), genomes, np.asarray(evaluate(genomes), float), params)
    for _ in range(3):
        population, state = NSGA.ask(jax.random.key(1), state, params)
        assert (population.shape, population.dtype) == ((N, G), jnp.int32)
        assert 0 <= population.min() <= population.max() < 3
        state, _ = NSGA.tell(jax.random.key(2), population, evaluate(population), state, params)
        expected = {
            "population": ((N, G), jnp.int32),
            "fitness": ((N, 2), jnp.float32),
            "rank": ((N,), jnp.int32),
            "crowding": ((N,), jnp.float32),
            "best_solution": ((2, G), jnp.int32),
            "best_fitness": ((2,), jnp.float32),
            "generation_counter": ((), jnp.int32),
        }
        found = {
            name: (getattr(state, name).shape, getattr(state, name).dtype) for name in expected
        }
        assert found == expected


def test_evosax_base_interface_is_kept():
    params = NSGA.default_params
    assert (params.crossover_rate, params.mutation_rate) == (0.9, 1 / G)
    population, fitness = jnp.zeros((N, G), jnp.int32), jnp.zeros((N, 2))
    state = NSGA.init(jax.random.key(0), population, fitness, params)
    assert NSGA.get_best_solution(state).shape == (G,)
    assert NSGA.get_population(state).shape == (N, G)
    metrics = NSGA.metrics_fn(jax.random.key(0), population, fitness, state, params)
    assert {
        "generation_counter",
        "best_fitness",
        "best_solution",
        "best_fitness_in_generation",
        "best_solution_in_generation",
    } <= set(metrics)


def small(m, size=6, **settings):
    """Returns an algorithm of two genes with 3 choices, and an evaluated start."""
    algorithm = make(size=size, genes=2, **settings)
    population = jnp.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
    fitness = jnp.asarray(np.random.default_rng(m).random((6, m)), jnp.float32)
    return algorithm, population, fitness, algorithm.default_params


@pytest.mark.parametrize("m", [1, 2, 5])
def test_tell_keeps_the_survivors_of_parents_and_children(m):
    algorithm, parents, parents_fitness, params = small(m)
    children = jnp.array([[2, 0], [2, 1], [2, 2]])
    fitness = jnp.asarray(np.random.default_rng(50).random((3, m)), jnp.float32)
    fitness = fitness.at[0, 0].set(jnp.nan)
    start = algorithm.init(jax.random.key(0), parents, parents_fitness, params)
    state, _ = algorithm.tell(jax.random.key(0), children, fitness, start, params)
    merged = jnp.concatenate([start.fitness, fitness])
    kept = pareto.survivors(merged, merged, num=6)
    np.testing.assert_array_equal(state.fitness, merged[kept.index])
    np.testing.assert_array_equal(
        state.population, jnp.concatenate([start.population, children])[kept.index]
    )
    np.testing.assert_array_equal(state.rank, kept.rank)
    np.testing.assert_array_equal(state.crowding, kept.crowding)


def test_init_with_more_rows_keeps_the_best():
    algorithm, population, fitness, params = small(1, size=2)
    state = algorithm.init(jax.random.key(0), population, fitness, params)
    np.testing.assert_array_equal(state.fitness[:, 0], jnp.sort(fitness[:, 0])[:2])


def test_single_objective_best_solution_is_the_minimum():
    algorithm, population, fitness, params = small(1)
    state = algorithm.init(jax.random.key(0), population, fitness, params)
    best = population[jnp.argmin(fitness[:, 0])]
    np.testing.assert_array_equal(algorithm.get_best_solution(state), best)
    np.testing.assert_array_equal(state.best_solution, best[None, :])


def test_best_holds_the_least_finite_value_of_each_objective_and_its_genome():
    algorithm, population, _, params = small(2)
    nan, inf = jnp.nan, jnp.inf
    fitness = jnp.array([[3.0, 3.0], [4.0, 2.0], [0.0, nan], [-inf, 9.0], [nan, nan], [inf, 0.0]])
    state = algorithm.init(jax.random.key(0), population, fitness, params)
    np.testing.assert_array_equal(state.best_fitness, [3, 2])
    np.testing.assert_array_equal(state.best_solution, [[0, 0], [0, 1]])
    told = jnp.array([[2, 0], [2, 1], [2, 2]])
    values = jnp.array([[1.0, 5.0], [nan, 0.0], [3.0, 2.0]])
    state, metrics = algorithm.tell(jax.random.key(0), told, values, state, params)
    np.testing.assert_array_equal(state.best_fitness, [1, 2])
    np.testing.assert_array_equal(state.best_solution, [[2, 0], [0, 1]])
    np.testing.assert_array_equal(metrics["best_fitness_in_generation"], [1, 2])
    np.testing.assert_array_equal(metrics["best_solution_in_generation"], [[2, 0], [2, 2]])
    assert int(metrics["num_failed"]) == 1
    assert int(metrics["num_first_front"]) == int((state.rank == 0).sum()) == 2


def test_failed_rows_never_displace_finite_ones_and_never_end_the_run():
    algorithm, population, fitness, params = small(2)
    start = algorithm.init(jax.random.key(0), population, fitness, params)
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        failed = fitness.at[:, 0].set(bad)
        state, _ = algorithm.tell(jax.random.key(0), population + 1, failed, start, params)
        np.testing.assert_array_equal(state.population, start.population)
        np.testing.assert_array_equal(state.best_fitness, start.best_fitness)
    state = algorithm.init(jax.random.key(0), population, jnp.full((6, 2), jnp.nan), params)
    np.testing.assert_array_equal(state.best_fitness, [jnp.inf, jnp.inf])
    np.testing.assert_array_equal(state.best_solution, jnp.zeros((2, 2)))
    children, state = algorithm.ask(jax.random.key(1), state, params)
    state, _ = algorithm.tell(jax.random.key(2), children, fitness, state, params)
    assert bool(jnp.isfinite(state.fitness).all())


def test_padding_a_generation_with_nan_fitness_changes_nothing():
    algorithm, population, fitness, params = small(2)
    start = algorithm.init(jax.random.key(0), population, fitness, params)
    told, values = population + 1, fitness[::-1] * 0.9
    short, _ = algorithm.tell(jax.random.key(0), told[:4], values[:4], start, params)
    padded, _ = algorithm.tell(
        jax.random.key(0), told.at[4:].set(0), values.at[4:].set(jnp.nan), start, params
    )
    np.testing.assert_array_equal(short.population, padded.population)
    np.testing.assert_array_equal(short.fitness, padded.fitness)


def test_repeated_rows_survive_only_where_distinct_ones_do_not_suffice():
    algorithm, population, fitness, params = small(2)
    twice = jnp.tile(population[:3], (2, 1))
    start = algorithm.init(jax.random.key(0), twice, jnp.tile(fitness[:3], (2, 1)), params)
    np.testing.assert_array_equal(start.rank == 6, [False] * 3 + [True] * 3)
    told, values = population[3:], fitness[3:] + 9  # dominated by all, but new
    state, _ = algorithm.tell(jax.random.key(0), told, values, start, params)
    assert sorted(map(tuple, state.population.tolist())) == list(map(tuple, population.tolist()))
    # A second measurement of a genome is no repeat.
    state, _ = algorithm.tell(jax.random.key(0), population[:3], fitness[:3] - 9, state, params)
    assert int((state.fitness < 0).all(1).sum()) == 3


def test_state_holds_the_genomes_told_not_those_asked_for():
    state, _ = run(jax.random.key(3), NSGA, 4)
    _, state = NSGA.ask(jax.random.key(0), state, NSGA.default_params)
    told = jnp.ones((N, G), jnp.int32).at[:, 0].set(jnp.arange(N, dtype=jnp.int32) % 3)
    fitness = -jnp.ones((N, 2)) - jnp.arange(N)[:, None] % 3
    state, _ = NSGA.tell(jax.random.key(0), told, fitness, state, NSGA.default_params)
    np.testing.assert_array_equal(state.population[:3], [[2] + [1] * 7, [1] * 8, [0] + [1] * 7])
    np.testing.assert_array_equal(state.fitness[3:], evaluate(state.population[3:]))


def test_without_crossover_and_mutation_children_are_parents_that_win_tournaments():
    algorithm, population, _, params = small(1)
    fitness = jnp.arange(6.0)[:, None]
    state = algorithm.init(jax.random.key(0), population, fitness, params)
    params = params.replace(crossover_rate=0.0, mutation_rate=0.0)
    seen = set()
    for seed in range(40):
        children, _ = algorithm.ask(jax.random.key(seed), state, params)
        seen |= set(map(tuple, children.tolist()))
    # The worst row loses every tournament; every other one wins some.
    assert seen == set(map(tuple, population[:5].tolist()))


def test_nothing_compiles_again_over_generations_and_rates():
    traces = []

    def scale(fitness):
        traces.append(fitness.shape)
        return fitness / G

    algorithm = make(scale=scale)
    population = genomes_of(jax.random.key(0))
    params = algorithm.default_params
    state = algorithm.init(jax.random.key(0), population, evaluate(population), params)
    for generation in range(5):
        params = params.replace(mutation_rate=1.0 / (generation + 2))
        population, state = algorithm.ask(jax.random.key(generation), state, params)
        fitness = evaluate(population)
        state, _ = algorithm.tell(jax.random.key(generation), population, fitness, state, params)
    assert traces == [(N, 2), (2 * N, 2)]


def test_scale_decides_crowding_and_not_rank():
    fitness = jnp.array([[1.0, 1024.0], [2.0, 64.0], [3.0, 16.0], [6.0, 4.0], [9.0, 1.0], [9, 99]])
    log_sizes = small(2, scale=lambda f: f.at[:, 1].set(jnp.log2(f[:, 1])))
    for (algorithm, population, _, params), third in ((small(2), 1), (log_sizes, 3)):
        state = algorithm.init(jax.random.key(0), population, fitness, params)
        np.testing.assert_array_equal(state.rank, [0, 0, 0, 0, 0, 1])
        np.testing.assert_array_equal(state.population[2], population[third])


def test_own_metrics_take_the_place_of_the_default():
    algorithm, population, fitness, params = small(
        2, metrics_fn=lambda key, population, fitness, state, params: {"told": fitness.sum()}
    )
    state = algorithm.init(jax.random.key(0), population, fitness, params)
    _, metrics = algorithm.tell(jax.random.key(0), population, fitness, state, params)
    assert set(metrics) == {"told"}
    np.testing.assert_allclose(metrics["told"], fitness.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"solution": jnp.zeros(2, jnp.float32)},
            r"solution has shape \(2,\) and dtype float32; give one",
        ),
        (
            {"solution": jnp.zeros((2, 2), jnp.int32)},
            r"solution has shape \(2, 2\) and dtype int32",
        ),
        ({"num_choices": (3,)}, r"num_choices=\(3,\) must be 2 ints >= 1, one per gene"),
        ({"num_choices": (3, 0)}, r"num_choices=\(3, 0\) must be 2 ints >= 1"),
        ({"population_size": 0}, "population_size=0 must be at least 1"),
        ({"ordered": (True,)}, r"ordered=\(True,\) must be 2 bools, one per gene"),
        ({"crossover": "one_point"}, r"crossover='one_point' is unknown; take one of \['uniform'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    good = {"population_size": 4, "solution": jnp.zeros(2, jnp.int32), "num_choices": (3, 3)}
    with pytest.raises(InputError, match=message):
        NSGA2(**{**good, **settings})


@pytest.mark.parametrize(
    ("genomes", "fitness", "message"),
    [
        (np.zeros((6, 3), int), np.zeros((6, 2)), r"population has shape \(6, 3\), not \(n, 2\)"),
        (
            np.zeros((6, 2), np.float32),
            np.zeros((6, 2)),
            "population has dtype float32; genomes are int32",
        ),
        (np.zeros((6, 2), int), np.zeros(6), r"fitness has shape \(6,\); give \(6, m\)"),
        (np.zeros((6, 2), int), np.zeros((5, 2)), r"fitness has shape \(5, 2\); give \(6, m\)"),
        (np.zeros((5, 2), int), np.zeros((5, 2)), "init got 5 rows; give population_size=6"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(genomes, fitness, message):
    algorithm, *_, params = small(2)
    with pytest.raises(ValueError, match=message):
        algorithm.init(jax.random.key(0), genomes, fitness, params)


def test_another_number_of_objectives_than_the_state_has_is_refused():
    algorithm, population, fitness, params = small(2)
    state = algorithm.init(jax.random.key(0), population, fitness, params)
    with pytest.raises(ValueError, match="fitness has 3 objectives, the state 2"):
        algorithm.tell(jax.random.key(0), population, jnp.zeros((6, 3)), state, params)


def test_ordered_genes_take_small_steps_and_the_others_any():
    algorithm = NSGA2(200, jnp.zeros(2, jnp.int32), num_choices=(1001, 1001), ordered=(True, False))
    population = jnp.full((200, 2), 500, jnp.int32)
    params = algorithm.default_params.replace(mutation_rate=1.0)
    state = algorithm.init(jax.random.key(0), population, jnp.zeros((200, 1)), params)
    children = np.asarray(algorithm.ask(jax.random.key(1), state, params)[0]) - 500
    assert (children != 0).all()
    assert np.abs(children[:, 0]).max() < 300 < np.abs(children[:, 1]).max()
    assert np.median(np.abs(children), axis=0)[0] < 50


def test_each_childs_parents_are_the_rows_its_genes_come_from():
    algorithm, population, fitness, params = small(2)
    state = algorithm.init(jax.random.key(0), population, fitness, params)
    assert (np.asarray(state.parents) == -1).all()
    params = params.replace(mutation_rate=0.0)
    children, asked = algorithm.ask(jax.random.key(1), state, params)
    pairs = np.asarray(state.population)[np.asarray(asked.parents)]
    assert pairs.shape == (len(children), 2, children.shape[1])
    assert (np.asarray(children)[:, None, :] == pairs).any(axis=1).all()
