"""What the faults of NeuroPower's published search cost: the same protocol with and without them.

    python -m benchmarks.neuropower --data DIR --work WORK --out FILE

Every network of space `neuropower` (900 of its 1,080 genomes differ) is trained once, at a scale
that two cores can do: CIFAR-10 at 8x8 pixels, 9,000 training images, 2 epochs instead of 16,
otherwise as preset `neuropower`; it answers 20,000 further training images. (As many steps on fewer
images would make the larger networks no better than the small.) Networks have one of six sizes.
Searches then look up what they would have trained, 30 seeds each: population 45, 8 generations, as
published, the same uniform first draws for all of a seed. A search selects by some of the 20,000,
drawn anew for each seed: by 1,000, by 3,000, or by 10,000, as many as the test images that the
published code selects by; the networks that it ends with are judged by the rest. Which images these
are makes no difference to a search, so selecting by test images costs what is promised too much:
`points_promised_too_much` is how much better the front looks on the images that it was selected by,
which the published code reports, than it is. What training would gain from the images that we set
aside for validation is not in that.

The published search (Loni et al. 2019 and its code) means to sort by fronts, but counts every
network down for each that was sorted before, dominated by it or not, so that past the first front
the order is by how many dominate a network: the ranking of Fonseca and Fleming 1993, not the sort
that it names. The first fifth lives on, of the others one in ten as a mutant; pairs of them have
children by one-point crossover, of which three in ten mutate; nothing that was trained comes again.
There is no crowding, and who is not in the first fifth is forgotten: a search ends with its last
population (`ends_with`), which is three or four larger, as children come in pairs; ours with all
that it trained. As the published trains fewer networks than there are places, and as a third of the
space leaves little to choose, every search is judged after 90 and 135 trainings too, and last after
as many as the one that trains fewest; those of a generation count in random order.
`above_published` and `points_promised_too_much` are means over seeds, with intervals that hold 90 %
of what comes out with seeds drawn again, with replacement; "all known" is the front of all 900, by
the images that a search sees. Each network is trained once, with one seed: neither holds any luck
of trainings. Twelve core-hours; goes on where it was.
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

SIDE, EPOCHS = 8, 2
NUM_TRAIN, NUM_JUDGING = 9000, 20_000
SEEN = (1000, 3000, 10_000)  # images that a search selects by
TRAININGS = (90, 135)
SEEDS, POPULATION, GENERATIONS = 30, 45, 8
KEPT, SPARED, MUTANTS = 0.2, 0.1, 0.3
LIMITS = LimitConfig()
OBJECTIVES = (built_in("error", LIMITS), built_in("params", LIMITS))
Genome = tuple[int, ...]


class Trained(NamedTuple):
    """What a trained network is: parameters, and which images it is right about, Bool[n]."""

    params: int
    right: np.ndarray


class Row(NamedTuple):
    """What is known of a network: parameters, and accuracy on a seed's images and on the rest."""

    params: int
    seen: float
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
def _pictures(data_path: str) -> tuple[Config, Split, Split]:
    data = data_module.load("cifar10", path=data_path)
    config = resolve(cifar10.neuropower(), data)
    order = np.random.default_rng(0).permutation(len(data.train_labels))

    def split(rows: np.ndarray) -> Split:
        some = data.train_images[rows].reshape(len(rows), SIDE, 32 // SIDE, SIDE, 32 // SIDE, 3)
        return Split(some.mean((2, 4)).round().astype(np.uint8), data.train_labels[rows])

    rows, judging, _ = np.split(order, [NUM_TRAIN, NUM_TRAIN + NUM_JUDGING])
    return config, split(rows), split(judging)


def do_job(data_path: str, genome: Genome) -> dict[str, Any]:
    """Trains and measures a network; returns its line of the table."""
    began = time.process_time()
    config, training, judging = _pictures(data_path)
    arch = space().decode(np.array(genome, np.int32))
    trained = train(
        arch, training, settings=config.train, num_epochs=EPOCHS, seed=0,
        input_scale=np.full(3, 1 / 255, np.float32),
    )  # fmt: skip
    logits = predict(Network(layers(arch)), trained.variables, judging.images)
    # A network that diverged guesses: it counts as one that is always wrong.
    right = (logits.argmax(1) == judging.labels) & (not trained.diverged)
    jax.clear_caches()
    return {
        "genome": genome,
        "params": cost(arch).params,
        "diverged": trained.diverged,
        "seconds": round(time.process_time() - began, 1),
        "right": packed(right),
    }


def packed(right: np.ndarray) -> str:
    """Returns Bool[n] as text; `unpacked` returns it."""
    return base64.b64encode(np.packbits(right)).decode()


def unpacked(text: str, num: int) -> np.ndarray:
    """Returns Bool[num]."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=num).astype(bool)


def table(data_path: str, work: pathlib.Path, num_workers: int) -> list[dict[str, Any]]:
    """Returns every network's line; trains those that the file does not hold yet."""
    jobs = {str(g): (data_path, g) for g in genomes()}
    return train_missing(
        do_job,
        jobs,
        work / "networks.jsonl",
        num_workers=num_workers,
        made_of=made_of(do_job),
    )


def known_to(networks: dict[Genome, Trained], seed: int, num_seen: int) -> dict[Genome, Row]:
    """Returns the networks as the images of a seed tell them."""
    order = np.random.default_rng(seed).permutation(NUM_JUDGING)
    seen, others = np.split(order, [num_seen])
    return {
        genome: Row(n.params, float(n.right[seen].mean()), float(n.right[others].mean()))
        for genome, n in networks.items()
    }


def first_draws(seed: int) -> list[Genome]:
    """Returns the population that every search with a seed begins with."""
    part = uniformly(make(space(), LIMITS, spread="params"))
    return [tuple(map(int, g)) for g in part.sample(stream(seed, 0), num=POPULATION)]


class Outcome(NamedTuple):
    """What a search has trained, in order, and what it ends with."""

    trained: list[Genome]
    last: list[Genome]


def published(rows: dict[Genome, Row], seed: int, *, sound_sort: bool = False) -> Outcome:
    """Runs the published search.

    Args:
      rows: every network's row.
      seed: of its draws.
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
    begins = [0]
    for _ in range(GENERATIONS - 1):
        begins.append(len(trained))
        values = np.array([[1 - rows[g].seen, rows[g].params] for g in alive])
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
    # Its mutants come before its children, which is no order to cut a generation by either.
    luck = np.random.default_rng(seed)
    each = np.split(np.arange(len(trained)), begins[1:])
    order = np.concatenate([luck.permutation(some) for some in each])
    return Outcome([trained[i] for i in order], alive)


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


def ours(rows: dict[Genome, Row], seed: int, *, kind: Any = NSGA2) -> Outcome:
    """Runs this package's search of the same size."""
    config = cifar10.neuropower()
    settings = dataclasses.replace(
        config.search, population=POPULATION, generations=GENERATIONS, epochs=EPOCHS
    )
    config = dataclasses.replace(config, seed=seed, search=settings)
    of = space()

    def error_of(unit):
        return 1 - rows[tuple(map(int, of.encode(unit.arch)))].seen

    part = uniformly(make(of, LIMITS, spread="params"))
    records = run_search(config, part, OBJECTIVES, _strategy(kind), error_of)
    # The longest of a generation are trained first, which is no order to cut it by.
    luck = np.random.default_rng(seed).uniform(size=len(records))
    order = sorted(range(len(records)), key=lambda i: (records[i]["generation"], luck[i]))
    trained = [tuple(records[i]["genome"]) for i in order]
    return Outcome(trained, trained)


PUBLISHED = "published"
METHODS: dict[str, Callable[..., Outcome]] = {
    PUBLISHED: published,
    "published, sound sort": functools.partial(published, sound_sort=True),
    "NSGA-II": ours,
    "random": functools.partial(ours, kind=RandomSearch),
}


def judge(rows: dict[Genome, Row], genomes: list[Genome]) -> dict[str, float]:
    """Returns what the front of some networks, by the images seen, is worth on the others."""
    distinct = list(dict.fromkeys(genomes))
    seen = np.array([[1 - rows[g].seen, rows[g].params] for g in distinct])
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
    lines = table(args.data, args.work, args.workers)
    networks = {
        tuple(line["genome"]): Trained(line["params"], unpacked(line["right"], NUM_JUDGING))
        for line in lines
    }
    scale = {"side": SIDE, "epochs": EPOCHS, "train": NUM_TRAIN, "judging": NUM_JUDGING}
    counts = {"seeds": SEEDS, "networks": len(networks), "scale": scale}
    counts |= {
        name: round(float(sum(line[name] for line in lines))) for name in ("diverged", "seconds")
    }
    found = [row for num_seen in SEEN for row in summary(networks, num_seen)]
    publish(counts | {"methods": found}, args.out)


def summary(networks: dict[Genome, Trained], num_seen: int) -> list[dict[str, Any]]:
    """Returns what each search comes to that selects by so many images, in medians."""
    rows = [known_to(networks, seed, num_seen) for seed in range(SEEDS)]
    found = {
        name: [method(rows[seed], seed) for seed in range(SEEDS)]
        for name, method in METHODS.items()
    }
    fewest = min(len(o.trained) for each in found.values() for o in each)
    ends: dict[str, dict[str, list[list[Genome]]]] = {
        f"after {num}": {name: [o.trained[:num] for o in each] for name, each in found.items()}
        for num in (*TRAININGS, fewest)
    }
    ends["ends_with"] = {name: [o.last for o in each] for name, each in found.items()}
    table = {name: {"images": num_seen, "method": name} for name in METHODS}
    table["all known"] = {"images": num_seen, "method": "all known"}
    ends["ends_with"]["all known"] = [list(networks)] * SEEDS
    for when, by_name in ends.items():
        judged = {
            name: [judge(rows[seed], some) for seed, some in enumerate(lists)]
            for name, lists in by_name.items()
        }
        for name in by_name:
            table[name][when] = compared(judged[name], judged[PUBLISHED])
    return list(table.values())


def compared(judged: list[dict[str, float]], beside: list[dict[str, float]]) -> dict[str, Any]:
    """Returns medians over seeds, and how far above others of the same seeds a search is."""
    found: dict[str, Any] = {
        key: round(float(np.median([each[key] for each in judged])), 4) for key in judged[0]
    }
    volumes, others = (np.array([o["hypervolume"] for o in some]) for some in (judged, beside))
    promised = np.array([each["points_promised_too_much"] for each in judged])
    found["promised_interval"] = interval([promised[s].mean() for s in drawn(len(promised))])
    found["points_promised_too_much"] = round(float(promised.mean()), 4)
    found["quartiles"] = [round(float(q), 4) for q in np.percentile(volumes, [25, 75])]
    if judged is not beside:
        above = volumes - others
        found["above_published"] = round(float(above.mean()), 4)
        found["interval"] = interval([above[some].mean() for some in drawn(len(above))])
    return found


if __name__ == "__main__":
    main()
