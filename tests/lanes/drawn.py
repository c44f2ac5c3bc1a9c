"""Networks drawn from the space, with weights that no norm hides, for the tests of lanes."""

import jax
import numpy as np

from deepmaker_jax.cost import cost
from deepmaker_jax.lanes.size_class import table
from deepmaker_jax.lanes.wiring import DoesNotFitError, fit
from deepmaker_jax.spaces import SPACES
from deepmaker_jax.train.init import init


def draw(shape, *, num, kernel=None, size_class=None, at_least=0, most=200_000, seed=0):
    """Returns the first `num` networks of the space that meet the wishes."""
    space, rng = SPACES["deepmaker"](shape, 10), np.random.default_rng(seed)
    found = []
    while len(found) < num:
        arch = space.decode(space.sample(rng, num=1)[0])
        if kernel not in (None, arch.stages[0].kernel):
            continue
        if not at_least <= cost(arch).params <= most:
            continue
        if size_class is not None:
            try:
                fit(arch, size_class)
            except DoesNotFitError:
                continue
        found.append(arch)
    return found


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
