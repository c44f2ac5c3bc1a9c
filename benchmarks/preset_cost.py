"""Projects what cifar10's presets `neuropower` and `full` cost, from single training steps.

    python -m benchmarks.preset_cost --out benchmarks/results/preset_cost.json

Times one training step of each space's smallest and largest genome by MACs
(for `full`, of what its own initial population holds) on one core, and
multiplies by the preset's steps. A projection: nothing of it was run. Random
pixels serve as data: a step costs the same.
"""

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

from deepmaker_jax.execute import runtime

runtime.one_thread()  # before JAX starts

import numpy as np  # noqa: E402

from benchmarks.record import publish  # noqa: E402
from configs import cifar10  # noqa: E402
from deepmaker_jax.arch import ArchSpec  # noqa: E402
from deepmaker_jax.config import Config  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.feasible import make  # noqa: E402
from deepmaker_jax.spaces import SPACES  # noqa: E402
from deepmaker_jax.train import Split, train  # noqa: E402

TRAIN_IMAGES, SHAPE, CLASSES = 50_000, (32, 32, 3), 10
STEPS = 3  # timed; one before them warms up


def step_seconds(arch: ArchSpec, config: Config) -> tuple[float, float]:
    """Returns (seconds of one training step, seconds to compile it)."""
    size = config.train.batch_size
    rng = np.random.default_rng(0)
    data = Split(
        rng.integers(0, 256, (size, *SHAPE)).astype(np.uint8),
        rng.integers(0, CLASSES, size).astype(np.int32),
    )
    settings = dataclasses.replace(config.train, crop=config.train.crop or 0, flip=False)
    times: list[float] = []
    trained = train(
        arch,
        data,
        settings=settings,
        num_epochs=STEPS + 1,  # an epoch is one step here
        seed=0,
        input_scale=np.ones(3, np.float32),
        on_epoch=lambda epoch, loss: times.append(time.perf_counter()),
    )
    return (times[-1] - times[0]) / STEPS, trained.compile_seconds


def population(config: Config) -> list[ArchSpec]:
    """Returns every architecture of a small space, else the preset's initial population."""
    space = SPACES[config.space.name](SHAPE, CLASSES)
    feasible = make(space, config.limits, spread="params")
    if space.num_genomes < 2_000:
        return [space.decode(genome) for genome in feasible.everything]
    rng = np.random.Generator(np.random.Philox(key=[config.seed, 0]))
    return [space.decode(g) for g in feasible.sample(rng, num=config.search.population)]


def project(preset: Callable[[], Config]) -> dict[str, Any]:
    """Returns the measured steps and the projected core-hours of a preset."""
    config = preset()
    archs = sorted(population(config), key=lambda arch: cost(arch).macs)
    images = TRAIN_IMAGES * (1 - config.validation_share)
    steps = images / config.train.batch_size * config.search.epochs
    candidates = config.search.population * config.search.generations
    figures: dict[str, Any] = {"candidates": candidates, "steps_per_candidate": round(steps)}
    for name, arch in (("smallest", archs[0]), ("largest", archs[-1])):
        seconds, compile_seconds = step_seconds(arch, config)
        figures[name] = {
            "params": cost(arch).params,
            "macs": cost(arch).macs,
            "step_seconds": round(seconds, 4),
            "compile_seconds": round(compile_seconds, 1),
        }
        figures[f"projected_core_hours_if_all_were_{name}"] = round(
            candidates * (steps * seconds + compile_seconds) / 3600, 1
        )
    return figures


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    names = ("neuropower", "full")
    publish({name: project(cifar10.PRESETS[name]) for name in names}, args.out)


if __name__ == "__main__":
    main()
