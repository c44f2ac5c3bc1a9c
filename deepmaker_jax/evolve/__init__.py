"""Multi-objective search over integer genomes, on evosax's ask/tell interface.

`NSGA2` and `RandomSearch` run inside `jit` and `lax.scan`; `pareto` and
`operators` are the pure functions they are made of. `front`, `host_rank` and the
module `hypervolume` run on the host.
"""

from deepmaker_jax.evolve.nsga2 import NSGA2, Params, State, metrics_fn
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

__all__ = [
    "NSGA2",
    "Params",
    "RandomSearch",
    "State",
    "Survivors",
    "crowding_distance",
    "dominates",
    "front",
    "host_rank",
    "metrics_fn",
    "non_dominated_rank",
    "survivors",
]
