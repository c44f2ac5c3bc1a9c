"""The last points of a training: recipes compared on small networks at equal steps.

    python -m benchmarks.recipes --data DIR --work WORK --out FILE

Members of the front of preset `small` (benchmarks/results/cifar10_small), trained for 24 epochs on
45,000 images of CIFAR-10 and measured on the other 5,000: the recipe of the presets, and each
change to it alone. Every row is a training of its own and resumes; about seven minutes of one core
for the smaller network and twenty for the larger.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from benchmarks.record import publish
from configs import cifar10
from deepmaker_jax import arch, task
from deepmaker_jax import data as data_module
from deepmaker_jax.config import Config
from deepmaker_jax.execute import Outcome, Processes, Task, Unit
from deepmaker_jax.files import dump_json
from deepmaker_jax.machine import num_cores

FRONT = pathlib.Path(__file__).parent / "results" / "cifar10_small" / "front.json"
NETWORKS = ("c9a13d7ecec5", "c9534a3775b6")  # of 7,050 and 22,354 parameters
EPOCHS = 24
SEEDS = (0, 1)
RECIPES: dict[str, dict[str, Any]] = {
    "preset": {},
    "weight decay 1e-4": {"weight_decay": 1e-4},
    "weight decay 2e-4": {"weight_decay": 2e-4},
    "weight decay 1e-3": {"weight_decay": 1e-3},
    "averaged weights": {"average_decay": 0.999},
    "learning rate 0.2": {"sgd_learning_rate": 0.2},
    "learning rate 0.05": {"sgd_learning_rate": 0.05},
    "cutout of 8": {"cutout": 8},
    "crop by 2": {"crop": 2},
    "cosine": {"schedule": "cosine"},
    "label smoothing 0.1": {"label_smoothing": 0.1},
}


def make(recipe: dict[str, Any], seed: int, data: data_module.Dataset) -> Task:
    """Returns the task of preset `small` with all but the validation images to train on."""
    config: Config = cifar10.small()
    config = dataclasses.replace(
        config,
        search=dataclasses.replace(config.search, images=None),
        train=dataclasses.replace(config.train, **recipe),
    )
    return task.make_task(task.resolve(config, data), data)._replace(seed=seed)


def main() -> None:
    """Trains what is not there yet and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    data = data_module.load("cifar10", path=args.data)
    members = {m["id"]: m for m in json.loads(FRONT.read_text())["members"]}
    args.work.mkdir(parents=True, exist_ok=True)
    known = args.work / "rows.jsonl"
    done: dict[tuple[str, str, int], float] = {}
    if known.exists():
        for row in map(json.loads, known.read_text().splitlines()):
            done[row["recipe"], row["id"], row["seed"]] = row["accuracy"]
    for seed in SEEDS:
        for name in args.recipes:
            wanted = [id for id in NETWORKS if (name, id, seed) not in done]
            executor = Processes(
                make(RECIPES[name], seed, data), num_workers=num_cores(), folder=args.work / "data"
            )
            with contextlib.closing(executor), open(known, "a") as file:
                for id in wanted:
                    path = args.work / f"{id}-{name.replace(' ', '-')}-{seed}.msgpack"
                    spec = arch.from_json(members[id]["arch"])
                    executor.submit(Unit(id, spec, "search", EPOCHS, path))
                for result in executor.results() if wanted else ():
                    if not isinstance(result, Outcome):
                        continue
                    if result.status != "ok":
                        raise RuntimeError(f"{name}: {result.status}, {result.reason}")
                    accuracy = result.measured["val_accuracy"]
                    row = {"recipe": name, "id": result.id, "seed": seed, "accuracy": accuracy}
                    file.write(dump_json(row) + "\n")
                    file.flush()
                    print(row, flush=True)
                    done[name, result.id, seed] = accuracy
    rows = [
        {
            "recipe": name,
            **{id: [round(100 * done[name, id, seed], 2) for seed in SEEDS] for id in NETWORKS},
            "mean": round(
                100 * float(np.mean([done[name, i, s] for i in NETWORKS for s in SEEDS])), 2
            ),
        }
        for name in args.recipes
    ]
    publish({"epochs": EPOCHS, "validation_accuracy_percent": rows}, args.out)


if __name__ == "__main__":
    main()
