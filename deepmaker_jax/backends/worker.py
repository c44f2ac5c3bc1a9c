"""One backend on one member, in a process of its own: a crash or a hang is its alone."""

import contextlib
import hashlib
import multiprocessing
import os
import pathlib
import shutil
import signal
import threading
from typing import Any

import numpy as np

from deepmaker_jax import arch as architecture
from deepmaker_jax.backends.backend import Backend, Entry, Member, Tool, unsupported
from deepmaker_jax.export.manifest import MANIFEST, REFERENCE
from deepmaker_jax.files import dump_json, load_json, sha256

LIMIT_SECONDS = 1800.0
POLL_SECONDS = 0.2


class StoppedError(Exception):
    """The deployment was stopped while this backend worked."""


def read_member(bundle: pathlib.Path) -> Member:
    """Returns a bundle as backends see it."""
    manifest = load_json(bundle / MANIFEST)
    with np.load(bundle / REFERENCE) as reference:
        arrays = {name: reference[name] for name in ("images", "labels", "logits")}
    return Member(manifest["id"], bundle, architecture.from_json(manifest["arch"]), **arrays)


def made_from(manifest: dict[str, Any], backend: Backend, tools: list[Tool]) -> str:
    """Returns a sum over all that a backend's files depend on: portable files, and tools."""
    entries = manifest["files"].items()
    files = {name: e["sha256"] for name, e in entries if "/" not in name and e["sha256"]}
    text = dump_json({"files": files, "tools": [list(tool) for tool in tools]})
    return hashlib.sha256(f"{backend.name} {text}".encode()).hexdigest()[:16]


def is_fresh(bundle: pathlib.Path, manifest: dict[str, Any], backend: Backend, key: str) -> bool:
    """Whether a backend's files are there, whole, and made from what is here now.

    A failed one is tried again: a time limit or a full disk may have been why.
    """
    if manifest.get("targets", {}).get(backend.name, {}).get("made_from") != key:
        return False
    for name, entry in manifest["files"].items():
        if entry["status"] == "failed" and name.split("/")[0] == backend.name:
            return False
        if name.startswith(f"{backend.name}/") and entry["sha256"] is not None:
            path = bundle / name
            if not path.is_file() or sha256(path) != entry["sha256"]:
                return False
    return True


def run_backend(
    backend: Backend, bundle: pathlib.Path, *, stop: threading.Event, limit_seconds: float
) -> dict[str, Entry]:
    """Builds and measures in a new process; returns the manifest's entries by path.

    Args:
      backend: what to run; its functions can be pickled.
      bundle: the member's.
      stop: ends the process when it is set.
      limit_seconds: ends it as well.

    Raises:
      RuntimeError: the backend failed as a whole, its process died, or took too long.
      StoppedError: `stop` was set.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(backend, bundle, sender), daemon=False)
    process.start()
    sender.close()
    try:
        waited = 0.0
        while not receiver.poll(POLL_SECONDS):
            waited += POLL_SECONDS
            if stop.is_set():
                raise StoppedError
            if waited > limit_seconds:
                raise RuntimeError(f"took longer than {limit_seconds:.0f} s")
        try:
            result = receiver.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"its process ended with {process.exitcode}") from None
    finally:
        receiver.close()
        _end(process)
    if isinstance(result, Exception):
        raise result
    return result


def _end(process: Any) -> None:
    """Ends a process and what it started: tools are in its process group."""
    if process.is_alive():
        process.join(1)
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        process.join(5)
        process.kill()
    process.join()


def _work(backend: Backend, bundle: pathlib.Path, sender: Any) -> None:
    """The process: sends the entries, or the exception."""
    os.setpgrp()  # a Ctrl-C is the parent's, and the parent ends the whole group
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other runtimes need room
    from deepmaker_jax.execute import runtime

    runtime.one_thread()
    from deepmaker_jax.export.quiet import quiet

    try:
        with quiet():
            folder = bundle / backend.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            member = read_member(bundle)
            reasons = backend.supports(member.arch)
            result: Any = (
                {backend.name: unsupported(backend, reasons)}
                if reasons
                else backend.measure(member, backend.build(member))
            )
            if not any(folder.iterdir()):
                folder.rmdir()
    except Exception as error:  # noqa: BLE001 - the parent writes it down
        result = RuntimeError(f"{type(error).__name__}: {error}")
    sender.send(result)
    sender.close()
