"""Searches at equal cost on a surrogate of training: ours, its parts left out, and its peers.

    pip install -e '.[benchmark]'
    python -m benchmarks.search_methods --curves benchmarks/results/curves.jsonl --work WORK \\
        --out FILE

Every method looks for networks of the part of space `deepmaker` that `benchmarks.curves` sampled,
minimises error and parameters, and spends the same: the seconds (of `on_paper.Prices`) that 96
networks of the sampler cost when each is trained in full; deciding costs nothing. Answers come from
`benchmarks.surrogate`, with a seed's noise. Reported: the hypervolume of the true values (without
noise) of the front that a method believes in, of trainings in full, by cost: median and quartiles
over 30 seeds; and the share of the cost, in fiftieths, from which on the median stays above the
median of random search's final values: of `RANDOM`, one that draws genes uniformly, as others do,
and one that draws sizes, as ours does. "Our first draws" begin with a population of our sampler's.

The others' settings are the best of those that `--tuning` compares on seeds 0 to 9
(benchmarks/results/search_tuning.json), with draws of their own, ours are the presets'; reported
are seeds 10 to 39. Whoever trains in full pays for the learning rate's restarts at the rungs, which
the curves have, as halving does: `benchmarks.rungs` says what those do to accuracy. The
surrogate is of another family than our preselection's process, but goes by costs, depth and widths
as that does, chosen on the same curves: "foreseen by genes alone" is without them.
`benchmarks.real_search` has no such bias.
"""

import argparse
import contextlib
import functools
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.curves import RUNGS, feasible
from benchmarks.on_paper import (
    POINTS,
    OnPaper,
    Prices,
    SpentError,
    Table,
    Trainer,
    volumes_by_cost,
)
from benchmarks.peers import aging, optuna, pymoo, uniform
from benchmarks.record import made_of, publish, train_missing
from deepmaker_jax.config import Config, SearchConfig
from deepmaker_jax.evolve import NSGA2, RandomSearch
from deepmaker_jax.evolve.hypervolume import greedy_subset, subset_beside
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.ledger import Ledger
from deepmaker_jax.machine import num_cores, version_of
from deepmaker_jax.measurement import Search
from deepmaker_jax.search import search, strategy_scale
from deepmaker_jax.types import Genome, Objective

FIDELITY = {"name": "search", "epochs": RUNGS[-1], "images": 10_000, "side": 32}
SEEDS, TUNING_SEEDS, NUM_FULL = range(10, 40), range(10), 96


@functools.cache
def _strategy(
    kind: Any,
    population: int,
    num_choices: tuple[int, ...],
    ordered: tuple[bool, ...] | None,
    objectives: tuple[Objective, ...],
) -> Any:
    """Returns a strategy; each population compiles anew."""
    genome = np.zeros(len(num_choices), np.int32)
    further = {} if ordered is None else {"ordered": ordered}
    return kind(
        population, genome, num_choices=num_choices, scale=strategy_scale(objectives), **further
    )


def ours(trainer: Any, seed: int, *, kind: Any = NSGA2, **settings: Any) -> None:
    """Runs this package's search with some settings."""
    whole = {"generations": 10_000, "epochs": RUNGS[-1]} | settings
    config = Config(seed=seed, search=SearchConfig(**whole))
    part, objectives = trainer.feasible, trainer.objectives
    steps = config.search.mutation == "step"
    ordered = tuple(gene.ordered for gene in part.space.genes) if steps else None
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(pathlib.Path(folder) / "ledger.jsonl")
        s = Search(
            config, part, objectives,
            _strategy(kind, whole["population"], part.space.num_choices, ordered, objectives),
            OnPaper(lambda unit: trainer.train(unit.arch, RUNGS.index(unit.num_epochs))), ledger,
            FIDELITY,
        )  # fmt: skip
        with contextlib.closing(ledger):
            for _ in search(s):
                pass


class Uniform(Feasible):
    """Networks whose sizes are as uniform draws from the genes have them."""

    def sample(
        self,
        rng: np.random.Generator,
        *,
        num: int,
        known: Collection[str] = (),
        chosen: Collection[str] = (),
        draws: Iterator[Genome] | None = None,
    ) -> list[Genome]:
        """Returns genomes that are drawn again until they are within the limits."""
        found: dict[str, Genome] = {}
        while len(found) < num:
            genome = self.space.sample(rng, num=1)[0] if draws is None else next(draws)
            name = self.space.id(genome)
            if self.allows(genome) and name not in known and name not in chosen:
                found[name] = genome
        return list(found.values())


def without_sizes(trainer: Trainer, seed: int) -> None:
    """Ours, with a first population that is drawn uniformly."""
    part = trainer.feasible
    trainer.feasible = Uniform(part.space, part.limits, part.spread)
    ours(trainer, seed, **OURS)


def by_crowding(trainer: Trainer, seed: int) -> None:
    """Ours, with candidates of a front promoted by crowding, as in NSGA-II."""

    def sparsest(scaled: np.ndarray, *, num: int, there: Sequence[int] = ()) -> np.ndarray:
        distances = np.zeros(len(scaled))
        for column in scaled.T:
            order = np.argsort(column, kind="stable")
            gaps = np.diff(column[order]) / max(np.ptp(column), 1e-12)
            distances[order[1:-1]] += gaps[1:] + gaps[:-1]
            distances[order[[0, -1]]] = np.inf
        rest = [i for i in np.argsort(-distances, kind="stable") if i not in there]
        return np.array(rest[:num], np.int64)

    with mock.patch("deepmaker_jax.ladder.subset_beside", sparsest):
        ours(trainer, seed, **OURS)


def by_volume(trainer: Trainer, seed: int) -> None:
    """Ours, with candidates of a front promoted by hypervolume alone."""

    def greatest(scaled: np.ndarray, *, num: int, there: Sequence[int] = ()) -> np.ndarray:
        return greedy_subset(scaled, num=len(there) + num, first=there)[len(there) :]

    with mock.patch("deepmaker_jax.ladder.subset_beside", greatest):
        ours(trainer, seed, **OURS)


def most_accurate_child(trainer: Trainer, seed: int) -> None:
    """Ours, whose preselection takes the child hoped most accurate first, as promotion does."""

    def with_it(scaled: np.ndarray, *, num: int, first: Sequence[int] = ()) -> np.ndarray:
        there = list(first)
        return np.array([*there, *subset_beside(scaled, num=num - len(there), there=there)])

    with mock.patch("deepmaker_jax.preselection.greedy_subset", with_it):
        ours(trainer, seed, **OURS)


def by_genes(trainer: Trainer, seed: int) -> None:
    """Ours, whose preselection sees genes and epochs, but nothing of what the genes make."""
    with mock.patch("deepmaker_jax.preselection._sizes", return_value=[]):
        ours(trainer, seed, **OURS)


# As the presets have it: tuned, 64 for 1 ends 0.002 above, 32 for 1 without halving 0.001.
OURS = {"population": 8, "rungs": 2, "oversample": 32}
PLAIN = {"population": 8}
AGING = {"population": 10, "sample": 5}
OPTUNA_NSGA2 = {"population_size": 8}
OPTUNA_TPE = {"multivariate": True, "n_startup_trials": 25}
PYMOO_NSGA2, PYMOO_NSGA3 = {"population": 16}, {"population": 8}
RANDOM = ("random, uniform genes", "random, our sampler")
METHODS: dict[str, Callable[[Trainer, int], None]] = {
    "random, uniform genes": uniform,
    "random, our sampler": functools.partial(ours, kind=RandomSearch, **PLAIN),
    "NSGA-II": functools.partial(ours, **PLAIN),
    "ours": functools.partial(ours, **OURS),
    "ours, without halving": functools.partial(ours, **OURS | {"rungs": 1}),
    "ours, without preselection": functools.partial(ours, **OURS | {"oversample": 1}),
    "ours, without evolution": functools.partial(ours, kind=RandomSearch, **OURS),
    "ours, first drawn uniformly": without_sizes,
    "ours, foreseen by genes alone": by_genes,
    "ours, most accurate child first": most_accurate_child,
    "ours, promoting by crowding": by_crowding,
    "ours, promoting by hypervolume alone": by_volume,
    "ours, three rungs": functools.partial(ours, **OURS | {"rungs": 3}),
    "ours, 8 for 1": functools.partial(ours, **OURS | {"oversample": 8}),
    "ours, population of 16": functools.partial(ours, **OURS | {"population": 16}),
    "ours, mutation by steps": functools.partial(ours, **OURS, mutation="step"),
    "regularised evolution": functools.partial(aging, **AGING),
}
PEERS: dict[str, Callable[..., None]] = {
    "Optuna NSGA-II": functools.partial(optuna, sampler="nsga2", **OPTUNA_NSGA2),
    "Optuna TPE": functools.partial(optuna, sampler="tpe", **OPTUNA_TPE),
    "pymoo NSGA-II": functools.partial(pymoo, kind="nsga2", **PYMOO_NSGA2),
    "pymoo NSGA-III": functools.partial(pymoo, kind="nsga3", **PYMOO_NSGA3),
}
for _name, _peer in PEERS.items():
    METHODS[_name] = _peer
    METHODS[f"{_name}, our first draws"] = functools.partial(_peer, our_draws=True)


def _settings() -> dict[str, Callable[[Trainer, int], None]]:
    """Returns what the settings of `METHODS` are the best of."""
    found: dict[str, Callable[[Trainer, int], None]] = {}

    def add(name: str, method: Callable[..., None], *choices: dict[str, Any]) -> None:
        for settings in choices:
            words = ", ".join(f"{key} {value}" for key, value in settings.items())
            found[f"{name}: {words}"] = functools.partial(method, **settings)

    grid = itertools.product((8, 16), (2, 3), (8, 32))
    rungs = [{"population": p, "rungs": r, "oversample": o} for p, r, o in grid]
    add("ours", ours, OURS | {"rungs": 1}, OURS | {"oversample": 64}, *rungs)
    sizes = [{"population": p} for p in (8, 16, 32)]
    add("NSGA-II", ours, *sizes, {"population": 8, "mutation": "step"})
    grid = itertools.product((10, 25, 50), (3, 5, 10))
    add("regularised evolution", aging, *({"population": p, "sample": s} for p, s in grid))
    add("regularised evolution", aging, {"population": 25, "sample": 5, "differs": True})
    crowds = [{"population_size": p} for p in (8, 16, 32)]
    add("Optuna NSGA-II", functools.partial(optuna, sampler="nsga2"), *crowds)
    grid = itertools.product((True, False), (10, 25))
    estimators = [{"multivariate": m, "n_startup_trials": s} for m, s in grid]
    add("Optuna TPE", functools.partial(optuna, sampler="tpe"), *estimators)
    add("pymoo NSGA-II", functools.partial(pymoo, kind="nsga2"), *sizes)
    add("pymoo NSGA-III", functools.partial(pymoo, kind="nsga3"), *sizes)
    return found


SETTINGS = _settings()


def budget(prices: Prices) -> float:
    """Returns the seconds that the networks of a random search cost that are trained in full."""
    part = feasible()
    genomes = part.sample(np.random.default_rng(12345), num=NUM_FULL)
    return sum(prices.seconds(part.space.decode(g), 0, RUNGS[-1]) for g in genomes)


@functools.cache
def _table(curves: pathlib.Path) -> Table:
    return Table(curves)


def do_job(curves: pathlib.Path, name: str, seed: int) -> dict[str, Any]:
    """Returns the row of one method with one seed: the hypervolume by share of the cost."""
    table = _table(curves)
    trainer = Trainer(table, budget(table.prices), seed)
    with contextlib.suppress(SpentError):
        (METHODS | SETTINGS)[name](trainer, seed)
    volumes = volumes_by_cost(trainer.full, trainer.objectives)
    found = [round(float(volume), 4) for volume in volumes]
    return {"method": name, "seed": seed, "volumes": found}


def summary(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns what is published of each method's volumes, Float[seeds, points]."""
    goals = {name: float(np.median(found[name][:, -1])) for name in RANDOM if name in found}
    rows = []
    for name, table in found.items():
        median = np.median(table, axis=0)
        shares = {}
        for goal, volume in goals.items():
            below = np.flatnonzero(median < volume)  # it may fall again: true values are not known
            first = below[-1] + 1 if len(below) else 0
            shares[goal] = float(first + 1) / POINTS if first < POINTS else None
        quartiles = np.percentile(table, [25, 75], axis=0).T.round(4).tolist()  # [points, 2]
        rows.append(
            {
                "method": name,
                "hypervolume": round(float(median[-1]), 4),
                "quartiles": quartiles[-1],
                "cost_share_to": shares,
                "by_cost": [round(float(v), 4) for v in median],
                "quartiles_by_cost": quartiles,
            }
        )
    return {"methods": rows}


def main() -> None:
    """Runs every method with every seed and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--tuning", action="store_true", help="compares settings instead")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    names, seeds = (SETTINGS, TUNING_SEEDS) if args.tuning else (args.methods, SEEDS)
    jobs = {f"{name}, seed {seed}": (args.curves, name, seed) for name in names for seed in seeds}
    rows = train_missing(
        do_job, jobs, args.work / "rows.jsonl", num_workers=num_cores(),
        made_of=made_of(args.curves),
    )  # fmt: skip
    found = {
        name: np.array([row["volumes"] for row in rows if row["method"] == name]) for name in names
    }
    prices = Prices(args.curves)
    kept = {"seeds": len(seeds), "prices": [round(float(p), 3) for p in prices.figures]}
    peers = {name: version_of(name) for name in ("optuna", "pymoo", "scikit-learn")}
    kept |= {"budget_seconds": round(budget(prices)), "peers": peers}
    publish(kept | summary(found), args.out)


if __name__ == "__main__":
    main()
