"""Networks drawn from the space, with weights that no norm hides, for the tests of lanes."""

import itertools

import jax
import numpy as np

from benchmarks.population import draws
from deepmaker_jax.lanes.size_class import table
from deepmaker_jax.lanes.wiring import choose
from deepmaker_jax.train.init import init


def draw(shape, *, num, kernel=None, size_class=None, at_least=0, most=200_000, seed=0):
    """Returns the first `num` networks of the space that meet the wishes."""

    def wanted(arch):
        of_kernel = kernel in (None, arch.stages[0].kernel)
        return of_kernel and (size_class is None or choose(arch, [size_class]) is not None)

    found = draws(shape, least=at_least, most=most, seed=seed)
    return list(itertools.islice(filter(wanted, found), num))


def random_variables(arch, dtype, seed=0):
    """Returns variables whose norms are not the usual ones and zeros."""
    scale = np.full(arch.input_shape[-1], 1 / 64, np.float32)
    rng = np.random.default_rng(seed)

    def leaf(path, value):
        if path[-1].key in ("scale", "bias"):
            value = value + 0.3 * rng.standard_normal(value.shape)
        if path[-1].key in ("mean", "var"):
            value = value + rng.uniform(0, 0.5, value.shape)
        return np.asarray(value, dtype)

    return jax.tree_util.tree_map_with_path(leaf, init(arch, seed=seed, input_scale=scale))


def named(name, shape=(16, 16, 3)):
    """Returns a size class by name."""
    return next(c for c in table(shape, 10) if c.name == name)
