"""Learning curves of many networks: the measurements that a surrogate of the search is fitted to.

    python -m benchmarks.curves --data DIR --work DIR --also benchmarks/results/proposed.json \\
        --out benchmarks/results/curves.jsonl

Networks of space `deepmaker` as preset `small` narrows it, up to 200,000 parameters and 24 million
multiply-accumulates, spread over sizes as a search's first generation is, each trained on 10,000
images of CIFAR-10 with the learning rate restarting at each rung, 1, 3 and 9 epochs, and measured
there on the same 5,000 images. The first 20 are trained with three seeds. `--also` adds networks
that a search proposed (benchmarks/results/proposed.json). Seven core-hours; run again, it goes on
where it was, and the file holds as much as there has been time for. Each line is a network with a
seed at a rung: accuracy, loss, and the seconds since the rung before (beside other work; the first
120 lines were trained by size classes' programs, which equal networks' own to rounding).
"""

import argparse
import contextlib
import dataclasses
import itertools
import pathlib

import numpy as np

from benchmarks.record import whole_lines
from configs import cifar10
from deepmaker_jax import data as data_module
from deepmaker_jax import task as task_module
from deepmaker_jax.config import LimitConfig
from deepmaker_jax.execute import Outcome, Processes, Task, Unit
from deepmaker_jax.feasible import Feasible, make
from deepmaker_jax.files import dump_json, load_json
from deepmaker_jax.machine import num_cores
from deepmaker_jax.spaces import SPACES
from deepmaker_jax.task import choose_program, resolve, with_size_classes

RUNGS = (1, 3, 9)  # epochs
NUM_BY_CLASS = 120  # lines at the file's begin, trained by size classes' programs
NUM, NUM_REPEATED, SEEDS = 200, 20, (0, 1, 2)
PATIENCE_SECONDS = 7200.0
LIMITS = LimitConfig(params=200_000, macs=24_000_000)


def feasible(
    shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10, limits: LimitConfig = LIMITS
) -> Feasible:
    """Returns the part of the space that the networks come from."""
    genes = dict(text.split("=") for text in cifar10.DEPLOYABLE)
    space = SPACES["deepmaker"](shape, num_classes)
    space = space.narrow({gene: choices.split("|") for gene, choices in genes.items()})
    return make(space, limits, spread="params")


def main() -> None:
    """Trains what the file does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--also", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    part = feasible()
    genomes = part.sample(np.random.default_rng(0), num=NUM)
    if args.also is not None:
        genomes += [np.array(g, np.int32) for g in load_json(args.also)["genomes"]]
    done = {}
    for line in whole_lines(args.out):
        ended = RUNGS[-1] if line["status"] != "ok" else line["epochs"]
        done[line["id"], line["seed"]] = ended
    for seed in SEEDS:
        wanted = genomes if seed == SEEDS[0] else genomes[:NUM_REPEATED]
        begun = {part.space.id(g): done.get((part.space.id(g), seed), 0) for g in wanted}
        _train(wanted, begun, seed, part, args)


def _train(
    genomes: list[np.ndarray], begun: dict[str, int], seed: int, part: Feasible, args
) -> None:
    """Trains networks with one seed on from the epochs that they have begun with."""
    space, by_id = part.space, {part.space.id(g): g for g in genomes}
    task = make_task(seed, part, args.data)
    checkpoints = args.work / f"seed{seed}"
    checkpoints.mkdir(parents=True, exist_ok=True)
    # Patience for hours: it may run beside other work, that leaves it hardly any time.
    executor = Processes(
        task, num_workers=num_cores(), folder=args.work / "data", patience_seconds=PATIENCE_SECONDS
    )

    def submit(id: str, epochs: int) -> None:
        path = checkpoints / f"{id}.msgpack"
        executor.submit(Unit(id, space.decode(by_id[id]), "search", epochs, path))

    later = iter([id for id in by_id if begun[id] < RUNGS[-1]])
    with contextlib.closing(executor), open(args.out, "a") as file:
        # One more than there are workers: whoever has begun goes on before others begin.
        for id in itertools.islice(later, executor.num_workers + 1):
            submit(id, _next(begun[id]))
        for result in executor.results():
            if not isinstance(result, Outcome):
                continue
            epochs, found = _next(begun[result.id]), result.measured
            begun[result.id] = epochs
            line = {
                "id": result.id,
                "genome": by_id[result.id].tolist(),
                "seed": seed,
                "epochs": epochs,
                "accuracy": found.get("val_accuracy"),
                "loss": found.get("val_loss"),
                "seconds": round(sum(result.seconds.values()), 1),
                "status": result.status,
            }
            file.write(dump_json(line) + "\n")
            file.flush()
            print(dump_json(line), flush=True)
            if result.status == "ok" and epochs < RUNGS[-1]:
                submit(result.id, _next(epochs))
            elif (id := next(later, None)) is not None:
                submit(id, _next(begun[id]))


def _next(epochs: int) -> int:
    return next(rung for rung in RUNGS if rung > epochs)


def make_task(seed: int, part: Feasible, path: str) -> Task:
    """Returns the task of preset `small` with these rungs, and crops by 4 as it had then; the
    images are the same for every seed.
    """
    config, data = cifar10.small(), data_module.load("cifar10", path=path)
    search = dataclasses.replace(config.search, epochs=RUNGS[-1], rungs=1)
    train = dataclasses.replace(config.train, crop=4)
    config = resolve(dataclasses.replace(config, search=search, train=train), data)
    task = task_module.make_task(config, data)._replace(seed=seed, rungs=RUNGS)
    return with_size_classes(
        task, part.space, data, choose_program(config, part, task, "processes")
    )


if __name__ == "__main__":
    main()
