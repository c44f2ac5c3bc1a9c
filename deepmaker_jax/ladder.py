"""Successive halving under several objectives: which candidates get more training.

All candidates train for a few epochs; the better share of them goes on from there to
the next rung, and so to the last. Better is decided among all that were measured at
the rung so far, those of earlier generations too: by front, and within a front the most
accurate, then by what a candidate adds to the hypervolume.

Source: Schmucker, Donini, Zafar, Salinas and Archambeau, "Multi-objective asynchronous
successive halving", 2021; there the order within a front is by crowding or by distance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepmaker_jax.config import SearchConfig
from deepmaker_jax.evolve import host_rank
from deepmaker_jax.evolve.hypervolume import subset_beside
from deepmaker_jax.ledger import Record
from deepmaker_jax.objective import scaled
from deepmaker_jax.tally import objective_values
from deepmaker_jax.types import Objective


def rungs(search: SearchConfig) -> tuple[int, ...]:
    """Returns the epochs at which candidates are measured, rising; the last are all of them."""
    powers = reversed(range(search.rungs))
    return tuple(search.epochs // search.reduction**power for power in powers)


def mean_epochs(search: SearchConfig) -> float:
    """Returns how many epochs a generation's candidates train for on average, if none fails."""
    total, going, before = 0, search.population, 0
    for epochs in rungs(search):
        total += going * (epochs - before)
        going, before = _better_share(going, search.reduction), epochs
    return total / search.population


def _better_share(num: int, reduction: int) -> int:
    """Returns how many of a generation's candidates go on from a rung; of any at least one."""
    return -(-num // reduction)


def fidelity_at(rung: int, epochs: Sequence[int], full: dict[str, Any]) -> dict[str, Any]:
    """Returns the fidelity of a measurement at a rung, as the ledger has it.

    The learning rate went through a cycle up to each rung: that is part of what
    training was seen.
    """
    found = full | {"epochs": epochs[rung]}
    return found | ({"rungs": list(epochs[: rung + 1])} if len(epochs) > 1 else {})


def best(values, scaled_values, *, among: Sequence[int], num: int) -> list[int]:
    """Returns the `num` best of the rows `among`: front by front, of the last see `subset_beside`.

    Args:
      values: Float[n, m], finite, minimised: they decide who dominates whom.
      scaled_values: Float[n, m], the same on the scaled axes.
      among: rows that may be chosen; the others have a part in fronts and volumes.
      num: how many, at most as many as `among`.

    Returns:
      Indices of rows, the best first but for those of a front that all go on, by index.
    """
    rank = host_rank(values)
    may_be_chosen = np.isin(np.arange(len(rank)), among)
    chosen: list[int] = []
    for front in np.unique(rank[may_be_chosen]):
        members = np.flatnonzero(rank == front)
        free = np.flatnonzero(may_be_chosen[members])
        if len(free) > num - len(chosen):  # whoever adds most to those that are there anyway
            there = np.flatnonzero(~may_be_chosen[members]).tolist()
            more = num - len(chosen)
            rows = subset_beside(scaled_values[members], num=more, there=there)
            return chosen + members[rows].tolist()
        chosen += members[free].tolist()
    return chosen


class Ladder:
    """What was measured at each rung of one search, and who has gone on from it.

    Attributes:
      rungs: epochs, rising.
      fidelities: of a measurement at each rung, as the ledger has it.
    """

    def __init__(
        self, search: SearchConfig, objectives: tuple[Objective, ...], fidelity: dict[str, Any]
    ):
        """Begins with nothing measured; `fidelity` is that of a search without rungs."""
        self.rungs = rungs(search)
        self.fidelities = [fidelity_at(i, self.rungs, fidelity) for i in range(len(self.rungs))]
        self._reduction, self._objectives = search.reduction, objectives
        self._ids: list[list[str]] = [[] for _ in self.rungs]
        self._values: list[list[list[float]]] = [[] for _ in self.rungs]
        self._gone: list[set[str]] = [set() for _ in self.rungs]

    def add(self, rung: int, records: Sequence[Record]) -> None:
        """Takes note of measurements at a rung; those that failed go no further."""
        for record in records:
            if rung > 0:
                self._gone[rung - 1].add(record["id"])
            if record["status"] == "ok" and rung < len(self.rungs) - 1:
                self._ids[rung].append(record["id"])
                self._values[rung].append(objective_values(record, self._objectives))

    def promote(self, rung: int, ids: Sequence[str]) -> list[str]:
        """Returns the better share of a generation's candidates, at least one.

        Args:
          rung: where they were measured; not the last.
          ids: of the candidates, those that failed there included.
        """
        wanted = set(ids)
        among = [i for i, id in enumerate(self._ids[rung]) if id in wanted]
        num = min(len(among), _better_share(len(ids), self._reduction))
        return [self._ids[rung][i] for i in self._best(rung, among, num)]

    def promote_any(self) -> tuple[int, str] | None:
        """Returns (rung, id) of the candidate that is next to go on from there, or None.

        It is one in the better share of all that were measured at a rung so far, the
        highest rung first: asynchronous successive halving (Li et al. 2020).
        """
        for rung in reversed(range(len(self.rungs) - 1)):
            num = len(self._ids[rung])
            for i in self._best(rung, range(num), num // self._reduction):
                if (id := self._ids[rung][i]) not in self._gone[rung]:
                    self._gone[rung].add(id)
                    return rung, id
        return None

    def rung_of(self, fidelity: dict[str, Any]) -> int | None:
        """Returns the rung that a measurement was made at; None if it is none of this search's."""
        return self.fidelities.index(fidelity) if fidelity in self.fidelities else None

    def _best(self, rung: int, among: Sequence[int], num: int) -> list[int]:
        values = np.array(self._values[rung]).reshape(-1, len(self._objectives))
        return best(values, scaled(values, self._objectives), among=among, num=num)
