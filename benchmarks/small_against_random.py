"""Compares the search of cifar10's preset `small` with random search of as many candidates.

    python -m experiments.cifar10 small --data DIR --out RUN
    python -m benchmarks.small_against_random --data DIR --run RUN --random-run RUN2 \
        --out benchmarks/results/cifar10_small/against_random.json

Runs the random search (same space, limits, fidelity, seed and initial
population; about 25 minutes on 2 cores; resumes in RUN2) and prints both
hypervolumes after each generation, with the front's sizes. Validation data only.
"""

import argparse
import pathlib
from typing import Any

import numpy as np

from benchmarks.record import publish
from deepmaker_jax.report import read_run
from deepmaker_jax.report.view import fitness, front_records, hypervolume_trace
from experiments import cifar10


def summary(path: pathlib.Path) -> dict[str, Any]:
    """Returns hypervolume by generation, and the front, of a run's search."""
    view = read_run(path)
    trace = hypervolume_trace(view)
    generations = sorted(set(trace.generation))
    points = fitness(view.objectives, front_records(view))
    return {
        "strategy": view.config["strategy"],
        "candidates": len(view.records),
        "hypervolume": [
            round(float(trace.hypervolume[np.flatnonzero(trace.generation == g)[-1]]), 4)
            for g in generations
        ],
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
    code = cifar10.main(
        [
            "small", "--data", args.data, "--out", str(args.random_run),
            "--search.strategy", "random",
            # Only the search is compared: one epoch of one member ends the run.
            "--final.members", "1", "--final.epochs", "1", "--final.no-export",
        ]
    )  # fmt: skip
    if code:
        raise SystemExit(code)
    publish({"nsga2": summary(args.run), "random": summary(args.random_run)}, args.out)


if __name__ == "__main__":
    main()
