"""A Ray cluster, this machine's own or an existing one, and what its nodes do."""

import contextlib
import ctypes
import functools
import logging
import os
import pathlib
import platform
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from deepmaker_jax import program
from deepmaker_jax.errors import InputError, one_line
from deepmaker_jax.execute import remains, runtime
from deepmaker_jax.execute.inline import Inline
from deepmaker_jax.execute.unit import Beat, Outcome, Task, arrays
from deepmaker_jax.files import InMemory

PACKAGE = pathlib.Path(__file__).parent.parent
PROBE_SECONDS = 5.0  # in which an address must answer
STORE_BYTES = 256 << 20  # of a local cluster's object store, beside the data
# Messages of nodes stay in Ray's log files: what of them concerns the run, the run says.
QUIET = ("RAY_DEDUP_LOGS_SKIP_REGEX", ".")


class Ready(NamedTuple):
    """A node's first word: its name, and what bits depend on there."""

    node: str
    conditions: dict[str, Any]


class _Streaming(Inline):
    """Each of its results comes with the files written before it; among them are signs of life."""

    def __init__(self, task: Task, files: InMemory):
        self.words: queue.SimpleQueue[tuple[Any, dict[pathlib.Path, bytes]]] = queue.SimpleQueue()
        self._written, self._beat = files, Beat(self._tell)
        super().__init__(task, files)

    def _tell(self, result: Any) -> None:
        self.words.put((result, self._written.take()))

    def _go_on(self) -> None:
        super()._go_on()
        self._beat()


def do(shared: Any, work: list[Any]) -> Iterator[Any]:
    """Does a unit in a process of some node: `Ready`, then (result, {path: bytes written}) each.

    Args:
      shared: a list of the reference to the task.
      work: a list of the reference to (unit, {path: bytes it may read}). What stands
        in lists Ray does not fetch by itself: a unit that kills its process in this
        does so after `Ready`.
    """
    import ray

    task = _fetched(shared[0])
    yield Ready(platform.node(), program.training_conditions())
    unit, given = ray.get(work[0])
    runner = _Streaming(task, InMemory(given))
    runner.submit(unit)
    result = None
    while not isinstance(result, Outcome):
        result, written = runner.words.get()
        if isinstance(result, BaseException):
            raise result
        yield result, written
    runner.close()


@functools.lru_cache(maxsize=1)
def _fetched(task: Any) -> Task:
    """Returns the run's task: a node fetches its arrays once, its processes map them."""
    import ray

    return ray.get(task)


def remote() -> Any:
    """Returns `do` as a function of Ray's, for one CPU.

    A generator that is ahead waits for its reader, so that no word of a process that
    dies is lost but the last one.
    """
    import ray

    return ray.remote(do).options(
        num_returns="streaming", num_cpus=1, max_retries=0, name="deepmaker unit",
        _generator_backpressure_num_objects=1, runtime_env={"env_vars": _environment()},
    )  # fmt: skip


def _environment() -> dict[str, str]:
    """Returns a worker's variables: the same settings of JAX and XLA as here, on CPUs."""
    settings = {
        name: value
        for name, value in os.environ.items()
        if name == "XLA_FLAGS" or (name.startswith("JAX_") and not name.endswith("_DIR"))
    }
    return settings | runtime.worker_environment() | {"JAX_PLATFORMS": "cpu"}


def unreachable(address: str, why: str) -> InputError:
    """Returns what to raise for a cluster that does not answer."""
    return InputError(
        f"address (={address}) is no cluster that this machine is a node of ({why}): start Ray on "
        "it, or leave --address out"
    )


@contextlib.contextmanager
def connection(address: str | None, num_workers: int, task: Task) -> Iterator[int]:
    """Connects to a cluster, or starts one, for as long as the block runs; yields its CPUs.

    Nodes get this package's code from here, so that it is the same everywhere. A
    connection that is there already is used, and left as it is.

    Args:
      address: of the cluster; None starts one.
      num_workers: CPUs of one that is started.
      task: the data that its memory must hold.

    Raises:
      InputError: there is no such cluster.
    """
    os.environ.setdefault(*QUIET)  # before the import, which reads it
    import ray

    if ray.is_initialized():
        yield num_cpus()
        return
    settings: dict[str, Any] = {
        "logging_level": logging.CRITICAL,
        "log_to_driver": False,
        "runtime_env": {"py_modules": [str(PACKAGE)]},
    }
    watcher = None
    if address is None:
        folder = tempfile.mkdtemp(prefix="deepmaker-")  # a short name: Ray's sockets lie below it
        watcher = subprocess.Popen(
            [sys.executable, "-I", remains.__file__, folder],
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        num_bytes = sum(value.nbytes for value in arrays(task).values())
        settings |= {
            "num_cpus": num_workers, "num_gpus": 0, "include_dashboard": False,
            "object_store_memory": STORE_BYTES + 2 * num_bytes, "_temp_dir": folder,
        }  # fmt: skip
        # Ray forks only to execute another program at once, which JAX's threads do not mind.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
    try:
        try:
            if address not in (None, "auto"):  # Ray itself would try for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), PROBE_SECONDS).close()
            with _signals_kept():
                ray.init(address or "local", **settings)
        except Exception as error:  # noqa: BLE001 - Ray raises what it likes
            if address is None:
                raise InputError(f"executor (=ray) cannot start: {one_line(error)}") from None
            raise unreachable(address, one_line(error)) from None
        yield num_cpus()
    finally:
        ray.shutdown(wait_for_processes=True)
        if watcher is not None:
            watcher.communicate()  # it sees the end of its pipe


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """What Ray starts in the block sees no signal to the whole group, and SIGTERM stays ours.

    A signal that is blocked in this thread stays blocked in its children. Ray itself
    handles SIGTERM from then on, below Python, which is undone.
    """
    system, before = ctypes.CDLL(None), ctypes.create_string_buffer(1024)  # more than a sigaction
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    system.sigaction(signal.SIGTERM, None, before)
    try:
        yield
    finally:
        system.sigaction(signal.SIGTERM, before, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def num_cpus() -> int:
    """Returns the CPUs of the cluster's living nodes."""
    import ray

    return int(ray.cluster_resources().get("CPU", 0))
