"""NSGA-II for integer genomes, as an evosax algorithm.

Used in evosax's style, also inside `jit` and `lax.scan`:

    algorithm = NSGA2(population_size=32, solution=jnp.zeros(g, jnp.int32), num_choices=...)
    params = algorithm.default_params
    state = algorithm.init(key, population, fitness, params)    # an evaluated population
    population, state = algorithm.ask(key, state, params)       # int32[n, g]
    state, metrics = algorithm.tell(key, population, fitness, state, params)

Where it differs from evosax's own algorithms: fitness is (n, m); `best_fitness`
holds one value and `best_solution` one genome *per objective*; genomes stay
int32. evosax's base class would accept (n, m) fitness and keep a wrong best, so
`init` and `tell` are replaced whole.

With `num_constraints` = c the fitness has m + c columns: m objectives, then c
constraints, each satisfied where <= 0, by how much it is broken where above. The
broken ones are added up, so give them in comparable units (shares of the limit).
An infeasible row without measured objectives takes any finite ones: they are not
looked at, whereas NaN would make it a failure, which comes after all infeasible.

Fitness is kept as float32: integers up to 2**24 are exact, larger ones may tie
after rounding. Give large counts as floats (an int64 beyond 2**31 wraps when JAX
takes it in), and read exact values back from the ledger, not from the state.

Source: Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective
genetic algorithm: NSGA-II", IEEE TEC 6(2), 2002.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from evosax.algorithms.population_based import base
from flax import struct

from deepmaker_jax.errors import InputError
from deepmaker_jax.evolve import operators, pareto
from deepmaker_jax.types import Array

CROSSOVERS = {
    "uniform": operators.uniform_crossover,
    "two_point": operators.two_point_crossover,
}


@struct.dataclass
class State(base.State):
    """What goes from generation to generation, the best row first.

    Attributes:
      best_solution: int32[m, g]; row k reached `best_fitness[k]` first. Before
        any finite, feasible evaluation: the constructor's `solution`.
      best_fitness: float32[m], the least finite value of each objective so far
        in feasible rows (the ideal point, in general no candidate's fitness);
        inf before any.
      generation_counter: int32[], tells so far.
      population: int32[n, g].
      fitness: float32[n, m + c], raw, NaN and inf as told.
      rank: int32[n], 0 is the first front; a repeated row has the number of rows
        that were selected from, which is past every front.
      crowding: float32[n], within the front that the row was selected from.
      parents: int32[n, 2], rows that each child of the last ask came from, of
        the `population` that was there then; -1 where it came from none.
    """

    best_fitness: Array
    generation_counter: Array
    rank: Array
    crowding: Array
    parents: Array


@struct.dataclass
class Params(base.Params):
    """Rates of variation; may change from generation to generation.

    Attributes:
      crossover_rate: float32[] or a float, chance, 0..1, that a pair of parents is crossed.
      mutation_rate: float32[] or a float, chance, 0..1, per gene.
    """

    crossover_rate: Array
    mutation_rate: Array


def identity(fitness):
    """Returns the fitness: raw values are the scaled ones."""
    return fitness


def metrics_fn(key, population, fitness, state, params):
    """Returns evosax's metrics, one entry per objective where it has one number.

    Args:
      key: PRNG key, unused.
      population: int32[k, g], as told.
      fitness: float32[k, m + c], as told.
      state: `State` after selection; `generation_counter` still counts the
        generations before this one, as in evosax.
      params: `Params`, unused.

    Returns:
      Dict: generation_counter int32[]; best_fitness and
      best_fitness_in_generation float32[m], the least finite values of feasible
      rows, inf without any; best_solution and best_solution_in_generation int32[m, g],
      where these were reached; num_first_front and num_failed int32[], rows of
      the state in the first front, and rows told with a NaN or infinite value.
    """
    del key, params
    best_fitness, best_solution = _best(population, fitness, len(state.best_fitness))
    return {
        "generation_counter": state.generation_counter,
        "best_fitness_in_generation": best_fitness,
        "best_solution_in_generation": best_solution,
        "best_fitness": state.best_fitness,
        "best_solution": state.best_solution,
        "num_first_front": jnp.sum(state.rank == 0, dtype=jnp.int32),
        "num_failed": jnp.sum(~jnp.isfinite(fitness).all(-1), dtype=jnp.int32),
    }


class NSGA2(base.PopulationBasedAlgorithm):
    """Binary tournament by rank then crowding; parents and children merged.

    Differs from the paper in one point: a row that repeats an earlier row's genome
    and fitness survives only where distinct rows do not suffice: in a space of
    few genomes copies would fill the population.

    An instance is a static argument of its jitted methods, compared by identity
    as in evosax: make one, keep it, and do not change its attributes.
    """

    def __init__(
        self,
        population_size: int,
        solution: Array,
        *,
        num_choices: tuple[int, ...],
        scale: Callable[[Array], Array] = identity,
        crossover: str = "uniform",
        num_constraints: int = 0,
        ordered: tuple[bool, ...] | None = None,
        metrics_fn: Callable = metrics_fn,
    ):
        """Checks the settings.

        Args:
          population_size: n, parents kept and children asked for.
          solution: int[g], any genome; its values are not used for the search.
          num_choices: g ints >= 1, the number of choices of each gene.
          scale: from raw objectives Float[k, m] to the scaled axes that crowding
            is measured on; traceable by JAX, monotone in each column.
          crossover: "uniform" or "two_point".
          num_constraints: c >= 0, how many last columns of the fitness told are
            constraints (see the module's docstring).
          ordered: g bools, True where the choices of a gene are in an order, along
            which mutation steps (`operators.mutate`); None: none are.
          metrics_fn: like `metrics_fn` of this module.

        Raises:
          InputError: if a setting breaks its rule.
        """
        solution = jnp.asarray(solution)
        if solution.ndim != 1 or not jnp.issubdtype(solution.dtype, jnp.integer):
            raise InputError(
                f"solution has shape {solution.shape} and dtype {solution.dtype}; "
                "give one genome, int32[g]"
            )
        num_choices = tuple(int(count) for count in num_choices)
        if len(num_choices) != solution.size or min(num_choices, default=0) < 1:
            raise InputError(
                f"num_choices={num_choices} must be {solution.size} ints >= 1, one per gene"
            )
        if population_size < 1:
            raise InputError(f"population_size={population_size} must be at least 1")
        if crossover not in CROSSOVERS:
            raise InputError(f"crossover={crossover!r} is unknown; take one of {list(CROSSOVERS)}")
        if num_constraints < 0:
            raise InputError(f"num_constraints={num_constraints} must not be negative")
        if ordered is not None and len(ordered) != solution.size:
            raise InputError(f"ordered={ordered} must be {solution.size} bools, one per gene")
        super().__init__(population_size, solution.astype(jnp.int32), metrics_fn=metrics_fn)
        self.num_choices = num_choices
        self.scale = scale
        self.crossover = crossover
        self.num_constraints = num_constraints
        self.ordered = ordered

    @property
    def _default_params(self) -> Params:
        return Params(crossover_rate=0.9, mutation_rate=1.0 / self.num_dims)

    @partial(jax.jit, static_argnames=("self",))
    def init(self, key, population, fitness, params) -> State:
        """Starts from an evaluated population and keeps its best rows.

        Args:
          key: PRNG key, for survival where it draws (`NSGA3`).
          population: int[k, g], k >= population_size.
          fitness: [k, m + c], raw, minimised; a row with NaN or inf is a failure.
          params: `Params`, unused.

        Returns:
          `State`.

        Raises:
          ValueError: if a shape or dtype breaks its rule, at trace time.
        """
        del params
        population, fitness = self._told(population, fitness)
        if len(population) < self.population_size:
            raise ValueError(
                f"init got {len(population)} rows; give population_size="
                f"{self.population_size} or more"
            )
        num_objectives = fitness.shape[1] - self.num_constraints
        state = State(
            best_solution=jnp.tile(self.solution_flat[None, :], (num_objectives, 1)),
            best_fitness=jnp.full(num_objectives, jnp.inf, jnp.float32),
            generation_counter=jnp.zeros((), jnp.int32),
            population=population,
            fitness=fitness,
            rank=None,
            crowding=None,
            parents=jnp.full((self.population_size, 2), -1, jnp.int32),
        )
        return self._select(key, _remember(state, population, fitness))

    @partial(jax.jit, static_argnames=("self",))
    def tell(self, key, population, fitness, state, params):
        """Merges the evaluated rows with the parents and keeps the best.

        The rows told need not be those asked for: the host may have repaired
        or replaced them, or evaluated another number of them (which compiles
        anew; a fixed number padded with NaN fitness does not).

        Args:
          key: PRNG key, for `metrics_fn`, and for survival where it draws.
          population: int[k, g], the genomes that were really evaluated.
          fitness: [k, m + c], raw, minimised; a row with NaN or inf is a failure.
          state: `State`.
          params: `Params`.

        Returns:
          The next `State`, and the metrics.

        Raises:
          ValueError: if a shape or dtype breaks its rule, at trace time.
        """
        population, fitness = self._told(population, fitness)
        if fitness.shape[1] != state.fitness.shape[1]:
            raise ValueError(
                f"fitness has {fitness.shape[1] - self.num_constraints} objectives, the state "
                f"{state.fitness.shape[1] - self.num_constraints}"
            )
        state = _remember(state, population, fitness)
        state = self._select(
            key,
            state.replace(
                population=jnp.concatenate([state.population, population]),
                fitness=jnp.concatenate([state.fitness, fitness]),
            ),
        )
        metrics = self.metrics_fn(key, population, fitness, state, params)
        return state.replace(generation_counter=state.generation_counter + 1), metrics

    def get_best_solution(self, state):
        """Returns one member of the first front, int32[g]: of NSGA-II the least crowded.

        It is the best genome for m = 1 only. With more objectives see
        `best_solution` (one genome per objective) and the rows of rank 0.
        """
        return state.population[0]

    def _ask(self, key, state, params):
        key_parents, key_crossover, key_mutation = jax.random.split(key, 3)
        rank, crowding = self._mating_order(state)
        parents = operators.tournament(key_parents, rank, crowding, num=2 * self.population_size)
        pairs = jnp.stack(jnp.split(parents, 2), axis=1).astype(jnp.int32)
        first, second = jnp.split(state.population[parents], 2)
        children = CROSSOVERS[self.crossover](
            key_crossover, first, second, rate=params.crossover_rate
        )
        children = operators.mutate(
            key_mutation,
            children,
            num_choices=self.num_choices,
            rate=params.mutation_rate,
            ordered=self.ordered,
        )
        return children, state.replace(parents=pairs)

    def _select(self, key, state):
        kept = self._survivors(key, state, ~pareto.repeats(state.population, state.fitness))
        return state.replace(
            population=state.population[kept.index],
            fitness=state.fitness[kept.index],
            rank=kept.rank,
            crowding=kept.crowding,
        )

    def _survivors(self, key, state, valid):
        """Returns the `Survivors` of the state's rows, by what may depend on a key."""
        del key
        objectives, violation = self._parts(state.fitness)
        return pareto.survivors(
            objectives,
            self.scale(objectives),
            num=self.population_size,
            valid=valid,
            violation=violation,
        )

    def _mating_order(self, state):
        """Returns rank, int32[n], and crowding, Float[n], that tournaments go by."""
        return state.rank, state.crowding

    def _parts(self, fitness):
        """Returns the objectives, Float[k, m], and total violations, Float[k], None if c = 0."""
        if not self.num_constraints:
            return fitness, None
        num_objectives = fitness.shape[1] - self.num_constraints
        return fitness[:, :num_objectives], _violation(fitness[:, num_objectives:])

    def _told(self, population, fitness):
        population, fitness = jnp.asarray(population), jnp.asarray(fitness, jnp.float32)
        if population.ndim != 2 or population.shape[1] != self.num_dims:
            raise ValueError(f"population has shape {population.shape}, not (n, {self.num_dims})")
        if not jnp.issubdtype(population.dtype, jnp.integer):
            raise ValueError(f"population has dtype {population.dtype}; genomes are int32")
        least = 1 + self.num_constraints
        if fitness.ndim != 2 or len(fitness) != len(population) or fitness.shape[1] < least:
            columns = f"m + {self.num_constraints}" if self.num_constraints else "m"
            raise ValueError(
                f"fitness has shape {fitness.shape}; give ({len(population)}, {columns}), one row "
                "per genome and one column per objective and constraint"
            )
        return population.astype(jnp.int32), fitness


def _violation(constraints):
    """Returns the sum of the broken constraints, Float[k]; NaN where one is not finite."""
    broken = jnp.maximum(constraints, 0)
    return jnp.where(jnp.isfinite(constraints), broken, jnp.nan).sum(-1)


def _best(population, fitness, num_objectives):
    """Returns each objective's least feasible value, Float[m], and its genome, int32[m, g]."""
    usable = jnp.isfinite(fitness).all(-1) & (fitness[:, num_objectives:] <= 0).all(-1)
    objectives = jnp.where(usable[:, None], fitness[:, :num_objectives], jnp.inf)
    return objectives.min(axis=0), population[objectives.argmin(axis=0)]


def _remember(state, population, fitness):
    value, genome = _best(population, fitness, len(state.best_fitness))
    better = value < state.best_fitness
    return state.replace(
        best_fitness=jnp.where(better, value, state.best_fitness),
        best_solution=jnp.where(better[:, None], genome, state.best_solution),
    )
