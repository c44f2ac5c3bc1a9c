"""What a process needs before JAX computes in it: one XLA thread, memory, a place for programs."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

ONE_THREAD = {"NPROC": "1", "PJRT_NPROC": "1"}  # XLA's CPU client sizes its thread pools by these
# glibc's malloc asks for huge pages: a step allocates its maps anew, and first touches of small
# pages took an eighth of it (benchmarks/results/plain_step_huge_pages.json, and the plain_step.json
# of its commit, c17eb17). Other C libraries ignore it.
TUNABLES, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def cache_folder() -> pathlib.Path:
    """Returns where compiled programs are kept between processes and runs.

    `JAX_COMPILATION_CACHE_DIR` names another place.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    default = os.path.join(home, "deepmaker-jax", "programs")
    return pathlib.Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or default)


def one_thread() -> bool:
    """Limits XLA to one CPU thread in this process and those it starts.

    With more, results differ from call to call (jax#39741). Returns whether it
    holds: once JAX has started, which importing evosax is enough for, it is too
    late for this process.
    """
    if not is_one_thread() and not _jax_has_started():
        os.environ.update(ONE_THREAD)
    return is_one_thread()


def _jax_has_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def is_one_thread() -> bool:
    """Whether `one_thread` was called in this process or the one that started it."""
    return all(os.environ.get(name) == value for name, value in ONE_THREAD.items())


def worker_environment() -> dict[str, str]:
    """Returns the variables that a worker starts with: one XLA thread, huge pages."""
    return ONE_THREAD | {TUNABLES: _with_huge_pages(os.environ.get(TUNABLES))}


@contextlib.contextmanager
def starting_workers(**environment: str) -> Iterator[None]:
    """Processes that start in this block have one XLA thread, huge pages, and never see a Ctrl-C.

    They find `environment` too: what JAX reads there holds whatever they import first.

    A terminal sends SIGINT to the whole group: it is the parent's to handle, also
    while a worker is still importing. A blocked signal stays blocked in the child.
    """
    wanted = worker_environment() | environment
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    masked = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masked else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _with_huge_pages(tunables: str | None) -> str:
    """Returns the tunables with huge pages, unless the user has decided on them."""
    if not tunables:
        return HUGE_PAGES
    return tunables if HUGE_PAGES.split("=")[0] in tunables else f"{tunables}:{HUGE_PAGES}"


def belong_to_parent(*, scratch: pathlib.Path | None = None) -> None:
    """Ends this process, a worker, once its parent is gone: a killed parent cannot do it.

    A worker that leads a process group takes what it started along. A Ctrl-C is the
    parent's: blocked in the first thread, another one that a library began may take it.

    Args:
      scratch: a folder that the parent would have removed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        words = (parent.sentinel, scratch)
        threading.Thread(target=_await_end, args=words, daemon=True).start()


def _await_end(sentinel: Any, scratch: pathlib.Path | None) -> None:
    multiprocessing.connection.wait([sentinel])
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)  # at once: what it computes is for nobody


def keep_programs() -> None:
    """Turns on JAX's persistent compilation cache for programs worth keeping."""
    import jax

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # programs are compiled anew then, with the same results
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
