"""What the faults of NeuroPower's published search cost: the same protocol with and without them.

    python -m benchmarks.neuropower --data DIR --work WORK --out FILE

Every network of space `neuropower` (900 of its 1,080 genomes differ) is trained once, at a scale
that two cores can do: CIFAR-10 at 8x8 pixels, 2,250 images, 4 epochs instead of 16, otherwise as
preset `neuropower`. Searches then look up what they would have trained, 30 seeds each: population
45, 8 generations, as published. Accuracy is known on three sets: 1,000 validation images, 1,000 of
the test images, which the published code selects by, and 10,000 other training images, which no
search sees; by these the networks that a search ends with are judged.

The published search (Loni et al. 2019 and its code) sorts by fronts, but counts every network down
for each that was sorted before, dominated by it or not, so that past the first front the order is
by how many dominate a network. The first fifth lives on, of the others one in ten as a mutant;
pairs of them have children by one-point crossover, of which three in ten mutate; nothing that was
trained comes again. There is no crowding, and who is not in the first fifth is forgotten: a search
ends with its last population, which is three or four larger, as children come in pairs. As it
trains fewer networks than there are places, every search is judged by as many as the one that
trains fewest, the first of each, those of a generation in random order; beside that, what the
published search ends with. Each network is trained once, with one seed: quartiles are over searches
alone, and hold no luck of trainings. Five core-hours; goes on where it was.
"""

import argparse
import dataclasses
import functools
import pathlib
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.on_paper import run_search  # noqa: E402
from benchmarks.record import made_of, publish, train_missing  # noqa: E402
from configs import cifar10  # noqa: E402
from deepmaker_jax import data as data_module  # noqa: E402
from deepmaker_jax.arch import layers  # noqa: E402
from deepmaker_jax.config import Config, LimitConfig  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.evolve import NSGA2, RandomSearch, front  # noqa: E402
from deepmaker_jax.evolve.hypervolume import hypervolume  # noqa: E402
from deepmaker_jax.feasible import make  # noqa: E402
from deepmaker_jax.machine import num_cores  # noqa: E402
from deepmaker_jax.models import Network  # noqa: E402
from deepmaker_jax.objective import built_in, scaled  # noqa: E402
from deepmaker_jax.search import strategy_scale  # noqa: E402
from deepmaker_jax.spaces import SPACES, Space  # noqa: E402
from deepmaker_jax.task import resolve  # noqa: E402
from deepmaker_jax.train.candidate import Split, train  # noqa: E402
from deepmaker_jax.train.step import predict  # noqa: E402

SIDE, EPOCHS = 8, 4
NUM = {"train": 2250, "validation": 1000, "test": 1000, "others": 10_000}
# None of them makes a row of the table.
REPORTING = ("main", "judge", "ours", "published", "published_order", "sound_order")
SEEDS, POPULATION, GENERATIONS = 30, 45, 8
KEPT, SPARED, MUTANTS = 0.2, 0.1, 0.3
LIMITS = LimitConfig()
OBJECTIVES = (built_in("error", LIMITS), built_in("params", LIMITS))
Genome = tuple[int, ...]


class Row(NamedTuple):
    """What is known of a network: parameters, and accuracy on each set of images."""

    params: int
    validation: float
    test: float
    others: float


def space() -> Space:
    """Returns the space at this scale."""
    return SPACES["neuropower"]((SIDE, SIDE, 3), 10)


def genomes() -> list[Genome]:
    """Returns one genome of every network, the smallest networks first."""
    of = space()
    grid = np.stack(np.meshgrid(*map(np.arange, of.num_choices), indexing="ij"), axis=-1)
    found = {of.id(g): tuple(map(int, of.repair(g))) for g in grid.reshape(-1, len(of.genes))}
    return sorted(found.values(), key=lambda g: (cost(of.decode(np.array(g))).macs, g))


@functools.cache
def _pictures(data_path: str) -> tuple[Config, dict[str, Split]]:
    data = data_module.load("cifar10", path=data_path)
    config = resolve(cifar10.neuropower(), data)
    rng = np.random.default_rng(0)
    order, tested = rng.permutation(len(data.train_labels)), rng.permutation(len(data.test_labels))
    known = NUM["train"] + NUM["validation"]

    def split(images, labels, rows):
        some = images[rows].reshape(len(rows), SIDE, 32 // SIDE, SIDE, 32 // SIDE, 3)
        return Split(some.mean((2, 4)).round().astype(np.uint8), labels[rows])

    training = functools.partial(split, data.train_images, data.train_labels)
    testing = functools.partial(split, data.test_images, data.test_labels)
    return config, {
        "train": training(order[: NUM["train"]]),
        "validation": training(order[NUM["train"] : known]),
        "others": training(order[known : known + NUM["others"]]),
        "test": testing(tested[: NUM["test"]]),
    }


def do_job(data_path: str, genome: Genome) -> dict[str, Any]:
    """Trains and measures a network; returns its line of the table."""
    began = time.perf_counter()
    config, pictures = _pictures(data_path)
    arch = space().decode(np.array(genome, np.int32))
    trained = train(
        arch, pictures["train"], settings=config.train, num_epochs=EPOCHS, seed=0,
        input_scale=np.full(3, 1 / 255, np.float32),
    )  # fmt: skip
    parts = [pictures[name] for name in ("validation", "test", "others")]
    images = np.concatenate([part.images for part in parts])
    logits = predict(Network(layers(arch)), trained.variables, images)
    found, first = {}, 0
    for name, part in zip(("validation", "test", "others"), parts, strict=True):
        chosen = logits[first : first + len(part.labels)].argmax(1)
        # A network that diverged guesses: it counts as one that is always wrong.
        found[name] = 0.0 if trained.diverged else float(np.mean(chosen == part.labels))
        first += len(part.labels)
    jax.clear_caches()
    seconds = round(time.perf_counter() - began, 1)
    return {"genome": genome, "params": cost(arch).params, "seconds": seconds} | found


def table(data_path: str, work: pathlib.Path, num_workers: int) -> dict[Genome, Row]:
    """Returns every network's row; trains those that the file does not hold yet."""
    jobs = {str(g): (data_path, g) for g in genomes()}
    lines = train_missing(
        do_job,
        jobs,
        work / "networks.jsonl",
        num_workers=num_workers,
        made_of=made_of(reporting=REPORTING),
    )
    return {tuple(line["genome"]): Row(*(line[name] for name in Row._fields)) for line in lines}


class Outcome(NamedTuple):
    """What a search has trained, in order, and what it ends with, if that is not all of it."""

    trained: list[Genome]
    last: list[Genome] | None


def published(rows: dict[Genome, Row], seed: int, *, by: str, sound_sort: bool = False) -> Outcome:
    """Runs the published search.

    Args:
      rows: every network's row.
      seed: of its draws.
      by: the set of images that it selects by.
      sound_sort: sorts by true fronts instead.
    """
    rng, of = random.Random(seed), space()
    # One-point crossover cuts the genes in the order of their names.
    names = np.argsort([gene.name for gene in of.genes]).tolist()
    trained: list[Genome] = []

    def same(genome: list[int]) -> Genome:
        return tuple(map(int, of.repair(np.array(genome))))

    def mutant(genome: Genome) -> Genome:
        i = rng.randrange(len(genome))
        others = [c for c in range(of.num_choices[i]) if c != genome[i]]
        return same([*genome[:i], rng.choice(others), *genome[i + 1 :]])

    def new(genome: Genome) -> Genome:
        while genome in trained:
            genome = mutant(genome)
        trained.append(genome)
        return genome

    alive = [new(same([rng.randrange(n) for n in of.num_choices])) for _ in range(POPULATION)]
    for _ in range(GENERATIONS - 1):
        values = np.array([[1 - getattr(rows[g], by), rows[g].params] for g in alive])
        order = [alive[i] for i in (sound_order if sound_sort else published_order)(values)]
        kept = order[: int(len(order) * KEPT)]
        spared = [g for g in order[len(kept) :] if rng.random() < SPARED]
        parents = kept + [new(g) for g in spared]
        children: list[Genome] = []
        while len(children) < len(order) - len(parents):
            # The last parent is never drawn: another slip of the published code.
            mother, father = rng.sample(parents[:-1], 2)
            before = names[: rng.randrange(1, len(mother))]
            for first, second in ((mother, father), (father, mother)):
                child = same([(first if i in before else second)[i] for i in range(len(first))])
                children.append(new(mutant(child) if rng.random() < MUTANTS else child))
        alive = parents + children
    return Outcome(trained, alive)


def published_order(values: np.ndarray) -> list[int]:
    """Returns rows as the published sort has them: past the first front by who dominates them."""
    counts = [int(n) for n in _dominates(values).sum(0)]
    order = [i for i, n in enumerate(counts) if n == 0]
    begin = 0
    while begin < len(order):
        now, begin = order[begin:], len(order)
        for _ in now:
            for i in range(len(counts)):
                counts[i] -= 1
                if counts[i] == 0:
                    order.append(i)
    return order


def sound_order(values: np.ndarray) -> list[int]:
    """Returns rows by true fronts, those of a front as they come."""
    left, order = list(range(len(values))), list[int]()
    while left:
        dominated = _dominates(values[left]).any(0)
        order += [i for i, is_worse in zip(left, dominated, strict=True) if not is_worse]
        left = [i for i, is_worse in zip(left, dominated, strict=True) if is_worse]
    return order


def _dominates(values: np.ndarray) -> np.ndarray:
    """Returns whether row i dominates row j, Bool[n, n]."""
    a, b = values[:, None], values[None]
    return (a <= b).all(2) & (a < b).any(2)


@functools.cache
def _strategy(kind: Any) -> Any:
    of = space()
    genome = np.zeros(len(of.genes), np.int32)
    return kind(POPULATION, genome, num_choices=of.num_choices, scale=strategy_scale(OBJECTIVES))


def ours(rows: dict[Genome, Row], seed: int, *, by: str, kind: Any = NSGA2) -> Outcome:
    """Runs this package's search of the same size."""
    config = cifar10.neuropower()
    settings = dataclasses.replace(
        config.search, population=POPULATION, generations=GENERATIONS, epochs=EPOCHS
    )
    config = dataclasses.replace(config, seed=seed, search=settings)
    of = space()

    def error_of(unit):
        return 1 - getattr(rows[tuple(map(int, of.encode(unit.arch)))], by)

    part = make(of, LIMITS, spread="params")
    records = run_search(config, part, OBJECTIVES, _strategy(kind), error_of)
    # The longest of a generation are trained first, which is no order to cut it by.
    luck = np.random.default_rng(seed).uniform(size=len(records))
    order = sorted(range(len(records)), key=lambda i: (records[i]["generation"], luck[i]))
    return Outcome([tuple(records[i]["genome"]) for i in order], None)


METHODS: dict[str, tuple[Callable[..., Outcome], str]] = {
    "published": (published, "test"),
    "published, selecting by validation": (published, "validation"),
    "published, sound sort": (functools.partial(published, sound_sort=True), "test"),
    "published, both": (functools.partial(published, sound_sort=True), "validation"),
    "NSGA-II, selecting by test": (ours, "test"),
    "NSGA-II": (ours, "validation"),
    "random": (functools.partial(ours, kind=RandomSearch), "validation"),
}


def judge(rows: dict[Genome, Row], genomes: list[Genome], by: str) -> dict[str, float]:
    """Returns what the front of some networks, by one set of images, is worth on the others."""
    distinct = list(dict.fromkeys(genomes))
    seen = np.array([[1 - getattr(rows[g], by), rows[g].params] for g in distinct])
    chosen = front(seen)
    true = np.array([[1 - rows[g].others, rows[g].params] for g in distinct])[chosen]
    return {
        "hypervolume": hypervolume(scaled(true, OBJECTIVES)),
        "points_promised_too_much": 100 * float(np.mean(true[:, 0] - seen[chosen, 0])),
        "best_accuracy": 1 - float(true[np.argmin(seen[chosen, 0]), 0]),
        "members": float(len(chosen)),
    }


def main() -> None:
    """Trains what is not known yet, searches and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows = table(args.data, args.work, args.workers)
    found, outcomes = [], {
        name: [method(rows, seed, by=by) for seed in range(SEEDS)]
        for name, (method, by) in METHODS.items()
    }  # fmt: skip
    fewest = min(len(o.trained) for each in outcomes.values() for o in each)
    for name, (_, by) in METHODS.items():
        ends = {f"first {fewest} trained": [o.trained[:fewest] for o in outcomes[name]]}
        if outcomes[name][0].last is not None:
            ends["last population"] = [o.last for o in outcomes[name]]
        for kind, lists in ends.items():
            judged = [judge(rows, genomes, by) for genomes in lists]
            medians = {
                key: round(float(np.median([each[key] for each in judged])), 4) for key in judged[0]
            }
            volumes = [each["hypervolume"] for each in judged]
            quartiles = [round(float(q), 4) for q in np.percentile(volumes, [25, 75])]
            trained = round(float(np.mean([len(o.trained) for o in outcomes[name]])), 1)
            found.append({"method": name, "front_of": kind, "trained": trained,
                          "quartiles": quartiles} | medians)  # fmt: skip
            print(found[-1], flush=True)
    best = judge(rows, list(rows), "others")
    publish({"seeds": SEEDS, "networks": len(rows), "scale": {"side": SIDE, "epochs": EPOCHS} | NUM,
             "all_networks": best, "methods": found}, args.out)  # fmt: skip


if __name__ == "__main__":
    main()
