"""Units as tasks of a Ray cluster, whose nodes may join and leave, and share no files."""

import collections
import concurrent.futures
import contextlib
import math
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from deepmaker_jax import program
from deepmaker_jax.errors import InputError, one_line
from deepmaker_jax.events import Epoch, Note, ProgramChanged
from deepmaker_jax.execute import cluster
from deepmaker_jax.execute.line import Line, tried_again
from deepmaker_jax.execute.results import Results
from deepmaker_jax.execute.unit import (
    ALIVE,
    PATIENCE_SECONDS,
    Outcome,
    Task,
    Unit,
    out_of_memory,
)
from deepmaker_jax.execute.work import outcome_of
from deepmaker_jax.files import write_bytes
from deepmaker_jax.ledger import OUT_OF_MEMORY, WORKER_DIED
from deepmaker_jax.machine import num_cores

CONNECT_SECONDS = 30.0  # in which a cluster must answer
SLICE_SECONDS = 0.5  # of a wait for results: as late does the thread see a new unit, or the end
NOTE_SECONDS, GIVE_UP_SECONDS = 60.0, 900.0  # without any worker: then it says so; then it ends
MOST_LOSSES = 10  # of one unit with its nodes, without an epoch in between


class Ray:
    """The executor for clusters: a task for each unit, which streams its results back.

    All that is Ray's happens in one thread, so that the host loop can answer signals.
    Paths are this machine's: the bytes of files travel with units and results, and a
    checkpoint comes with every epoch, so that a node that dies costs no more than the
    epochs under way. A unit whose process died, or ran out of memory, is done again
    after the others; one whose node died at once, up to MOST_LOSSES times. A connection
    that the caller has made is used and left alone.
    """

    num_workers: int

    def __init__(
        self,
        task: Task,
        *,
        num_workers: int = 0,
        address: str | None = None,
        retries: int = 1,
        accept_platform: bool = False,
    ):
        """Connects to a cluster; one of its own is started with the first unit.

        Args:
          task: what the units share.
          num_workers: units at once; 0 for as many as the cluster has CPUs.
          address: of the cluster; None starts one on this machine.
          retries: times that a unit is done again whose process died.
          accept_platform: nodes may have other versions or processors than this one.

        Raises:
          InputError: the cluster does not answer.
        """
        self._task, self._address, self._accept = task, address, accept_platform
        self._follows = not num_workers  # as many as the cluster has
        self._most = num_workers or math.inf
        self._units: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._results = Results()
        self._thread: threading.Thread | None = None
        self._connected: concurrent.futures.Future[int] = concurrent.futures.Future()
        # What follows is the thread's.
        self._line = Line(retries)
        self._doing: dict[Any, Unit] = {}
        self._ready: dict[Any, float] = {}  # of those that have begun: when they last said a word
        self._words: dict[Any, Any] = {}  # references to words that are on their way
        self._hung: set[Any] = set()
        self._num_unready = 0  # tasks in a row whose process died before it was ready
        self._losses: collections.Counter[Unit] = collections.Counter()
        self._conditions = program.training_conditions()
        self._others: set[str] = set()  # nodes that differ from this one
        self.num_workers = num_workers or num_cores()
        if address is not None:
            self._start()
            try:
                num_cpus = self._connected.result(CONNECT_SECONDS)
            except TimeoutError:
                raise cluster.unreachable(
                    address, f"no answer in {CONNECT_SECONDS:.0f} s"
                ) from None
            self.num_workers = num_workers or max(1, num_cpus)

    def submit(self, unit: Unit) -> None:
        """Queues a unit; Ray begins units in the order in which they came."""
        if self._thread is None:
            self._start()
        self._results.num_open += 1
        self._units.put(unit)

    def results(self) -> Iterator[Epoch | Note | ProgramChanged | Outcome]:
        """Yields progress and outcomes until no submitted unit is left.

        Raises:
          InputError: the nodes cannot do units, or would do them to other bits.
          StorageError: what comes back cannot be written here.
          RuntimeError: the cluster has no node left, or has ended.
        """
        yield from self._results

    def close(self) -> None:
        """Cancels what is under way and leaves the cluster, or ends it if it is our own."""
        self._units.put(None)
        if self._thread is not None:
            self._thread.join(CONNECT_SECONDS)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            with cluster.connection(self._address, self.num_workers, self._task) as num_cpus:
                self._connected.set_result(num_cpus)
                self._serve()
        except BaseException as error:  # noqa: BLE001 - `results` raises it
            if type(error).__module__.startswith("ray."):
                error = RuntimeError(
                    f"the cluster has failed ({one_line(error)}): run this again, it goes on where "
                    "it was"
                )
            if not self._connected.done():
                self._connected.set_exception(error)
            self._results.put(error)

    def _serve(self) -> None:
        import ray

        self._shared = [ray.put(self._task)]
        self._remote = cluster.remote()
        self._since, self._noted = time.monotonic(), False
        try:
            while True:
                while not self._units.empty() or not (self._line or self._doing):
                    unit = self._units.get()
                    if unit is None:
                        return
                    if not self._doing:  # the time without work does not count
                        self._since, self._noted = time.monotonic(), False
                    self._line.put(unit)
                while len(self._doing) < self._most:
                    unit = self._line.take(self._doing.values())
                    if unit is None:
                        break
                    self._begin(unit)
                streams, _ = ray.wait(list(self._doing), timeout=SLICE_SECONDS)
                for stream in streams:
                    self._hear(stream)
                self._watch()
        finally:
            for stream in self._doing:
                ray.cancel(stream, force=True)

    def _begin(self, unit: Unit) -> None:
        import ray

        given = {}
        for path in (unit.checkpoint, unit.start):
            if path is not None:
                with contextlib.suppress(OSError):  # the unit says what it lacks
                    given[path] = path.read_bytes()
        self._doing[self._remote.remote(self._shared, [ray.put((unit, given))])] = unit

    def _hear(self, stream: Any) -> None:
        """Takes one message of a task."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        unit = self._doing[stream]
        try:
            word = self._words.pop(stream, None) or next(stream)
            said = ray.get(word, timeout=SLICE_SECONDS)
        except GetTimeoutError:
            self._words[stream] = word  # its bytes are on their way
            return
        except RayError as error:
            was_ready, has_hung = stream in self._ready, stream in self._hung
            ray.cancel(stream, force=True)
            self._leave(stream)
            self._lose(unit, error, was_ready, has_hung)
            return
        self._ready[stream] = time.monotonic()
        if isinstance(said, cluster.Ready):
            self._num_unready = 0
            self._compare(said)
            return
        result, files = said
        self._losses.pop(unit, None)
        try:
            for path, data in files.items():
                write_bytes(path, data)
        except OSError as error:
            result = outcome_of(unit, error)
            ray.cancel(stream, force=True)
        if result == ALIVE:
            return
        if isinstance(result, Outcome):
            self._leave(stream)
            if out_of_memory(result) and self._line.lose(unit):
                self._results.put(tried_again(unit, OUT_OF_MEMORY))
                return
        self._results.put(result)

    def _leave(self, stream: Any) -> None:
        del self._doing[stream]
        self._ready.pop(stream, None)
        self._words.pop(stream, None)
        self._hung.discard(stream)

    def _compare(self, ready: cluster.Ready) -> None:
        """Raises InputError if a node would compute other bits, unless that was accepted."""
        here, there = self._conditions, ready.conditions
        differ = [f"{k} (here {v}, there {there.get(k)})" for k, v in here.items()
                  if there.get(k) != v]  # fmt: skip
        if not differ or ready.node in self._others:
            return
        self._others.add(ready.node)
        text = f"node {ready.node} differs from this machine: {', '.join(differ)}"
        if not self._accept:
            raise InputError(
                f"{text}; results would not be the same bits: make them alike, or add "
                "--accept-platform"
            )
        self._results.put(ProgramChanged(text))

    def _lose(self, unit: Unit, error: Any, was_ready: bool, has_hung: bool) -> None:
        """Does a unit again whose task ended without an outcome, or reports it as failed."""
        from ray import exceptions as e

        cause = getattr(error, "cause", None) or error  # what the task itself raised
        if isinstance(error, e.RayTaskError | e.RuntimeEnvSetupError) and not was_ready:
            raise InputError(
                f"a node of the cluster cannot train ({one_line(cause)}): see BUILD.md, On a "
                "cluster, for what nodes need"
            )
        if isinstance(error, e.RayTaskError) and not isinstance(cause, e.RayError):
            self._results.put(outcome_of(unit, cause))
        elif not (has_hung or isinstance(error, e.WorkerCrashedError | e.OutOfMemoryError)):
            self._losses[unit] += 1
            if self._losses[unit] <= MOST_LOSSES:
                self._line.put_back(unit)
            else:  # it may be what ends them
                self._fail(unit, f"with its node, {MOST_LOSSES} times")
        elif not was_ready:
            self._num_unready += 1
            if self._num_unready > self.num_workers + 2:
                raise InputError(
                    "processes of the cluster die before they are ready: see Ray's logs there"
                )
            self._line.put_back(unit)
        else:
            full = isinstance(error, e.OutOfMemoryError)
            how = "its node ran out of memory" if full else "it was killed, or crashed"
            how = f"no sign of life for {PATIENCE_SECONDS:g} s" if has_hung else how
            if self._line.lose(unit):
                self._results.put(tried_again(unit, f"{WORKER_DIED} ({how})"))
            else:
                self._fail(unit, how)

    def _fail(self, unit: Unit, how: str) -> None:
        reason = f"{WORKER_DIED} ({how})"
        self._results.put(Outcome(unit.id, unit.stage, "failed", reason, {}, {}))

    def _watch(self) -> None:
        """Ends what hangs; says once that no worker begins.

        Raises:
          RuntimeError: no node is left to hope for.
        """
        import ray

        now = time.monotonic()
        for stream, heard in self._ready.items():
            if now - heard > PATIENCE_SECONDS and stream not in self._hung:
                self._hung.add(stream)
                ray.cancel(stream, force=True)
        if self._follows:
            self.num_workers = max(1, cluster.num_cpus())
        if self._ready or not self._doing:
            self._since, self._noted = now, False
        elif now - self._since > NOTE_SECONDS and not self._noted:
            self._noted = True
            self._results.put(Note("no worker of the cluster has begun yet: waiting for one"))
        elif now - self._since > GIVE_UP_SECONDS and not cluster.num_cpus():
            raise RuntimeError(
                f"the cluster has had no node with processors for {GIVE_UP_SECONDS / 60:.0f} "
                "minutes: start one and run this again, it goes on where it was"
            )
