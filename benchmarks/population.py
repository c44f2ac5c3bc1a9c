"""The networks that measurements look at: drawn by seed, the same everywhere."""

from collections.abc import Iterator

import numpy as np

from configs import cifar10
from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.cost import cost
from deepmaker_jax.feasible import make
from deepmaker_jax.spaces import SPACES

INPUT_SHAPE, NUM_CLASSES = (32, 32, 3), 10
PARAMS = (10_000, 200_000)  # least and most trainable parameters of the speed comparisons


def draws(
    shape: tuple[int, int, int] = INPUT_SHAPE, *, least: int = 0, most: int, seed: int = 0
) -> Iterator[ArchSpec]:
    """Yields random networks of space `deepmaker` with so many trainable parameters, forever."""
    space, rng = SPACES["deepmaker"](shape, NUM_CLASSES), np.random.default_rng(seed)
    while True:
        arch = space.decode(space.sample(rng, num=1)[0])
        if least <= cost(arch).params <= most:
            yield arch


def population(num: int) -> list[ArchSpec]:
    """Returns the first `num` networks of seed 0 within PARAMS."""
    found = draws(least=PARAMS[0], most=PARAMS[1])
    return [next(found) for _ in range(num)]


def of_small(num: int) -> list[ArchSpec]:
    """Returns the first `num` networks of seed 0 that preset `small` of CIFAR-10 would draw."""
    config = cifar10.small()
    genes = dict(text.split("=") for text in config.space.only)
    space = SPACES["deepmaker"](INPUT_SHAPE, NUM_CLASSES)
    space = space.narrow({gene: choices.split("|") for gene, choices in genes.items()})
    feasible = make(space, config.limits, spread="flash_bytes")
    return [space.decode(g) for g in feasible.sample(np.random.default_rng(0), num=num)]
