"""Multi-objective search over integer genomes, on evosax's ask/tell interface.

`NSGA2`, `NSGA3` and `RandomSearch` run inside `jit` and `lax.scan`; `pareto`,
`reference` and `operators` are the pure functions they are made of. `front`, `host_rank` and the
module `hypervolume` run on the host.
"""

from deepmaker_jax.evolve.nsga2 import NSGA2, Params, State, metrics_fn
from deepmaker_jax.evolve.nsga3 import NSGA3
from deepmaker_jax.evolve.pareto import (
    Survivors,
    crowding_distance,
    dominates,
    front,
    host_rank,
    non_dominated_rank,
    survivors,
)
from deepmaker_jax.evolve.random_search import RandomSearch
from deepmaker_jax.evolve.reference import das_dennis

__all__ = [
    "NSGA2",
    "NSGA3",
    "Params",
    "RandomSearch",
    "State",
    "Survivors",
    "crowding_distance",
    "das_dennis",
    "dominates",
    "front",
    "host_rank",
    "metrics_fn",
    "non_dominated_rank",
    "survivors",
]
