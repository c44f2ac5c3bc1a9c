"""The units of an executor that wait, and what becomes of those that were lost."""

import collections
from collections.abc import Collection

from deepmaker_jax.events import Note
from deepmaker_jax.execute.unit import Unit


def tried_again(unit: Unit, reason: str) -> Note:
    """Returns what a person is told of a unit that was lost and has a try left."""
    return Note(f"{unit.id}: {reason}; tried again, alone, once the others are through")


class Line:
    """Units in the order in which they came; one that was lost is done again at the end, alone.

    Alone it has all the memory there is, for want of which most are lost. At the head of
    the line it waits until nobody trains, and nobody begins while it does.
    """

    def __init__(self, retries: int):
        """Starts empty; a unit is done again up to `retries` times."""
        self._retries = retries
        self._units: collections.deque[Unit] = collections.deque()
        self._num_losses: collections.Counter[Unit] = collections.Counter()

    def __len__(self) -> int:
        return len(self._units)

    def put(self, unit: Unit) -> None:
        """Takes a unit in."""
        self._units.append(unit)

    def put_back(self, unit: Unit) -> None:
        """Takes back, at the head, a unit that was handed out and lost by no fault of its own."""
        self._units.appendleft(unit)

    def lose(self, unit: Unit) -> bool:
        """Whether a lost unit has a try left; if so, it stands in the line again."""
        self._num_losses[unit] += 1
        if self._num_losses[unit] > self._retries:
            return False
        self._units.append(unit)
        return True

    def take(self, doing: Collection[Unit]) -> Unit | None:
        """Returns the next unit, or None if none may begin beside those that are being done."""
        if not self._units or any(self._num_losses[unit] for unit in doing):
            return None
        if self._num_losses[self._units[0]] and doing:
            return None
        return self._units.popleft()
