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

from benchmarks import surrogate
from benchmarks.curves import RUNGS, feasible
from benchmarks.record import publish, train_missing
from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.config import Config, LimitConfig, SearchConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.evolve import NSGA2, RandomSearch, front
from deepmaker_jax.evolve.hypervolume import hypervolume
from deepmaker_jax.execute import Outcome, Unit
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.ledger import Ledger
from deepmaker_jax.machine import num_cores
from deepmaker_jax.measurement import Search
from deepmaker_jax.objective import built_in, scaled
from deepmaker_jax.search import search, strategy_scale
from deepmaker_jax.types import Genome

LIMITS = LimitConfig(params=200_000, macs=24_000_000)
OBJECTIVES = (built_in("error", LIMITS), built_in("params", LIMITS))
FIDELITY = {"name": "search", "epochs": RUNGS[-1], "images": 9000, "side": 32}
NUM_SEEDS, NUM_FULL, POINTS = 30, 96, 50


class SpentError(Exception):
    """The budget is spent."""


class Trainer:
    """What every method asks: trains a network to a rung, for its cost, on paper.

    Attributes:
      feasible: the networks that may be asked for.
      spent: Float, share of the budget.
      full: [(spent, measured error, true error, params)] of trainings in full.
    """

    def __init__(self, table: "Table", budget: float, seed: int):
        self.feasible = feasible()
        self._table, self._budget, self._seed = table, budget, seed
        self._epochs: dict[ArchSpec, int] = {}
        self.spent, self.full = 0.0, list[tuple[float, float, float, int]]()

    def train(self, arch: ArchSpec, rung: int = len(RUNGS) - 1) -> float:
        """Returns the error that is measured at a rung; goes on from where the network was.

        Raises:
          SpentError: the budget does not suffice.
        """
        costs, begun = cost(arch), self._epochs.get(arch, 0)
        self.spent += costs.macs * max(0, RUNGS[rung] - begun) / self._budget
        if self.spent > 1:
            raise SpentError
        self._epochs[arch] = max(begun, RUNGS[rung])
        odds = self._table.odds(arch)
        error = _error(odds + self._table.luck(arch, self._seed))[rung]
        if rung == len(RUNGS) - 1:
            self.full.append((self.spent, error, _error(odds)[rung], costs.params))
        return float(error)


def volumes_by_cost(full: list[tuple[float, float, float, int]]) -> np.ndarray:
    """Returns the hypervolume of what is believed to be the front, by share of the budget.

    Args:
      full: [(share spent, measured error, true error, params)].
    """
    found = np.zeros(POINTS)
    for i in range(POINTS):
        done = np.array([row[1:] for row in full if row[0] <= (i + 1) / POINTS])
        if len(done):
            best = front(done[:, [0, 2]])
            found[i] = hypervolume(scaled(done[best][:, [1, 2]], OBJECTIVES))
    return found


def _error(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


class Table:
    """The surrogate's answers, each computed once."""

    def __init__(self, path: pathlib.Path):
        archs, odds, noise = surrogate.by_network(surrogate.load(path))
        self._model = surrogate.Surrogate(archs, odds)
        self._root = np.linalg.cholesky(noise + 1e-9 * np.eye(len(noise)))
        self._known: dict[ArchSpec, np.ndarray] = {}

    def odds(self, arch: ArchSpec) -> np.ndarray:
        """Returns the mean log odds of a network's error at each rung."""
        if arch not in self._known:
            self._known[arch] = self._model.odds([arch])[0]
        return self._known[arch]

    def luck(self, arch: ArchSpec, seed: int) -> np.ndarray:
        """Returns what a seed adds to them."""
        digest = hashlib.sha256(repr((arch, seed)).encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return self._root @ rng.standard_normal(len(self._root))


class OnPaper:
    """Answers behind the executor's interface, without a training."""

    num_workers = 1

    def __init__(self, error_of: Callable[[Unit], float]):
        """Takes what answers for a unit: the error that is measured."""
        self._error_of, self._units = error_of, list[Unit]()

    def submit(self, unit: Unit) -> None:
        """Queues a unit."""
        self._units.append(unit)

    def results(self) -> Iterator[Outcome]:
        """Yields outcomes in the order of submission."""
        while self._units:
            unit = self._units.pop(0)
            error = self._error_of(unit)
            measured = {"val_accuracy": 1 - error, "val_loss": error, "train_loss": error}
            yield Outcome(unit.id, unit.stage, "ok", None, measured, {})

    def close(self) -> None:
        """Has nothing to end."""


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


def uniform(trainer: Trainer, seed: int) -> None:
    """Uniform draws from the genes, those beyond the limits rejected: what others call random."""
    part, rng = trainer.feasible, np.random.default_rng(seed)
    while True:
        genome = part.space.repair(part.space.sample(rng, num=1)[0])
        if part.allows(genome):
            trainer.train(part.space.decode(genome))


def aging(trainer: Trainer, seed: int, *, population: int = 25, sample: int = 5) -> None:
    """Regularised evolution (Real et al. 2019) of a weighted sum; each step draws its weights."""
    part, rng = trainer.feasible, np.random.default_rng(seed)
    alive: list[tuple[np.ndarray, np.ndarray]] = []

    def measure(genome: np.ndarray) -> None:
        arch = part.space.decode(genome)
        values = np.array([[trainer.train(arch), cost(arch).params]])
        alive.append((genome, scaled(values, OBJECTIVES)[0]))

    for genome in part.sample(rng, num=population):
        measure(genome)
    while True:
        rows = rng.choice(len(alive), sample, replace=False)
        weight = rng.uniform()
        weights = np.array([weight, 1 - weight])
        parent = min((alive[i] for i in rows), key=lambda one: float(one[1] @ weights))[0]
        child = parent.copy()
        i = rng.integers(len(child))
        child[i] = rng.integers(part.space.num_choices[i])
        child = part.shrink(rng, child)
        if child is not None:
            measure(child)
            alive.pop(0)


def first_draws(part: Feasible, seed: int) -> list[Genome]:
    """Returns a first population whose sizes are spread, as ours begins with."""
    return part.sample(np.random.default_rng(seed), num=16)


def optuna(trainer: Trainer, seed: int, *, sampler: str, our_draws: bool = False) -> None:
    """Optuna's multi-objective samplers; networks beyond the limits are constraints, for free.

    Args:
      trainer: of the networks.
      seed: of the draws.
      sampler: "nsga2" or "tpe".
      our_draws: begins with as many networks as our sampler begins with.
    """
    import optuna as package

    part = trainer.feasible
    package.logging.set_verbosity(package.logging.ERROR)

    kind = {"nsga2": package.samplers.NSGAIISampler, "tpe": package.samplers.TPESampler}[sampler]
    size = {"population_size": 16} if sampler == "nsga2" else {"multivariate": True}
    study = package.create_study(
        directions=["minimize", "minimize"],
        sampler=kind(seed=seed, **size),
    )
    for genome in first_draws(part, seed) if our_draws else ():
        values = map(int, genome)
        study.enqueue_trial(
            dict(zip([gene.name for gene in part.space.genes], values, strict=True))
        )

    def objective(trial: Any) -> tuple[float, float]:
        genome = np.array(
            [
                trial.suggest_int(gene.name, 0, len(gene.choices) - 1)
                if all(isinstance(c, int) for c in gene.choices)
                else trial.suggest_categorical(gene.name, range(len(gene.choices)))
                for gene in part.space.genes
            ]
        )
        genome = part.space.repair(genome)
        excess, arch = part.excess(genome), part.space.decode(genome)
        trial.set_constraint("excess", excess - 1)
        values = np.array([[1.0 if excess > 1 else trainer.train(arch), cost(arch).params]])
        return tuple(scaled(values, OBJECTIVES)[0].tolist())

    study.optimize(objective, n_trials=None)


def pymoo(trainer: Trainer, seed: int, *, kind: str, our_draws: bool = False) -> None:
    """pymoo's NSGA-II and NSGA-III on integer genes, with its own operators and constraints.

    Args:
      trainer: of the networks.
      seed: of the draws.
      kind: "nsga2" or "nsga3".
      our_draws: begins with a population of our sampler's.
    """
    from pymoo.algorithms.moo import nsga2, nsga3
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize
    from pymoo.util.ref_dirs import get_reference_directions

    part = trainer.feasible

    class Problem(ElementwiseProblem):
        def __init__(self):
            most = np.array(part.space.num_choices) - 1
            super().__init__(n_var=len(most), n_obj=2, n_ieq_constr=1, xl=0, xu=most, vtype=int)

        def _evaluate(self, x, out, *args, **kwargs):
            genome = part.space.repair(np.asarray(x, np.int32))
            excess, arch = part.excess(genome), part.space.decode(genome)
            error = 1.0 if excess > 1 else trainer.train(arch)
            out["F"] = scaled(np.array([[error, cost(arch).params]]), OBJECTIVES)[0]
            out["G"] = excess - 1

    how = {
        "pop_size": 16,
        "sampling": np.array(first_draws(part, seed)) if our_draws else IntegerRandomSampling(),
        "crossover": SBX(prob=0.9, eta=3.0, vtype=float, repair=RoundingRepair()),
        "mutation": PM(eta=3.0, vtype=float, repair=RoundingRepair()),
        "eliminate_duplicates": True,
    }
    if kind == "nsga3":
        how["ref_dirs"] = get_reference_directions("das-dennis", 2, n_partitions=15)
    algorithm = nsga2.NSGA2(**how) if kind == "nsga2" else nsga3.NSGA3(**how)
    minimize(Problem(), algorithm, ("n_gen", 1_000_000), seed=seed, verbose=False)


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
