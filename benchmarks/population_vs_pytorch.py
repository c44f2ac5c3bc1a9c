"""Trains 24 networks, everything included, beside PyTorch eager on the same cores.

    pip install -e '.[benchmark]'
    python -m benchmarks.population_vs_pytorch --data DIR [--quick] --out FILE.json

The networks are the first 24 genomes of seed 0 in space `deepmaker` with 10k to 200k parameters
(`benchmarks.population`), 32x32x3, batch 64, each trained for one pass over the same examples of
CIFAR-10 with crops and flips, and evaluated on the same 2,000 images. Ours is what a search
does: the executor with one process per core, compiling included. PyTorch trains them one after the
other, channels last, each with the number of threads that is best for it. The two take turns over
quarters of the population, so that drift hits both alike.

The full form trains on all 50,000 examples, from a cold cache of programs (an hour on 2 cores; the
2,000 are among them: their accuracy only shows that both train alike); `--quick` on 12,288 others,
after an untimed pass that fills the cache (11 minutes). The last line is JSON; above 1 means that
ours is faster.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
import torch

from benchmarks import torch_network
from benchmarks.population import INPUT_SHAPE, NUM_CLASSES, population, train_all
from benchmarks.record import conditions
from deepmaker_jax import program
from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.data import load, split
from deepmaker_jax.execute import Processes, Task
from deepmaker_jax.files import write_json
from deepmaker_jax.lanes import size_class
from deepmaker_jax.lanes.wiring import choose, fit, lane_macs
from deepmaker_jax.models import Network
from deepmaker_jax.train import predict
from deepmaker_jax.train.course import epoch_order
from deepmaker_jax.train.init import init

SETTINGS = TrainConfig(batch_size=64, crop=4, flip=True, sgd_learning_rate=0.1)
QUICK, NUM_VALIDATION, TURNS = 12_288, 2_000, 4
STEPS_TRIED = 5  # to find PyTorch's best number of threads


def make_task(path: str, *, quick: bool, strategy: str) -> Task:
    """Returns what the workers share: CIFAR-10's training images, and which are read when."""
    data = load("cifar10", path=path)
    rest, validation = split.train_validation(data, share=NUM_VALIDATION / 50_000, seed=0)
    rows = rest[:QUICK] if quick else np.arange(len(data.train_images), dtype=rest.dtype)
    classes = size_class.table(INPUT_SHAPE, NUM_CLASSES)
    scale = np.full(3, 1 / 64, np.float32)
    return Task(
        data.train_images, data.train_labels, rows, validation, scale, SETTINGS, 0,
        classes, ("search",) if strategy == "map" else (),
    )  # fmt: skip


class Ours:
    """Trains and evaluates as a search does: one executor, a process per core."""

    def __init__(self, task: Task, cores: int, folder: str):
        path = pathlib.Path(folder) / "shared"
        self.executor = Processes(task, num_workers=cores, folder=path)

    def train(self, archs: list[ArchSpec]) -> tuple[float, list[dict[str, Any]]]:
        """Returns (seconds, one record each)."""
        seconds, outcomes = train_all(self.executor, archs)
        return seconds, [{**o.measured, **o.seconds, "status": o.status} for o in outcomes]


def theirs(archs: list[ArchSpec], task: Task, cores: int) -> tuple[float, list[dict[str, Any]]]:
    """Trains and evaluates one after the other; returns (seconds, one record each).

    The trial that finds the best number of threads is not counted.
    """
    images, labels = task.images[task.validation_rows], task.labels[task.validation_rows]
    rows = np.asarray(task.search_rows)
    num_steps = len(rows) // SETTINGS.batch_size
    order = rows[epoch_order(0, 0, len(rows), num_steps, SETTINGS.batch_size)].ravel()
    seconds, records = 0.0, []
    for arch in archs:
        threads = best_threads(arch, task, cores)
        torch.set_num_threads(threads)
        began = time.perf_counter()
        variables = init(arch, seed=0, input_scale=task.input_scale)
        network, loss = torch_network.train(
            arch, variables, task.images, task.labels, order, settings=SETTINGS
        )
        logits = torch_network.predict(network, images)
        accuracy = float((logits.argmax(-1) == labels).mean())
        spent = time.perf_counter() - began
        seconds += spent
        records.append({"seconds": spent, "threads": threads, "val_accuracy": accuracy,
            "train_loss": loss})  # fmt: skip
    return seconds, records


def best_threads(arch: ArchSpec, task: Task, cores: int) -> int:
    """Returns the number of threads with which PyTorch trains this network fastest here."""
    spent: dict[int, float] = {}
    variables = init(arch, seed=0, input_scale=task.input_scale)
    order = np.arange(STEPS_TRIED * SETTINGS.batch_size)
    for threads in [*range(1, cores + 1)] * 2:  # the first pass is not like the rest
        torch.set_num_threads(threads)
        began = time.perf_counter()
        torch_network.train(arch, variables, task.images, task.labels, order, settings=SETTINGS)
        spent[threads] = time.perf_counter() - began
    return min(spent, key=lambda threads: spent[threads])


def check_equal(archs: list[ArchSpec], task: Task) -> float:
    """Returns the largest difference of the networks' logits; raises if they are not the same."""
    worst, images = 0.0, np.asarray(task.images[:64])
    for arch in archs:
        variables = init(arch, seed=0, input_scale=task.input_scale)
        network = torch_network.TorchNetwork(arch, task.input_scale).load(variables)
        count = sum(p.numel() for p in network.parameters())
        if count != cost(arch).params:
            raise RuntimeError(f"{count} parameters in PyTorch, {cost(arch).params} here")
        wanted = predict(Network(layers(arch)), variables, images, batch_size=64)
        found = torch_network.predict(network, images, batch_size=64)
        worst = max(worst, float(np.abs(wanted - found).max() / np.abs(wanted).max()))
    if worst > 1e-4:
        raise RuntimeError(f"logits differ by {worst:.1e} of the largest")
    return worst


def main() -> None:
    """Trains both populations in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder of CIFAR-10")
    parser.add_argument("--quick", action="store_true", help="12,288 examples, programs kept")
    parser.add_argument("--networks", type=int, default=24, choices=range(1, 25), metavar="1..24")
    parser.add_argument("--program", choices=("plain", "map"), help="instead of the chosen one")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    torch.manual_seed(0)  # its crops and flips
    cores, archs = program.num_cores(), population(args.networks)
    task = make_task(args.data, quick=args.quick, strategy="plain")
    examples = len(task.search_rows) // SETTINGS.batch_size * SETTINGS.batch_size
    flops = 6 * float(np.median([cost(arch).macs for arch in archs])) * examples
    chosen = program.choose("processes", args.program or "auto", search_flops=flops,
        final_flops=flops)["strategy"]  # fmt: skip
    task = make_task(args.data, quick=args.quick, strategy=chosen)
    print(f"{len(archs)} networks, {examples} examples each, program {chosen}, {cores} cores")
    print(f"logits agree to {check_equal(archs, task):.1e} of the largest", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache  # the workers', empty
        if args.quick:
            few = task._replace(search_rows=task.search_rows[: SETTINGS.batch_size])
            few = few._replace(validation_rows=task.validation_rows[:250])
            with tempfile.TemporaryDirectory() as folder:
                first = Ours(few, cores, folder)
                seconds, _ = first.train(archs)
                first.executor.close()
            print(f"programs compiled in {seconds:.0f} s, untimed", flush=True)
        before = num_programs(cache)
        spent, rows = [0.0, 0.0], []
        size = -(-len(archs) // TURNS)
        with tempfile.TemporaryDirectory() as folder:
            us = Ours(task, cores, folder)
            try:
                for start in range(0, len(archs), size):
                    some = archs[start : start + size]
                    seconds, records = us.train(some)
                    their_seconds, their_records = theirs(some, task, cores)
                    spent[0] += seconds
                    spent[1] += their_seconds
                    rows += [
                        {
                            "params": cost(arch).params,
                            "macs": cost(arch).macs,
                            "ours": a,
                            "pytorch": b,
                        }
                        for arch, a, b in zip(some, records, their_records, strict=True)
                    ]
                    print(
                        f"{len(rows)} networks: ours {spent[0]:.0f} s, PyTorch {spent[1]:.0f} s",
                        flush=True,
                    )
            finally:
                us.executor.close()
        compiles = num_programs(cache) - before
    print(f"{'params':>8} {'MACs':>12} {'ours s':>8} {'compile':>8} {'PyTorch s':>10} threads   "
        "accuracy ours, PyTorch")  # fmt: skip
    for row in rows:
        a, b = row["ours"], row["pytorch"]
        print(
            f"{row['params']:8,} {row['macs']:12,} {a['train'] + a['eval']:8.1f} "
            f"{a['compile']:8.1f} "
            f"{b['seconds']:10.1f} {b['threads']:7}   {a.get('val_accuracy', float('nan')):.4f} "
            f"{b['val_accuracy']:.4f}"
        )
    ratio = round(spent[1] / spent[0], 3)
    figures = {
        "ratio": ratio,
        "ratio_cold": None if args.quick else ratio,
        "ratio_warm": ratio if args.quick else None,
        "candidates": len(archs),
        "examples_per_candidate": examples,
        "compiles": compiles,
        "padded_flops_share": round(padded_share(archs, task), 3),
        "seconds_ours": round(spent[0], 1),
        "seconds_pytorch": round(spent[1], 1),
    }
    if args.out is not None:
        more = {"torch": torch.__version__, "program": chosen, "networks": rows}
        write_json(args.out, conditions() | figures | more)
    print(json.dumps(figures))


def num_programs(cache: str) -> int:
    """Returns how many compiled programs a cache keeps: those that took longer than a moment."""
    return len([name for name in os.listdir(cache) if name.endswith("-cache")])


def padded_share(archs: list[ArchSpec], task: Task) -> float:
    """Returns the share of the arithmetic that is padding's; 0 with programs of their own."""
    if not task.in_class:
        return 0.0
    real = done = 0.0
    for arch in archs:
        of = choose(arch, task.size_classes)
        real += cost(arch).macs
        done += cost(arch).macs if of is None else lane_macs(of, fit(arch, of))
    return 1 - real / done


if __name__ == "__main__":
    main()
