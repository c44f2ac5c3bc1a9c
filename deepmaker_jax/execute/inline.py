"""Units in this process, one after the other, in a thread beside the host loop."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

from deepmaker_jax import ending
from deepmaker_jax.events import Epoch, ProgramChanged
from deepmaker_jax.execute.results import Results
from deepmaker_jax.execute.runtime import keep_programs
from deepmaker_jax.execute.unit import Outcome, Task, Unit
from deepmaker_jax.execute.work import do_unit
from deepmaker_jax.files import ON_DISK, Files

CLOSE_SECONDS = 2.0  # that the few steps under way are waited for; a compile may take minutes


class Closed(BaseException):
    """Leaves a training that nobody waits for; not an Exception, so that it is no failure."""


class Inline:
    """The executor for one accelerator, a debugger, or a single core.

    The thread lets the host loop show progress and answer Ctrl-C while a
    candidate trains. XLA's own thread count is the caller's (`runtime`).
    """

    num_workers: int = 1

    def __init__(self, task: Task, files: Files = ON_DISK):
        """Starts the thread; `files` reads and writes the units'."""
        keep_programs()
        self._task, self._files = task, files
        self._units: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._results = Results()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            self._work()
        except Closed:
            return
        except BaseException as error:  # noqa: BLE001 - `results` raises it, in the host loop
            self._tell(error)

    def _tell(self, result: Any) -> None:
        self._results.put(result)

    def _work(self) -> None:
        while (unit := self._units.get()) is not None:
            self._go_on()
            self._tell(do_unit(unit, self._task, self._tell, self._go_on, self._files))

    def _go_on(self) -> None:
        if self._closed.is_set():
            raise Closed

    def submit(self, unit: Unit) -> None:
        """Queues a unit."""
        self._results.num_open += 1
        self._units.put(unit)

    def results(self) -> Iterator[Epoch | ProgramChanged | Outcome]:
        """Yields progress and outcomes until no submitted unit is left."""
        yield from self._results

    def close(self) -> None:
        """Ends the thread after the few steps that it is doing.

        Nothing can interrupt a compile: what comes of one is for nobody, and nobody
        waits for it but the process's own end (`ending`).
        """
        self._closed.set()
        self._units.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            ending.leave_behind(self._thread)
