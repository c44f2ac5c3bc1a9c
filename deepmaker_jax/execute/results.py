"""What an executor's thread has to say to the host loop, until its last unit is answered."""

import queue
from collections.abc import Iterator
from typing import Any

from deepmaker_jax.execute.unit import Outcome


class Results:
    """Progress and outcomes in the order in which they came, or what ended the thread."""

    def __init__(self):
        """Begins without a unit to wait for."""
        self.num_open = 0  # units that are not answered yet
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, result: Any) -> None:
        """Takes what the thread says; an exception is raised in the host loop."""
        self._said.put(result)

    def __iter__(self) -> Iterator[Any]:
        """Yields what was said until no unit is open; waits for it."""
        while self.num_open:
            result = self._said.get()
            if isinstance(result, BaseException):
                raise result
            self.num_open -= isinstance(result, Outcome)
            yield result
