"""The networks that measurements look at: drawn by seed, the same everywhere."""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from configs import cifar10
from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.cost import cost
from deepmaker_jax.execute import Outcome, Processes, Unit
from deepmaker_jax.execute.unit import longest_first
from deepmaker_jax.feasible import Feasible, make
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


def part_of_small() -> Feasible:
    """Returns the part of the space that preset `small` of CIFAR-10 searches."""
    config = cifar10.small()
    genes = dict(text.split("=") for text in config.space.only)
    space = SPACES["deepmaker"](INPUT_SHAPE, NUM_CLASSES)
    space = space.narrow({gene: choices.split("|") for gene, choices in genes.items()})
    return make(space, config.limits, spread="flash_bytes")


def of_small(num: int) -> list[ArchSpec]:
    """Returns the first `num` networks of seed 0 that preset `small` of CIFAR-10 would draw."""
    part = part_of_small()
    return [part.space.decode(g) for g in part.sample(np.random.default_rng(0), num=num)]


def train_all(
    executor: Processes,
    archs: Sequence[ArchSpec],
    *,
    num_epochs: int = 1,
) -> tuple[float, list[Outcome]]:
    """Trains and evaluates networks as a search does; returns (seconds, their outcomes in order).

    Args:
      executor: its workers are there already.
      archs: submitted as a search submits its candidates, the longest first.
      num_epochs: that each is trained.

    Raises:
      RuntimeError: one failed or diverged.
    """
    units = [Unit(str(i), arch, "search", num_epochs) for i, arch in enumerate(archs)]
    began = time.perf_counter()
    for unit in longest_first(units):
        executor.submit(unit)
    done = {r.id: r for r in executor.results() if isinstance(r, Outcome)}
    seconds = time.perf_counter() - began
    bad = [f"network {r.id} {r.status}: {r.reason}" for r in done.values() if r.status != "ok"]
    if bad or len(done) != len(archs):
        raise RuntimeError(f"{len(done)} of {len(archs)} networks ended; {'; '.join(bad)}")
    return seconds, [done[str(i)] for i in range(len(archs))]
