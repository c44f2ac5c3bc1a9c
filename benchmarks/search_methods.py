"""Searches at equal cost on a surrogate of training: ours, its parts left out, and its peers.

    pip install -e '.[benchmark]'
    python -m benchmarks.search_methods --curves benchmarks/results/curves.jsonl --work WORK \\
        --out FILE

Every method looks for networks of the part of space `deepmaker` that `benchmarks.curves` sampled,
minimises error and parameters, and spends the same: the seconds (of `on_paper.Prices`) that 96
networks of the sampler cost when each is trained in full; deciding costs nothing. Answers come from
`benchmarks.surrogate`, with a seed's noise. Reported: the hypervolume of the true values (without
noise) of the front that a method believes in, of trainings in full, by cost: median and quartiles
over 30 seeds; by how much ours ends above; and the share of the cost, in fiftieths, from which on
the median stays above the median of random search's final values: of `RANDOM`, one that draws genes
uniformly, as others do, and one that draws sizes, as ours does. Intervals hold 90 % of what comes
out with seeds drawn again, with replacement, the same for all. The others begin with uniform draws,
or, with "our first draws", with some of our sampler's.

The others' settings are the best of those that `--tuning` compares on seeds 0 to 9
(benchmarks/results/search_tuning.json), for either kind of first draws; ours are the presets'.
Reported are seeds 10 to 39. Whoever trains in full pays for the learning rate's restarts at the
rungs, which the curves have, as halving does: `benchmarks.rungs` says what those do to accuracy.
The surrogate is of another family than our preselection's process, but goes by costs, depth and
widths as that does, chosen on the same curves: "foreseen by genes alone" is without them. It is
also smoother than trainings are: what it missed of those that it had not seen, beyond a seed's
noise, `--rough` adds to every network's truth, where nobody can foresee it.
`benchmarks.real_search` has no such bias.
"""

import argparse
import contextlib
import functools
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.curves import RUNGS, feasible
from benchmarks.on_paper import (
    POINTS,
    Prices,
    SpentError,
    Table,
    Trainer,
    run_search,
    volumes_by_cost,
)
from benchmarks.peers import aging, optuna, pymoo, uniform, uniformly
from benchmarks.record import made_of, publish, train_missing
from benchmarks.resample import drawn, interval
from deepmaker_jax.config import Config, SearchConfig
from deepmaker_jax.evolve import NSGA2, RandomSearch
from deepmaker_jax.evolve.hypervolume import greedy_subset, subset_beside
from deepmaker_jax.files import load_json
from deepmaker_jax.machine import num_cores, version_of
from deepmaker_jax.search import strategy_scale
from deepmaker_jax.types import Objective

TUNING = pathlib.Path(__file__).parent / "results" / "search_tuning.json"
SEEDS, TUNING_SEEDS, NUM_FULL = range(10, 40), range(10), 96
# What only says what is compared: a row is of one method and one seed, whatever the others.
APART = ("grids", "tried", "best_settings")


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
    strategy = _strategy(kind, whole["population"], part.space.num_choices, ordered, objectives)
    run_search(
        config, part, objectives, strategy,
        lambda unit: trainer.train(unit.arch, RUNGS.index(unit.num_epochs)),
    )  # fmt: skip


def without_sizes(trainer: Trainer, seed: int) -> None:
    """Ours, with a first population that is drawn uniformly."""
    trainer.feasible = uniformly(trainer.feasible)
    ours(trainer, seed, **OURS)


def plain(trainer: Trainer, seed: int, *, our_draws: bool = False, **settings: Any) -> None:
    """Our NSGA-II without rungs and preselection."""
    if not our_draws:
        trainer.feasible = uniformly(trainer.feasible)
    ours(trainer, seed, **settings)


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


# As the presets have it.
OURS = {"population": 8, "rungs": 2, "oversample": 32}
RANDOM = ("random, uniform genes", "random, our sampler")
METHODS: dict[str, Callable[[Trainer, int], None]] = {
    "random, uniform genes": uniform,
    "random, our sampler": functools.partial(ours, kind=RandomSearch, population=8),
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
}
OTHERS: dict[str, Callable[..., None]] = {
    "NSGA-II": plain,
    "regularised evolution": aging,
    "Optuna NSGA-II": functools.partial(optuna, sampler="nsga2"),
    "Optuna TPE": functools.partial(optuna, sampler="tpe"),
    "pymoo NSGA-II": functools.partial(pymoo, kind="nsga2"),
    "pymoo NSGA-III": functools.partial(pymoo, kind="nsga3"),
}
OUR_DRAWS = ", our first draws"


def grids() -> dict[str, dict[str, Sequence[Any]]]:
    """Returns which settings of the others `--tuning` compares.

    A crowd of more than `NUM_FULL` never evolves. An eta of 0 draws anew from the whole range, one
    of 100 leaves most integers where they were; beyond, searches come to a stand.
    """
    crowds, etas = (4, 8, 16, 32, 64), (0.0, 0.1, 0.3, 1.0, 3.0, 15.0, 30.0, 100.0)
    return {
        "NSGA-II": {"population": crowds, "mutation": ("redraw", "step")},
        "regularised evolution": {
            "population": (5, 10, 25, 50), "sample": (2, 3, 5, 10), "differs": (False, True),
        },
        "Optuna NSGA-II": {"first": (*crowds, 128)},
        "Optuna TPE": {
            "first": (2, 5, 10, 25, 50, 100), "multivariate": (True, False),
            "n_ei_candidates": (24, 96),
        },
        "pymoo NSGA-II": {"population": crowds, "eta": etas},
        "pymoo NSGA-III": {"population": crowds, "eta": etas},
    }  # fmt: skip


def in_words(name: str, settings: dict[str, Any]) -> str:
    """Returns what a method with some settings is called."""
    return f"{name}: " + ", ".join(f"{key} {value}" for key, value in settings.items())


def tried() -> dict[str, Callable[[Trainer, int], None]]:
    """Returns what `--tuning` compares: of the others, and of ours those near the presets'."""
    grid = itertools.product((8, 16), (2, 3), (8, 32))
    near = [OURS | {"rungs": 1}, OURS | {"oversample": 64}]
    near += [{"population": p, "rungs": r, "oversample": o} for p, r, o in grid]
    found = {in_words("ours", settings): functools.partial(ours, **settings) for settings in near}
    for name, grid in grids().items():
        for draws, values in itertools.product((False, True), itertools.product(*grid.values())):
            settings = dict(zip(grid, values, strict=True))
            if settings.get("sample", 0) > settings.get("population", 0):
                continue
            whole = in_words(name + OUR_DRAWS * draws, settings)
            found[whole] = functools.partial(OTHERS[name], our_draws=draws, **settings)
    return found


SETTINGS = tried()


def best_settings(tuning: dict[str, Any]) -> dict[str, str]:
    """Returns in which of `SETTINGS` each of the others did best, in the figures of `--tuning`."""
    volumes = {row["method"]: row["hypervolume"] for row in tuning["methods"]}
    found: dict[str, str] = {}
    known = [words for words in SETTINGS if words in volumes]
    for words in sorted(known, key=lambda words: -volumes[words]):
        found.setdefault(words.partition(": ")[0], words)
    found.pop("ours", None)
    return found


BEST = best_settings(load_json(TUNING)) if TUNING.exists() else {}
METHODS |= {name: SETTINGS[words] for name, words in BEST.items()}


@functools.cache
def _table(curves: pathlib.Path, rough: bool) -> tuple[Table, float]:
    """Returns the answers, and the seconds that there are."""
    table = Table(curves, rough=rough)
    return table, budget(table.prices)


def budget(prices: Prices) -> float:
    """Returns the seconds that the networks of a random search cost that are trained in full."""
    part = feasible()
    genomes = part.sample(np.random.default_rng(12345), num=NUM_FULL)
    return sum(prices.seconds(part.space.decode(g), 0, RUNGS[-1]) for g in genomes)


def do_job(curves: pathlib.Path, name: str, seed: int, rough: bool) -> dict[str, Any]:
    """Returns the row of one method with one seed: the hypervolume by share of the cost."""
    trainer = Trainer(*_table(curves, rough), seed)
    with contextlib.suppress(SpentError):
        (METHODS | SETTINGS)[name](trainer, seed)
    volumes = volumes_by_cost(trainer.full, trainer.objectives)
    found = [round(float(volume), 4) for volume in volumes]
    return {"method": name, "seed": seed, "volumes": found}


def share_to(medians: np.ndarray, goal: float) -> float | None:
    """Returns the share of the cost from which on medians, Float[points], reach a goal."""
    below = np.flatnonzero(medians < goal)  # it may fall again: true values are not known
    first = below[-1] + 1 if len(below) else 0
    return float(first + 1) / POINTS if first < POINTS else None


def summary(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns what is published of volumes, Float[seeds, points], by the methods' names.

    All are of the same seeds. The others are compared with ours, if it is there.
    """
    num = len(next(iter(found.values())))
    samples = [np.arange(num), *drawn(num)]
    medians = {
        name: np.array([np.median(table[rows], axis=0) for rows in samples])  # [samples, points]
        for name, table in found.items()
    }
    goals = {name: medians[name][:, -1] for name in RANDOM if name in found}
    rows = []
    for name, table in found.items():
        shares = {}
        for goal, volumes in goals.items():
            first, *others = map(share_to, medians[name], volumes)
            missed = [1.0 + 1 / POINTS if share is None else share for share in others]
            ends = [None if end > 1 else end for end in interval(missed, places=2)]
            shares[goal] = {"value": first, "interval": ends}
        quartiles = np.percentile(table, [25, 75], axis=0).T.round(4).tolist()  # [points, 2]
        row = {
            "method": name,
            "hypervolume": round(float(medians[name][0, -1]), 4),
            "quartiles": quartiles[-1],
        }
        if "ours" in found and name != "ours":
            first, *others = (medians["ours"] - medians[name])[:, -1]
            row["ours_above_by"] = {
                "value": round(float(first), 4),
                "interval": interval(others),
            }
        row |= {
            "cost_share_to": shares,
            "by_cost": medians[name][0].round(4).tolist(),
            "quartiles_by_cost": quartiles,
        }
        rows.append(row)
    return {"methods": rows}


def main() -> None:
    """Runs every method with every seed and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--tuning", action="store_true", help="compares settings instead")
    parser.add_argument("--rough", action="store_true", help="with what nobody can foresee")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    names, seeds = (SETTINGS, TUNING_SEEDS) if args.tuning else (args.methods, SEEDS)
    jobs = {
        f"{name}, seed {seed}" + ", rough" * args.rough: (args.curves, name, seed, args.rough)
        for name in names
        for seed in seeds
    }
    rows = train_missing(
        do_job, jobs, args.work / "rows.jsonl", num_workers=num_cores(),
        made_of=made_of(do_job, args.curves, *() if args.tuning else (TUNING,), apart=APART),
    )  # fmt: skip
    found = {
        name: np.array([row["volumes"] for row in rows if row["method"] == name]) for name in names
    }
    prices = Prices(args.curves)
    kept = {
        "seeds": len(seeds),
        "rough": args.rough,
        "prices": [round(float(p), 3) for p in prices.figures],
    }
    peers = {name: version_of(name) for name in ("optuna", "pymoo", "scikit-learn")}
    kept |= {"budget_seconds": round(budget(prices)), "peers": peers}
    told = summary(found)
    if args.tuning:  # hundreds of rows, of which only the ends decide
        told["methods"] = [
            {key: row[key] for key in ("method", "hypervolume", "quartiles")}
            for row in told["methods"]
        ]
    else:
        kept["settings"] = [words for name, words in BEST.items() if name in names]
    publish(kept | told, args.out)


if __name__ == "__main__":
    main()
