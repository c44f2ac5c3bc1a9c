"""What the faults of NeuroPower's published search cost: the same protocol with and without them.

    python -m benchmarks.neuropower --data DIR --work WORK --out FILE

Every network of space `neuropower` (900 of its 1,080 genomes differ) is trained once, at a scale
that two cores can do: CIFAR-10 at 8x8 pixels, 2,250 images, 4 epochs instead of 16, otherwise as
preset `neuropower`. Searches then look up what they would have trained, 30 seeds each: population
45, 8 generations, as published, the same uniform first draws for all of a seed. Of the answers to
2,000 held-out training images and to 5,000 test images, a seed knows its own 1,000 of each, the
validation images and the test images that the published code selects by; the networks that a search
ends with are judged by the other 4,000 test images. `points_test_flatters` is how much better they
look on the 1,000 test images, which is what selecting by these costs: an honest figure.

The published search (Loni et al. 2019 and its code) sorts by fronts, but counts every network down
for each that was sorted before, dominated by it or not, so that past the first front the order is
by how many dominate a network. The first fifth lives on, of the others one in ten as a mutant;
pairs of them have children by one-point crossover, of which three in ten mutate; nothing that was
trained comes again. There is no crowding, and who is not in the first fifth is forgotten: a search
ends with its last population, which is three or four larger, as children come in pairs. As it
trains fewer networks than there are places, every search is judged by as many as the one that
trains fewest, the first of each, those of a generation in random order, and on the way there, after
every 45 (`by_populations`); beside that, what the published search ends with. `above_published` is
the mean of the differences of each seed, with an interval that holds 90 % of what comes out with
seeds drawn again, with replacement. Each network is trained once, with one seed: neither holds any
luck of trainings. Goes on where it was.
"""

import argparse
import base64
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
from benchmarks.peers import uniformly  # noqa: E402
from benchmarks.record import made_of, publish, train_missing  # noqa: E402
from benchmarks.resample import drawn, interval  # noqa: E402
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
from deepmaker_jax.search import strategy_scale, stream  # noqa: E402
from deepmaker_jax.spaces import SPACES, Space  # noqa: E402
from deepmaker_jax.task import resolve  # noqa: E402
from deepmaker_jax.train.candidate import Split, train  # noqa: E402
from deepmaker_jax.train.step import predict  # noqa: E402

SIDE, EPOCHS = 8, 4
NUM = {"train": 2250, "validation": 2000, "test": 5000}
NUM_SEEN = 1000  # by a search, of each
# None of them makes a row of the table.
REPORTING = ("main", "judge", "ours", "published", "published_order", "sound_order", "summary",
             "known_to", "drawn", "interval")  # fmt: skip
SEEDS, POPULATION, GENERATIONS = 30, 45, 8
KEPT, SPARED, MUTANTS = 0.2, 0.1, 0.3
LIMITS = LimitConfig()
OBJECTIVES = (built_in("error", LIMITS), built_in("params", LIMITS))
FIRST_TRAINED, LAST_POPULATION = "as many as were trained by all", "last population"
Genome = tuple[int, ...]


class Trained(NamedTuple):
    """What a trained network is: parameters, and which images it is right about, Bool[n]."""

    params: int
    validation: np.ndarray
    test: np.ndarray


class Row(NamedTuple):
    """What is known of a network: parameters, and accuracy on each set of images of a seed."""

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
    held_out = order[NUM["train"] : NUM["train"] + NUM["validation"]]

    def split(images, labels, rows):
        some = images[rows].reshape(len(rows), SIDE, 32 // SIDE, SIDE, 32 // SIDE, 3)
        return Split(some.mean((2, 4)).round().astype(np.uint8), labels[rows])

    training = functools.partial(split, data.train_images, data.train_labels)
    testing = functools.partial(split, data.test_images, data.test_labels)
    return config, {
        "train": training(order[: NUM["train"]]),
        "validation": training(held_out),
        "test": testing(tested[: NUM["test"]]),
    }


def do_job(data_path: str, genome: Genome) -> dict[str, Any]:
    """Trains and measures a network; returns its line of the table."""
    began = time.process_time()
    config, pictures = _pictures(data_path)
    arch = space().decode(np.array(genome, np.int32))
    trained = train(
        arch, pictures["train"], settings=config.train, num_epochs=EPOCHS, seed=0,
        input_scale=np.full(3, 1 / 255, np.float32),
    )  # fmt: skip
    parts = [pictures[name] for name in ("validation", "test")]
    images, labels = (np.concatenate(some) for some in zip(*parts, strict=True))
    logits = predict(Network(layers(arch)), trained.variables, images)
    # A network that diverged guesses: it counts as one that is always wrong.
    is_right = (logits.argmax(1) == labels) & (not trained.diverged)
    right = dict(zip(("validation", "test"), np.split(is_right, [NUM["validation"]]), strict=True))
    jax.clear_caches()
    seconds = round(time.process_time() - began, 1)
    line = {"genome": genome, "params": cost(arch).params, "seconds": seconds}
    return line | {name: packed(some) for name, some in right.items()}


def packed(right: np.ndarray) -> str:
    """Returns Bool[n] as text; `unpacked` returns it."""
    return base64.b64encode(np.packbits(right)).decode()


def unpacked(text: str, num: int) -> np.ndarray:
    """Returns Bool[num]."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=num).astype(bool)


def table(data_path: str, work: pathlib.Path, num_workers: int) -> dict[Genome, Trained]:
    """Returns every network; trains those that the file does not hold yet."""
    jobs = {str(g): (data_path, g) for g in genomes()}
    lines = train_missing(
        do_job,
        jobs,
        work / "networks.jsonl",
        num_workers=num_workers,
        made_of=made_of(reporting=REPORTING),
    )
    return {
        tuple(line["genome"]): Trained(
            line["params"],
            validation=unpacked(line["validation"], NUM["validation"]),
            test=unpacked(line["test"], NUM["test"]),
        )
        for line in lines
    }


def known_to(networks: dict[Genome, Trained], seed: int) -> dict[Genome, Row]:
    """Returns the networks as the images of a seed tell them."""
    rng = np.random.default_rng(seed)
    validation = rng.permutation(NUM["validation"])[:NUM_SEEN]
    test, others = np.split(rng.permutation(NUM["test"]), [NUM_SEEN])
    return {
        genome: Row(
            network.params,
            float(network.validation[validation].mean()),
            float(network.test[test].mean()),
            float(network.test[others].mean()),
        )
        for genome, network in networks.items()
    }


def first_draws(seed: int) -> list[Genome]:
    """Returns the population that every search with a seed begins with."""
    part = uniformly(make(space(), LIMITS, spread="params"))
    return [tuple(map(int, g)) for g in part.sample(stream(seed, 0), num=POPULATION)]


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

    alive = [new(genome) for genome in first_draws(seed)]
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

    part = uniformly(make(of, LIMITS, spread="params"))
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
    """Returns what the front of some networks, by one set of images, is worth on the others.

    In points are how much more accurate it looks than it is: by the images that it was selected by,
    and by the 1,000 test images.
    """
    distinct = list(dict.fromkeys(genomes))
    seen = np.array([[1 - getattr(rows[g], by), rows[g].params] for g in distinct])
    chosen, tested = front(seen), np.array([1 - rows[g].test for g in distinct])
    true = np.array([[1 - rows[g].others, rows[g].params] for g in distinct])[chosen]
    return {
        "hypervolume": hypervolume(scaled(true, OBJECTIVES)),
        "points_promised_too_much": 100 * float(np.mean(true[:, 0] - seen[chosen, 0])),
        "points_test_flatters": 100 * float(np.mean(true[:, 0] - tested[chosen])),
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
    networks = table(args.data, args.work, args.workers)
    scale = {"side": SIDE, "epochs": EPOCHS, "seen": NUM_SEEN} | NUM
    counts = {"seeds": SEEDS, "networks": len(networks), "scale": scale}
    publish(counts | {"methods": summary(networks)}, args.out)


def summary(networks: dict[Genome, Trained]) -> list[dict[str, Any]]:
    """Returns what each search comes to, in medians, and how far above the published that is."""
    rows = [known_to(networks, seed) for seed in range(SEEDS)]
    outcomes = {
        name: [method(rows[seed], seed, by=by) for seed in range(SEEDS)]
        for name, (method, by) in METHODS.items()
    }
    fewest = min(len(o.trained) for each in outcomes.values() for o in each)
    published_ends: dict[str, np.ndarray] = {}
    found = []
    for name, (_, by) in METHODS.items():
        ends = {FIRST_TRAINED: [o.trained[:fewest] for o in outcomes[name]]}
        if all(o.last is not None for o in outcomes[name]):
            ends[LAST_POPULATION] = [o.last or [] for o in outcomes[name]]
        for kind, lists in ends.items():
            judged = [judge(rows[seed], genomes, by) for seed, genomes in enumerate(lists)]
            volumes = np.array([each["hypervolume"] for each in judged])
            row: dict[str, Any] = {"method": name, "front_of": kind}
            row |= {
                key: round(float(np.median([each[key] for each in judged])), 4) for key in judged[0]
            }
            row["quartiles"] = [round(float(q), 4) for q in np.percentile(volumes, [25, 75])]
            above = volumes - published_ends.setdefault(kind, volumes)
            row["above_published"] = round(float(above.mean()), 4)
            row["interval"] = interval([above[some].mean() for some in drawn(SEEDS)])
            if kind == FIRST_TRAINED:
                row["trained"] = fewest
                on_the_way = [
                    [
                        judge(rows[seed], o.trained[:num], by)["hypervolume"]
                        for num in range(POPULATION, fewest, POPULATION)
                    ]
                    for seed, o in enumerate(outcomes[name])
                ]
                row["by_populations"] = np.median(on_the_way, axis=0).round(4).tolist()
            found.append(row)
    return found


if __name__ == "__main__":
    main()
