"""Trainings on paper: what a search asks for, answered by a surrogate, for its cost.

The cost of a measurement is the seconds that one core takes for it, compiling and validating
included, as fitted to those that stand in benchmarks/results/curves.jsonl.
"""

import contextlib
import functools
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from benchmarks import surrogate
from benchmarks.curves import LIMITS, NUM_BY_CLASS, RUNGS, feasible
from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.config import Config, LimitConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.evolve import front
from deepmaker_jax.evolve.hypervolume import hypervolume
from deepmaker_jax.execute import Outcome, Unit
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.ledger import Ledger, Record
from deepmaker_jax.measurement import Search
from deepmaker_jax.objective import built_in, scaled
from deepmaker_jax.search import search
from deepmaker_jax.types import Objective


def objectives_of(limits: LimitConfig) -> tuple[Objective, ...]:
    """Returns error and parameters, which every method minimises."""
    return built_in("error", limits), built_in("params", limits)


OBJECTIVES = objectives_of(LIMITS)
POINTS = 50  # of a curve over the cost


class SpentError(Exception):
    """The budget is spent."""


class Trainer:
    """What every method asks: trains a network to a rung, for its cost, on paper.

    Attributes:
      feasible: the networks that may be asked for.
      objectives: what is minimised.
      spent: Float, share of the budget.
      full: [(spent, measured error, true error, params)] of trainings in full.
    """

    def __init__(self, table: "Table", budget: float, seed: int):
        """Has spent nothing.

        Args:
          table: what answers.
          budget: in seconds of a core.
          seed: of the trainings.
        """
        self.feasible, self.objectives = feasible(), OBJECTIVES
        self._table, self._budget, self._seed = table, budget, seed
        self._epochs: dict[ArchSpec, int] = {}
        self.spent, self.full = 0.0, list[tuple[float, float, float, int]]()

    def train(self, arch: ArchSpec, rung: int = len(RUNGS) - 1) -> float:
        """Returns the error that is measured at a rung; goes on from where the network was.

        Raises:
          SpentError: the budget does not suffice.
        """
        begun = self._epochs.get(arch, 0)
        if RUNGS[rung] > begun:
            self.spent += self._table.prices.seconds(arch, begun, RUNGS[rung]) / self._budget
            if self.spent > 1:
                raise SpentError
            self._epochs[arch] = RUNGS[rung]
        odds = self._table.odds(arch)
        error = _error(odds + self._table.luck(arch, self._seed))[rung]
        if rung == len(RUNGS) - 1:
            self.full.append((self.spent, error, _error(odds)[rung], cost(arch).params))
        return float(error)


def volumes_by_cost(
    full: list[tuple[float, float, float, int]], objectives: tuple[Objective, ...]
) -> np.ndarray:
    """Returns the hypervolume of what is believed to be the front, by share of the budget.

    Args:
      full: [(share spent, measured error, true error, params)].
      objectives: error and parameters.
    """
    found = np.zeros(POINTS)
    for i in range(POINTS):
        done = np.array([row[1:] for row in full if row[0] <= (i + 1) / POINTS])
        if len(done):
            best = front(done[:, [0, 2]])
            found[i] = hypervolume(scaled(done[best][:, [1, 2]], objectives))
    return found


def _error(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


class Prices:
    """What a measurement costs, in seconds of a core.

    The first of a network has a price and one for each convolution, those that go on from there
    have others, and so many multiply-accumulates times epochs cost the same everywhere.

    Attributes:
      figures: Float[5], in this order.
    """

    def __init__(self, path: pathlib.Path):
        """Fits them to curves, by the ratio; outliers, beside other work, count less."""
        rows = [json.loads(line) for line in path.read_text().splitlines()][NUM_BY_CLASS:]
        before = dict(zip(RUNGS, (0, *RUNGS), strict=False))
        decode = feasible().space.decode
        table, seconds = [], []
        for row in rows:
            if row["status"] == "ok":
                arch = decode(np.array(row["genome"], np.int32))
                table.append(_work(arch, before[row["epochs"]], row["epochs"]))
                seconds.append(row["seconds"])
        asked, paid = np.array(table), np.log(seconds)
        fit = least_squares(
            lambda logs: np.log(asked @ np.exp(logs)) - paid, np.zeros(5), loss="soft_l1"
        )
        self.figures = np.exp(fit.x)

    def seconds(self, arch: ArchSpec, begun: int, epochs: int) -> float:
        """Returns what it costs to go on from some epochs to more."""
        return float(_work(arch, begun, epochs) @ self.figures)


@functools.lru_cache(maxsize=100_000)
def _work(arch: ArchSpec, begun: int, epochs: int) -> np.ndarray:
    convs = sum(layer.op == "conv" for layer in layers(arch))
    price = [1, convs, 0, 0] if begun == 0 else [0, 0, 1, convs]
    return np.array([*price, cost(arch).macs / 1e6 * (epochs - begun)])


class Table:
    """The surrogate's answers, each computed once.

    Attributes:
      prices: of trainings.
    """

    def __init__(self, path: pathlib.Path, *, rough: bool = False):
        """Fits the surrogate.

        Args:
          path: of the curves.
          rough: each network's mean differs from the surrogate's by as much as those of the curves
            do that it has not seen.
        """
        archs, odds, self._luck = surrogate.by_network(surrogate.load(path))
        self._model = surrogate.Surrogate(archs, odds)
        self._missed = surrogate.missed(archs, odds, self._luck) if rough else None
        self._known: dict[ArchSpec, np.ndarray] = {}
        self.prices = Prices(path)

    def odds(self, arch: ArchSpec) -> np.ndarray:
        """Returns the mean log odds of a network's error at each rung."""
        if arch not in self._known:
            odds = self._model.odds([arch])[0]
            self._known[arch] = odds if self._missed is None else odds + _one_of(self._missed, arch)
        return self._known[arch]

    def luck(self, arch: ArchSpec, seed: int) -> np.ndarray:
        """Returns what a seed adds to them: what one did to one of the networks that had several.

        Some networks have much more luck than others, which no normal distribution has.
        """
        return _one_of(self._luck, (arch, seed))


def _one_of(rows: np.ndarray, key: Hashable) -> np.ndarray:
    """Returns the row that a key stands for, the same in every process."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return rows[int.from_bytes(digest[:8], "big") % len(rows)]


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


def run_search(
    config: Config,
    part: Feasible,
    objectives: tuple[Objective, ...],
    strategy: Any,
    error_of: Callable[[Unit], float],
) -> list[Record]:
    """Runs this package's search without a training.

    Args:
      config: the settings of the search, and its seed.
      part: the networks that there are.
      objectives: what is minimised.
      strategy: who proposes.
      error_of: answers for a unit; what it raises ends the search.

    Returns:
      The ledger's records.
    """
    fidelity = {"name": "search", "epochs": config.search.epochs, "images": 1, "side": 1}
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(pathlib.Path(folder) / "ledger.jsonl")
        with contextlib.closing(ledger):
            s = Search(config, part, objectives, strategy, OnPaper(error_of), ledger, fidelity)
            for _ in search(s):
                pass
            return list(ledger)
