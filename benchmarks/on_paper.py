"""Trainings on paper: what a search asks for, answered by a surrogate, for its cost."""

import hashlib
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks import surrogate
from benchmarks.curves import LIMITS, RUNGS, feasible
from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.cost import cost
from deepmaker_jax.evolve import front
from deepmaker_jax.evolve.hypervolume import hypervolume
from deepmaker_jax.execute import Outcome, Unit
from deepmaker_jax.objective import built_in, scaled

OBJECTIVES = (built_in("error", LIMITS), built_in("params", LIMITS))
POINTS = 50  # of a curve over the cost


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
