"""One backend on one member, in a process of its own: a crash or a hang is its alone."""

import contextlib
import hashlib
import multiprocessing
import os
import pathlib
import shutil
import signal
import tempfile
import threading
from typing import Any

import numpy as np

from deepmaker_jax import arch as architecture
from deepmaker_jax import machine
from deepmaker_jax.backends import tool
from deepmaker_jax.backends.backend import (
    Backend,
    BackendError,
    Entry,
    Member,
    Tool,
    failed,
    unsupported,
)
from deepmaker_jax.export.manifest import REFERENCE, load_manifest, own_entries, portable_entries
from deepmaker_jax.files import dump_json, sha256

LIMIT_SECONDS = 1800.0
POLL_SECONDS = 0.2
_STARTING = threading.Lock()  # what a process inherits is set for the whole of this one


class StoppedError(Exception):
    """The deployment was stopped while this backend worked."""


def read_member(bundle: pathlib.Path) -> Member:
    """Returns a bundle as backends see it."""
    manifest = load_manifest(bundle)
    with np.load(bundle / REFERENCE) as reference:
        arrays = {name: reference[name] for name in ("images", "labels", "logits")}
    arch = architecture.from_json(manifest["arch"])
    return Member(manifest["id"], bundle, arch, **arrays, portable=portable_entries(manifest))


def made_from(manifest: dict[str, Any], backend: Backend, tools: list[Tool]) -> str:
    """Returns a sum over all that a backend's files and figures depend on.

    That is the portable files, the tools, this package's version, and for what is
    timed the machine.
    """
    portable = portable_entries(manifest).items()
    sums = {name: entry["sha256"] for name, entry in portable if entry.get("sha256")}
    key: Entry = {
        "backend": backend.name,
        "files": sums,
        "tools": [list(tool) for tool in tools],
        "version": tool.package("deepmaker-jax").version,
    }
    if backend.timed:
        key["machine"] = [machine.processor(), machine.num_cores()]
    return hashlib.sha256(dump_json(key).encode()).hexdigest()[:16]


def is_fresh(
    bundle: pathlib.Path, manifest: dict[str, Any], backend: Backend, tools: list[Tool]
) -> bool:
    """Whether a backend's files are there, whole, and made from what is here now.

    A tool that is gone since then spoils nothing that it made. A failed file is
    made again, unless that would cost what such a tool made: a time limit or a
    full disk may have been why.
    """
    then = manifest.get("targets", {}).get(backend.name, {})
    versions = then.get("tools", {})
    known = [t._replace(version=t.version or versions.get(t.name)) for t in tools]
    is_gone = known != tools
    if then.get("made_from") != made_from(manifest, backend, known):
        return False
    for name, entry in own_entries(manifest, backend.name).items():
        if entry["status"] == "failed" and not is_gone:
            return False
        if entry.get("sha256") is not None:
            path = bundle / name
            if not path.is_file() or sha256(path) != entry["sha256"]:
                return False
    return True


def run_backend(
    backend: Backend, bundle: pathlib.Path, *, stop: threading.Event, limit_seconds: float
) -> dict[str, Entry]:
    """Builds and measures in a new process; returns the manifest's entries by path.

    A backend that raises has one entry, its folder's. Nothing that was begun is
    left behind: no process, no temporary file, no folder that the entries do not list.

    Args:
      backend: what to run; its functions can be pickled.
      bundle: the member's.
      stop: ends the process when it is set.
      limit_seconds: ends it as well.

    Raises:
      BackendError: its process died, or took too long.
      StoppedError: `stop` was set.
    """
    with tempfile.TemporaryDirectory(prefix="deepmaker-", ignore_cleanup_errors=True) as scratch:
        try:
            return _run(backend, bundle, scratch, stop=stop, limit_seconds=limit_seconds)
        except BaseException:
            shutil.rmtree(bundle / backend.name, ignore_errors=True)
            raise


def _run(
    backend: Backend,
    bundle: pathlib.Path,
    scratch: str,
    *,
    stop: threading.Event,
    limit_seconds: float,
) -> dict[str, Entry]:
    from deepmaker_jax.execute import runtime

    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(backend, bundle, sender), daemon=False)
    with _STARTING, runtime.starting_workers(TMPDIR=scratch):
        process.start()
    sender.close()
    try:
        waited = 0.0
        while not receiver.poll(POLL_SECONDS):
            waited += POLL_SECONDS
            if stop.is_set():
                raise StoppedError
            if waited > limit_seconds:
                raise BackendError(f"took longer than {limit_seconds:.0f} s")
        try:
            return receiver.recv()
        except EOFError:
            process.join()
            raise BackendError(f"its process ended with {process.exitcode}") from None
    finally:
        receiver.close()
        _end(process)


def _end(process: Any) -> None:
    """Ends a process, and all that it started: tools are in its process group, and outlive it."""
    process.join(1)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # where it had no group yet
    process.join()


def _work(backend: Backend, bundle: pathlib.Path, sender: Any) -> None:
    """The process: sends the entries."""
    os.setpgrp()  # a Ctrl-C is the parent's, and the parent ends the whole group
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other runtimes need room
    from deepmaker_jax.execute import runtime
    from deepmaker_jax.export.quiet import quiet

    runtime.belong_to_parent(scratch=pathlib.Path(os.environ["TMPDIR"]))
    folder = bundle / backend.name
    try:
        with quiet():
            folder.mkdir(parents=True, exist_ok=True)
            member = read_member(bundle)
            reasons = backend.supports(member.arch)
            entries: dict[str, Entry] = (
                {backend.name: unsupported(backend, reasons)}
                if reasons
                else backend.measure(member, backend.build(member))
            )
            if not any(folder.iterdir()):
                folder.rmdir()
    except Exception as error:  # noqa: BLE001 - the parent writes it down
        shutil.rmtree(folder, ignore_errors=True)
        entries = {backend.name: failed(backend.name, backend.name, error)}
    sender.send(entries)
    sender.close()
