"""How much more a second core trains: the executor with one worker, and with one per core.

    python -m benchmarks.second_core --data DIR --out benchmarks/results/second_core.json

Trains the first networks of `benchmarks.population` on 4,096 examples of CIFAR-10 each, validation
included, with programs that are compiled beforehand: the two numbers of workers in turn, TURNS
times. About 6 minutes on 2 cores.
"""

import argparse
import os
import pathlib
import statistics
import tempfile

import numpy as np

from benchmarks.population import population, train_all
from benchmarks.record import publish
from deepmaker_jax import program
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.data import load, split
from deepmaker_jax.execute import Processes, Task

NETWORKS, EXAMPLES, TURNS = 8, 4_096, 5
SETTINGS = TrainConfig(batch_size=64, crop=4, flip=True, sgd_learning_rate=0.1)


def main() -> None:
    """Measures both numbers of workers in turn and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the CIFAR-10 folder")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    data = load("cifar10", path=args.data)
    rest, validation = split.train_validation(data, share=0.04, seed=0)
    task = Task(
        data.train_images, data.train_labels, rest[:EXAMPLES], validation,
        np.full(3, 1 / 64, np.float32), SETTINGS, 0, (), (),
    )  # fmt: skip
    cores, archs = program.num_cores(), population(NETWORKS)
    spent: dict[int, list[float]] = {1: [], cores: []}
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
        shared = pathlib.Path(folder)
        executors = {n: Processes(task, num_workers=n, folder=shared / str(n)) for n in spent}
        try:
            for executor in executors.values():
                train_all(executor, archs)  # compiles, loads, starts
            for _ in range(TURNS):
                for n, executor in executors.items():
                    spent[n].append(train_all(executor, archs)[0])
                    print(f"{n} workers: {spent[n][-1]:.1f} s", flush=True)
        finally:
            for executor in executors.values():
                executor.close()
    ratios = sorted(one / several for one, several in zip(spent[1], spent[cores], strict=True))
    publish(
        {
            "throughput": round(statistics.median(ratios), 3),
            "throughput_of_turns": [round(ratio, 3) for ratio in ratios],
            "workers": cores,
            "networks": NETWORKS,
            "examples": EXAMPLES,
            "seconds": {str(n): [round(s, 2) for s in values] for n, values in spent.items()},
        },
        args.out,
    )


if __name__ == "__main__":
    main()
