"""All that a search knows, as a function of its measurements in their order."""

from collections.abc import Sequence
from typing import Any

from deepmaker_jax.config import SearchConfig
from deepmaker_jax.ladder import Ladder
from deepmaker_jax.ledger import Record
from deepmaker_jax.preselection import Preselection
from deepmaker_jax.spaces import Space
from deepmaker_jax.tally import Tally
from deepmaker_jax.types import Objective


class Memory:
    """What was measured, and what follows from it.

    Attributes:
      ladder: who goes on to more training.
      tally: who was measured, and the front.
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
        self.tally = Tally(objectives, self.ladder.fidelities[-1])
        self.preselection = None
        if search.oversample > 1:
            self.preselection = Preselection(space, objectives, self.ladder.rungs)

    def add(self, rung: int, records: Sequence[Record]) -> None:
        """Takes note of measurements at a rung."""
        self.ladder.add(rung, records)
        self.tally.add(records)
        if self.preselection is not None:
            self.preselection.add(rung, records)
