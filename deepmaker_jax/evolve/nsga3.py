"""NSGA-III for integer genomes: NSGA-II's interface, survival by reference directions.

Source: Deb and Jain 2014, part I (see `reference`); constraints: Jain and Deb, "An
evolutionary many-objective optimization algorithm using reference-point based
nondominated sorting approach, part II", IEEE TEC 18(4), 2014.
"""

import jax
import jax.numpy as jnp
import numpy as np

from deepmaker_jax.errors import InputError
from deepmaker_jax.evolve import pareto, reference
from deepmaker_jax.evolve.nsga2 import NSGA2
from deepmaker_jax.types import Array


class NSGA3(NSGA2):
    """Shares everything with `NSGA2` but survival and the choice of parents.

    Survivors of the last front that fits in part are chosen by niche, with the key
    of `init` and `tell`. Of two rows drawn as parents the less violated one wins, a
    failed one loses, and else chance decides. `State.crowding` is minus the
    distance from the row's reference direction; no best row but the first front.

    Best with about as many directions as rows in the population (section IV-F).
    """

    def __init__(
        self,
        population_size: int,
        solution: Array,
        *,
        directions,
        fixed_box: bool = False,
        **settings,
    ):
        """Checks the settings.

        Args:
          population_size: n, parents kept and children asked for.
          solution: int[g], any genome; its values are not used for the search.
          directions: Float[h, m], >= 0, none of them 0, such as `das_dennis`.
          fixed_box: normalise by nothing: `scale` leads to axes with ideal 0 and
            reference 1 (as `Objective.scaled` does). Else by the ideal point,
            extreme points and intercepts of what has been told.
          **settings: the others of `NSGA2`.

        Raises:
          InputError: if a setting breaks its rule.
        """
        super().__init__(population_size, solution, **settings)
        directions = np.asarray(directions, np.float64)
        if directions.ndim != 2 or not (directions >= 0).all() or not directions.any(-1).all():
            raise InputError(
                f"directions has shape {directions.shape}; give rows of m numbers >= 0, none all 0"
            )
        self.directions = directions
        self.fixed_box = fixed_box

    def _survivors(self, key, state, valid):
        objectives, violation = self._parts(state.fitness)
        num, num_wanted = objectives.shape[1], self.directions.shape[1]
        if num != num_wanted:
            raise ValueError(f"fitness has {num} objectives, directions have {num_wanted}")
        if self.fixed_box:
            box = (0.0, 1.0)
        else:
            before = self.scale(state.best_fitness[None, :])[0]
            box = (jnp.where(jnp.isfinite(state.best_fitness), before, jnp.inf), None)
        return reference.survivors(
            # The key itself is the metrics'.
            jax.random.fold_in(key, 0),
            objectives,
            self.scale(objectives),
            num=self.population_size,
            directions=self.directions,
            box=box,
            valid=valid,
            violation=violation,
        )

    def _mating_order(self, state):
        objectives, violation = self._parts(state.fitness)
        nothing = jnp.zeros((len(objectives), 1), objectives.dtype)
        rank = pareto.non_dominated_rank(
            jnp.where(jnp.isfinite(objectives).all(-1, keepdims=True), nothing, jnp.nan),
            violation=violation,
        )
        return rank, nothing[:, 0]
