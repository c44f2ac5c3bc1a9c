"""The networks that the speed comparisons train: drawn once, the same everywhere."""

import numpy as np

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.cost import cost
from deepmaker_jax.spaces import SPACES

INPUT_SHAPE, NUM_CLASSES = (32, 32, 3), 10
PARAMS = (10_000, 200_000)  # least and most trainable parameters


def population(num: int) -> list[ArchSpec]:
    """Returns the first `num` networks of seed 0 in space `deepmaker` within PARAMS."""
    space, rng = SPACES["deepmaker"](INPUT_SHAPE, NUM_CLASSES), np.random.default_rng(0)
    found: list[ArchSpec] = []
    while len(found) < num:
        arch = space.decode(space.sample(rng, num=1)[0])
        if PARAMS[0] <= cost(arch).params <= PARAMS[1]:
            found.append(arch)
    return found
