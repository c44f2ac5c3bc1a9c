"""All that a search knows, as a function of its measurements in their order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmaker_jax.config import SearchConfig
from deepmaker_jax.ladder import Ladder
from deepmaker_jax.ledger import Record
from deepmaker_jax.spaces import Space
from deepmaker_jax.tally import Tally
from deepmaker_jax.types import Objective

if TYPE_CHECKING:
    from deepmaker_jax.preselection import Preselection


class History:
    """What was measured, and what follows from it.

    Attributes:
      ladder: who goes on to more training.
      tally: who was measured, and the front of those that were trained in full.
      preselection: which of many children are worth training; None if all proposed are trained.
    """

    def __init__(
        self,
        search: SearchConfig,
        space: Space,
        objectives: tuple[Objective, ...],
        fidelity: dict[str, Any],
    ):
        """Begins with nothing measured; `fidelity` is that of a search without rungs."""
        self.ladder = Ladder(search, objectives, fidelity)
        *lower, full = (Tally(objectives, fidelity) for fidelity in self.ladder.fidelities)
        self.tally, self._lower = full, lower
        self.preselection: Preselection | None = None
        if search.oversample > 1:
            # It brings scikit-learn, a second that other searches need not wait.
            from deepmaker_jax import preselection

            self.preselection = preselection.Preselection(space, objectives, self.ladder.rungs)

    def add(self, rung: int, records: Sequence[Record]) -> None:
        """Takes note of measurements at a rung."""
        self.ladder.add(rung, records)
        self.tally.add(records)
        for lower in self._lower[rung : rung + 1]:
            lower.add(records)
        if self.preselection is not None:
            self.preselection.add(rung, records)

    def highest_front(self) -> list[Record]:
        """Returns the front of the highest rung that anyone came through; [] if nobody did."""
        fronts = [tally.front for tally in (self.tally, *reversed(self._lower))]
        return next(filter(None, fronts), [])
