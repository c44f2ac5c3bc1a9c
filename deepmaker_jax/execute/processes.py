"""Units in processes of their own, one XLA thread each, data shared by memory map."""

import collections
import multiprocessing
import multiprocessing.connection
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Epoch
from deepmaker_jax.execute import runtime
from deepmaker_jax.execute.unit import Outcome, Task, Unit, arrays
from deepmaker_jax.execute.work import do_unit
from deepmaker_jax.files import replacing
from deepmaker_jax.ledger import WORKER_DIED

READY = "ready"  # a worker's first word: its imports worked, so what kills it now is its unit


class _Worker(NamedTuple):
    process: Any
    connection: Any


def _work(connection: Any, task: Task, folder: pathlib.Path) -> None:
    """A worker's whole life: READY, then units in, progress and outcomes out, to the pipe's end."""
    runtime.end_with_parent()
    runtime.keep_programs()
    shared = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name, value in task._asdict().items()
        if value is None
    }
    task = task._replace(**shared)
    try:
        connection.send(READY)
        while True:
            connection.send(do_unit(connection.recv(), task, connection.send))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone: so is the reason to work


class Processes:
    """The executor for CPUs: `num_workers` processes, started with spawn.

    A worker that dies is replaced and its unit is done once more; when that
    worker dies too, the unit comes back as failed. Only workers that die before
    they are ready, whatever they were to do, end the run.
    """

    def __init__(self, task: Task, *, num_workers: int, folder: pathlib.Path):
        """Starts nothing yet: the first unit writes the data into `folder` and starts workers."""
        self.num_workers = num_workers
        self._folder = folder
        self._task = task
        self._waiting: collections.deque[Unit] = collections.deque()
        self._doing: dict[_Worker, Unit | None] = {}
        self._repeated: set[Unit] = set()
        self._starting: set[_Worker] = set()
        self._num_unready = 0  # workers in a row that died while they were starting
        self._opened = False

    def _open(self) -> None:
        """Writes the data once and starts the workers."""
        self._opened = True
        shared = arrays(self._task)
        for name, value in shared.items():
            with replacing(self._folder / f"{name}.npy") as path, open(path, "wb") as file:
                np.save(file, value)
        self._bare = self._task._replace(**dict.fromkeys(shared))
        for _ in range(self.num_workers):
            self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self._bare, self._folder), daemon=True
        )
        with runtime.starting_workers():
            process.start()
        theirs.close()
        worker = _Worker(process, mine)
        self._doing[worker] = None
        self._starting.add(worker)

    def submit(self, unit: Unit) -> None:
        """Hands the unit to a free worker, or lets it wait."""
        if not self._doing:
            self._open()
        self._waiting.append(unit)
        self._hand_out()

    def _hand_out(self) -> None:
        for worker, unit in list(self._doing.items()):
            if unit is None and self._waiting:
                self._doing[worker] = self._waiting.popleft()
                try:
                    worker.connection.send(self._doing[worker])
                except (BrokenPipeError, ConnectionResetError):
                    continue  # `results` finds the dead worker and reports its unit

    def results(self) -> Iterator[Epoch | Outcome]:
        """Yields progress and outcomes until no submitted unit is left."""
        while self._waiting or any(self._doing.values()):
            by_connection = {worker.connection: worker for worker in self._doing}
            ready: list[Any] = multiprocessing.connection.wait(list(by_connection))
            for connection in ready:
                worker = by_connection[connection]
                try:
                    result = connection.recv()
                except (EOFError, ConnectionResetError):
                    result = self._bury(worker)
                if result == READY:
                    self._starting.discard(worker)
                    self._num_unready = 0
                    continue
                if isinstance(result, Outcome) and worker in self._doing:
                    self._doing[worker] = None
                self._hand_out()
                if result is not None:
                    yield result

    def _bury(self, worker: _Worker) -> Outcome | None:
        """Replaces a dead worker; returns what became of its unit."""
        unit = self._doing.pop(worker)
        worker.process.join()
        was_ready = worker not in self._starting
        self._starting.discard(worker)
        self._num_unready += not was_ready
        if self._num_unready > self.num_workers + 2:
            raise InputError(
                "worker processes cannot start (see their messages above): a script that starts a "
                'run must do so under `if __name__ == "__main__":`, or take --executor inline'
            )
        worker.connection.close()
        self._start()
        if unit is None:
            return None
        if unit not in self._repeated or not was_ready:
            if was_ready:
                self._repeated.add(unit)
            self._waiting.appendleft(unit)
            return None
        code = worker.process.exitcode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Outcome(unit.id, unit.stage, "failed", f"{WORKER_DIED} ({how})", {}, {})

    def close(self) -> None:
        """Ends the workers at once and removes the shared data."""
        for worker in self._doing:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._doing:
            worker.process.join()
        self._doing.clear()
        self._starting.clear()
        if self._opened:  # else it may be another run's, and this one be refused
            shutil.rmtree(self._folder, ignore_errors=True)
