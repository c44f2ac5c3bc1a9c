"""Compares the search of cifar10's preset `small` with a random search that trains as much.

    python -m experiments.cifar10 small --data DIR --out RUN
    python -m benchmarks.small_against_random --data DIR --run RUN --random-run RUN2 \
        --out benchmarks/results/cifar10_small/against_random.json

The random search has the run's own settings, whatever the preset is today: space, limits, sampler,
seed and initial population; it trains every candidate in full, until at least as many training
examples were seen. It takes about 15 minutes on 2 cores and resumes in RUN2. Printed: the
hypervolume of each after each generation, by examples, and the front. Validation data only.
"""

import argparse
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from benchmarks.record import publish
from deepmaker_jax import experiment
from deepmaker_jax.config import from_json
from deepmaker_jax.report import read_run
from deepmaker_jax.report.view import fitness, front_records, hypervolume_trace


def summary(path: pathlib.Path) -> dict[str, Any]:
    """Returns hypervolume and millions of examples by generation, and the front, of a search."""
    view = read_run(path)
    trace = hypervolume_trace(view)
    ends = [np.flatnonzero(trace.generation == g)[-1] for g in sorted(set(trace.generation))]
    points = fitness(view.objectives, front_records(view))
    return {
        "strategy": view.config["strategy"],
        "candidates": len({record["id"] for record in view.records}),
        "hypervolume": [round(float(trace.hypervolume[end]), 4) for end in ends],
        "million_examples": [round(float(trace.cost[end]) / 1e6, 3) for end in ends],
        "front": [[round(float(e), 4), int(size)] for e, size in points],
    }


def main() -> None:
    """Runs random search and publishes the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the CIFAR-10 folder")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="a finished small run")
    parser.add_argument("--random-run", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    view = read_run(args.run)
    config = from_json(view.config["config"])
    a_generation = (
        config.search.population * config.search.epochs * view.config["data"]["num_search"]
    )
    search = dataclasses.replace(
        config.search, strategy="random", rungs=1, oversample=1,
        generations=math.ceil(hypervolume_trace(view).cost[-1] / a_generation),
    )  # fmt: skip
    # Only the search is compared: one epoch of one member ends the run.
    final = dataclasses.replace(config.final, members=1, epochs=1, export=False, seeds=1)
    config = dataclasses.replace(config, search=search, final=final, targets=())
    code = experiment(
        "cifar10", presets={"random": lambda: config}, default="random",
        argv=["--data", args.data, "--out", str(args.random_run)],
    )  # fmt: skip
    if code:
        raise SystemExit(code)
    publish({"small": summary(args.run), "random": summary(args.random_run)}, args.out)


if __name__ == "__main__":
    main()
