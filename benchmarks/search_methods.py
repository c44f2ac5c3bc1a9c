"""Searches at equal cost on a surrogate of training: ours, its parts left out, and its peers.

    pip install -e '.[benchmark]'
    python -m benchmarks.search_methods --curves benchmarks/results/curves.jsonl --work WORK \\
        --out FILE

Every method looks for networks of the part of space `deepmaker` that `benchmarks.curves` sampled,
minimises error and parameters, and spends the same: cost is multiply-accumulates times the epochs
trained, as much as 96 networks of the sampler cost when each is trained in full. Answers come from
`benchmarks.surrogate`, with a seed's noise. Reported: the hypervolume of the true values (without
noise) of the front that a method believes in, of trainings in full, by cost: median and quartiles
over 30 seeds; and the share of the cost at which each reaches the final value of a random search:
of `RANDOM`, one that draws genes uniformly, as others do, and one that draws sizes, as ours does.
The surrogate is of another family than our preselection's process, but goes by like features, which
were chosen on the same curves: that may favour ours. `benchmarks.real_search` has no such bias.
"""

import argparse
import contextlib
import functools
import hashlib
import pathlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.curves import LIMITS, RUNGS, feasible
from benchmarks.on_paper import (
    OBJECTIVES,
    POINTS,
    OnPaper,
    SpentError,
    Table,
    Trainer,
    volumes_by_cost,
)
from benchmarks.peers import aging, optuna, pymoo, uniform
from benchmarks.record import publish, train_missing
from deepmaker_jax.config import Config, SearchConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.evolve import NSGA2, RandomSearch
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.ledger import Ledger
from deepmaker_jax.machine import num_cores
from deepmaker_jax.measurement import Search
from deepmaker_jax.search import search, strategy_scale
from deepmaker_jax.types import Genome

FIDELITY = {"name": "search", "epochs": RUNGS[-1], "images": 9000, "side": 32}
NUM_SEEDS, NUM_FULL = 30, 96


@functools.cache
def _strategy(
    kind: Any, population: int, num_choices: tuple[int, ...], ordered: tuple[bool, ...] | None
) -> Any:
    """Returns a strategy; each population compiles anew."""
    genome = np.zeros(len(num_choices), np.int32)
    further = {} if ordered is None else {"ordered": ordered}
    return kind(
        population, genome, num_choices=num_choices, scale=strategy_scale(OBJECTIVES), **further
    )


def ours(trainer: Trainer, seed: int, *, kind: Any = NSGA2, **settings: Any) -> None:
    """Runs this package's search with some settings."""
    whole = {"population": 16, "generations": 10_000, "epochs": RUNGS[-1]} | settings
    config = Config(seed=seed, limits=LIMITS, search=SearchConfig(**whole))
    part = trainer.feasible
    steps = config.search.mutation == "step"
    ordered = tuple(gene.ordered for gene in part.space.genes) if steps else None
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(pathlib.Path(folder) / "ledger.jsonl")
        s = Search(
            config, part, OBJECTIVES,
            _strategy(kind, whole["population"], part.space.num_choices, ordered),
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
    trainer.feasible = Uniform(*trainer.feasible)
    ours(trainer, seed, **OURS)


def by_crowding(trainer: Trainer, seed: int) -> None:
    """Ours, with candidates of a front promoted by crowding, as in NSGA-II."""

    def sparsest(scaled: np.ndarray, *, num: int, first: Sequence[int]) -> np.ndarray:
        distances = np.zeros(len(scaled))
        for column in scaled.T:
            order = np.argsort(column, kind="stable")
            gaps = np.diff(column[order]) / max(np.ptp(column), 1e-12)
            distances[order[1:-1]] += gaps[1:] + gaps[:-1]
            distances[order[[0, -1]]] = np.inf
        rest = [i for i in np.argsort(-distances, kind="stable") if i not in first]
        return np.array([*first, *rest][:num])

    with mock.patch("deepmaker_jax.ladder.greedy_subset", sparsest):
        ours(trainer, seed, **OURS)


OURS = {"rungs": 3, "oversample": 8}
RANDOM = ("random, uniform genes", "random, our sampler")
METHODS: dict[str, Callable[[Trainer, int], None]] = {
    "random, uniform genes": uniform,
    "random, our sampler": functools.partial(ours, kind=RandomSearch),
    "NSGA-II": ours,
    "ours": functools.partial(ours, **OURS),
    "ours, without halving": functools.partial(ours, **OURS | {"rungs": 1}),
    "ours, without preselection": functools.partial(ours, **OURS | {"oversample": 1}),
    "ours, without evolution": functools.partial(ours, kind=RandomSearch, **OURS),
    "ours, first drawn uniformly": without_sizes,
    "ours, promoting by crowding": by_crowding,
    "ours, two rungs": functools.partial(ours, **OURS | {"rungs": 2}),
    "ours, 4 for 1": functools.partial(ours, **OURS | {"oversample": 4}),
    "ours, 16 for 1": functools.partial(ours, **OURS | {"oversample": 16}),
    "ours, mutation by steps": functools.partial(ours, **OURS, mutation="step"),
    "regularised evolution": aging,
    "Optuna NSGA-II": functools.partial(optuna, sampler="nsga2"),
    "Optuna TPE": functools.partial(optuna, sampler="tpe"),
    "Optuna TPE, our first draws": functools.partial(optuna, sampler="tpe", our_draws=True),
    "pymoo NSGA-II": functools.partial(pymoo, kind="nsga2"),
    "pymoo NSGA-II, our first draws": functools.partial(pymoo, kind="nsga2", our_draws=True),
    "pymoo NSGA-III": functools.partial(pymoo, kind="nsga3"),
}


def budget() -> float:
    """Returns what the networks of a random search cost that are trained in full."""
    part = feasible()
    genomes = part.sample(np.random.default_rng(12345), num=NUM_FULL)
    return float(sum(cost(part.space.decode(g)).macs for g in genomes) * RUNGS[-1])


@functools.cache
def _table(curves: pathlib.Path) -> Table:
    return Table(curves)


def do_job(curves: pathlib.Path, name: str, seed: int, whole: float) -> dict[str, Any]:
    """Returns the row of one method with one seed: the hypervolume by share of the cost."""
    trainer = Trainer(_table(curves), whole, seed)
    with contextlib.suppress(SpentError):
        METHODS[name](trainer, seed)
    found = [round(float(volume), 4) for volume in volumes_by_cost(trainer.full)]
    return {"method": name, "seed": seed, "volumes": found}


def summary(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns what is published of each method's volumes, Float[seeds, points]."""
    goals = {name: float(np.median(found[name][:, -1])) for name in RANDOM if name in found}
    rows = []
    for name, table in found.items():
        median = np.median(table, axis=0)
        shares = {}
        for goal, volume in goals.items():
            reached = np.flatnonzero(median >= volume)
            shares[goal] = float(reached[0] + 1) / POINTS if len(reached) else None
        low, high = np.percentile(table[:, -1], [25, 75])
        rows.append(
            {
                "method": name,
                "hypervolume": round(float(median[-1]), 4),
                "quartiles": [round(float(low), 4), round(float(high), 4)],
                "cost_share_to": shares,
                "by_cost": [round(float(v), 4) for v in median],
            }
        )
    return {"methods": rows}


def main() -> None:
    """Runs every method with every seed and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    whole = budget()
    digest = hashlib.sha256(args.curves.read_bytes()).hexdigest()[:8]
    jobs = {
        f"{name}, seed {seed}, curves {digest}": (args.curves, name, seed, whole)
        for name in args.methods
        for seed in range(args.seeds)
    }
    lines = train_missing(do_job, jobs, args.work / "rows.jsonl", num_workers=num_cores())
    rows = [line for line in lines if line["job"] in jobs]
    found = {
        name: np.array([row["volumes"] for row in rows if row["method"] == name])
        for name in args.methods
    }
    publish({"seeds": args.seeds} | summary(found), args.out)


if __name__ == "__main__":
    main()
