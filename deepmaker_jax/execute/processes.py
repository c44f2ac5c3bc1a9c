"""Units in processes of their own, one XLA thread each, data shared by memory map."""

import multiprocessing
import multiprocessing.connection
import pathlib
import pickle
import shutil
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from deepmaker_jax.errors import InputError, StorageError
from deepmaker_jax.events import Epoch, Note
from deepmaker_jax.execute import runtime
from deepmaker_jax.execute.line import Line, tried_again
from deepmaker_jax.execute.unit import (
    PATIENCE_SECONDS,
    Beat,
    Outcome,
    Task,
    Unit,
    arrays,
    out_of_memory,
)
from deepmaker_jax.execute.work import do_unit
from deepmaker_jax.files import load_arrays, save_arrays
from deepmaker_jax.ledger import OUT_OF_MEMORY, WORKER_DIED

READY = "ready"  # a worker's first word: its imports worked
BEGUN = "begun"  # its word for each unit: it has arrived, so what kills the worker now is the unit
TICK_SECONDS = 10.0
ENDING_SECONDS = 5.0  # that a worker which has said goodbye may take to be gone


class _Worker(NamedTuple):
    process: Any
    connection: Any


def _work(connection: Any, task: Task, folder: pathlib.Path) -> None:
    """A worker's whole life: READY, then units in, progress and outcomes out, to the pipe's end.

    A unit is BEGUN before it is unpickled, as that may be what kills.
    """
    runtime.belong_to_parent()
    runtime.keep_programs()
    task = task._replace(**load_arrays(folder))
    beat = Beat(connection.send)
    try:
        connection.send(READY)
        while True:
            data = connection.recv_bytes()
            connection.send(BEGUN)
            unit = pickle.loads(data)
            try:
                connection.send(do_unit(unit, task, connection.send, beat))
            except StorageError as error:
                connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone: so is the reason to work


class Processes:
    """The executor for CPUs: `num_workers` processes, started with spawn.

    A worker that dies, or hangs and is killed, is replaced. Its unit, and one that ran
    out of memory, is done again once the others are through: alone, with all the memory
    there is. Only workers that die before they are ready, whatever they were to do, end
    the run.
    """

    def __init__(
        self,
        task: Task,
        *,
        num_workers: int,
        folder: pathlib.Path,
        retries: int = 1,
        patience_seconds: float = PATIENCE_SECONDS,
    ):
        """Starts nothing yet: the first unit writes the data into `folder` and starts workers.

        Args:
          task: what units share.
          num_workers: units at once.
          folder: for the data, as long as the executor is open.
          retries: times that a unit is done again.
          patience_seconds: without a sign of life, after which a worker is killed.
        """
        self.num_workers = num_workers
        self._folder, self._task = folder, task
        self._line, self._patience = Line(retries), patience_seconds
        self._doing: dict[_Worker, Unit | None] = {}
        self._silent: dict[_Worker, float] = {}  # seconds without a word
        self._starting: set[_Worker] = set()
        self._begun: set[_Worker] = set()  # whose unit has arrived
        self._num_unready = 0  # workers in a row that died while they were starting
        self._opened = False

    def _open(self) -> None:
        """Writes the data once and starts the workers."""
        self._opened = True
        shared = arrays(self._task)
        save_arrays(self._folder, **shared)
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
        self._doing[worker], self._silent[worker] = None, 0.0
        self._starting.add(worker)

    def submit(self, unit: Unit) -> None:
        """Hands the unit to a free worker, or lets it wait."""
        if not self._doing:
            self._open()
        self._line.put(unit)
        self._hand_out()

    def _hand_out(self) -> None:
        for worker, unit in list(self._doing.items()):
            if unit is None and (next_unit := self._line.take(self._busy())) is not None:
                self._doing[worker], self._silent[worker] = next_unit, 0.0
                try:
                    worker.connection.send(next_unit)
                except (BrokenPipeError, ConnectionResetError):
                    self._doing[worker] = None  # `results` finds the dead worker
                    self._line.put_back(next_unit)

    def _busy(self) -> list[Unit]:
        return [unit for unit in self._doing.values() if unit is not None]

    def results(self) -> Iterator[Epoch | Note | Outcome]:
        """Yields progress and outcomes until no submitted unit is left.

        Raises:
          InputError: worker processes cannot start.
          StorageError: a worker's disk takes no more.
        """
        while self._line or self._busy():
            by_connection = {worker.connection: worker for worker in self._doing}
            began = time.monotonic()
            ready: list[Any] = multiprocessing.connection.wait(list(by_connection), TICK_SECONDS)
            passed = min(time.monotonic() - began, TICK_SECONDS)
            for worker in self._silent:
                self._silent[worker] += passed
            for connection in ready:
                worker = by_connection[connection]
                try:
                    result = connection.recv()
                    self._silent[worker] = 0.0
                except (EOFError, OSError):  # also in the middle of a word
                    result = self._bury(worker)
                if isinstance(result, StorageError):
                    raise result
                if result == READY:
                    self._starting.discard(worker)
                    self._num_unready = 0
                if result == BEGUN:
                    self._begun.add(worker)
                if isinstance(result, Outcome) and worker in self._doing:
                    result = self._finish(worker, result)
                self._hand_out()
                if isinstance(result, Epoch | Note | Outcome):
                    yield result
            self._mind()

    def _mind(self) -> None:
        """Kills workers that have hung; `results` then finds them dead."""
        for worker, unit in self._doing.items():
            at_work = unit is not None or worker in self._starting
            if at_work and self._silent[worker] > self._patience:
                worker.process.kill()

    def _finish(self, worker: _Worker, outcome: Outcome) -> Outcome | Note:
        """Frees a worker; returns its outcome, or that its unit is done again."""
        unit, self._doing[worker] = self._doing[worker], None
        self._begun.discard(worker)
        assert unit is not None
        if out_of_memory(outcome) and self._line.lose(unit):
            return tried_again(unit, OUT_OF_MEMORY)
        return outcome

    def _bury(self, worker: _Worker) -> Outcome | Note | None:
        """Replaces a dead worker; returns what became of its unit, if that is known."""
        unit, silent = self._doing.pop(worker), self._silent.pop(worker)
        worker.process.join(ENDING_SECONDS)  # it may hang in its own end
        worker.process.kill()
        worker.process.join()
        was_ready, has_begun = worker not in self._starting, worker in self._begun
        self._starting.discard(worker)
        self._begun.discard(worker)
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
        if not has_begun:  # it died while it was idle, or before
            self._line.put_back(unit)
            return None
        code = worker.process.exitcode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if silent > self._patience:
            how = f"no sign of life for {self._patience:g} s"
        reason = f"{WORKER_DIED} ({how})"
        if self._line.lose(unit):
            return tried_again(unit, reason)
        return Outcome(unit.id, unit.stage, "failed", reason, {}, {})

    def close(self) -> None:
        """Ends the workers at once and removes the shared data."""
        for worker in self._doing:
            worker.connection.close()
            worker.process.kill()
        for worker in self._doing:
            worker.process.join()
        for held in (self._doing, self._silent, self._starting, self._begun):
            held.clear()
        if self._opened:  # else it may be another run's, and this one be refused
            shutil.rmtree(self._folder, ignore_errors=True)
