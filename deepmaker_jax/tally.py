"""What a search has found so far: its front, from the ledger's records."""

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepmaker_jax.events import GenerationDone
from deepmaker_jax.evolve.hypervolume import hypervolume
from deepmaker_jax.ledger import Record
from deepmaker_jax.objective import scaled
from deepmaker_jax.types import Objective


def objective_values(record: Record, objectives: Sequence[Objective]) -> list[float]:
    """Returns a measurement's raw objectives; all infinite if it failed."""
    values = [record["objectives"].get(o.name) for o in objectives]
    if record["status"] != "ok" or None in values:
        return [np.inf] * len(objectives)
    return values


class Tally:
    """What a search has found so far: who was measured, and the best of them.

    The front is of those that were trained in full. What is dominated by what was there
    is not kept: a search may be long.

    Attributes:
      known: ids of every candidate of this run so far.
      front: ledger records of those that nobody dominates, by error, then size, then id.
    """

    def __init__(self, objectives: tuple[Objective, ...], fidelity: dict[str, Any]):
        """Begins with nothing; `fidelity` is that of a training in full."""
        self.known: set[str] = set()
        self.front: list[Record] = []
        self._values = np.empty((0, len(objectives)))  # of the front
        self._objectives, self._fidelity = objectives, fidelity

    def add(self, records: Sequence[Record]) -> None:
        """Takes note of new measurements."""
        self.known.update(record["id"] for record in records)
        for record in records:
            if record["status"] == "ok" and record["fidelity"] == self._fidelity:
                self._enter(record)

    def _enter(self, record: Record) -> None:
        value, values = np.array(objective_values(record, self._objectives)), self._values
        if ((values <= value).all(1) & (values < value).any(1)).any():
            return
        kept = np.asarray(~((value <= values).all(1) & (value < values).any(1)))
        self.front = [r for r, keep in zip(self.front, kept, strict=True) if keep]
        place = bisect.bisect(self.front, self._order(record), key=self._order)
        self.front.insert(place, record)
        self._values = np.insert(values[kept], place, value, axis=0)

    def _order(self, record: Record) -> tuple:
        return (*objective_values(record, self._objectives), record["id"])

    def summary(self, generation: int) -> GenerationDone:
        """Returns what is told at a generation's end."""
        volume = hypervolume(scaled(self._values, self._objectives))
        return GenerationDone(generation, len(self.known), volume, list(self.front))
