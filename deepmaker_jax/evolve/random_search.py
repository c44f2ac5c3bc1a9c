"""Random search on NSGA-II's interface: the baseline that a search must beat."""

import jax
import jax.numpy as jnp

from deepmaker_jax.evolve.nsga2 import NSGA2


class RandomSearch(NSGA2):
    """Asks for uniformly drawn genomes, whatever has been told.

    Settings, state and `tell` are those of `NSGA2`: the state's population is an
    elitist archive of the best rows so far, to be compared with NSGA-II's as it
    is. Both rates in the params have no effect.

    Uniform genomes of a dense space are nearly all large networks, so the host loop
    brings each to a size as it does in the first generation: `samples_only`.

    Source: Bergstra and Bengio 2012, as a baseline.
    """

    samples_only = True

    def _ask(self, key, state, params):
        shape = (self.population_size, self.num_dims)
        num_choices = jnp.asarray(self.num_choices, jnp.int32)[None, :]
        return jax.random.randint(key, shape, 0, num_choices, jnp.int32), state
