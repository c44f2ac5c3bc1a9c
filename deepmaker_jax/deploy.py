"""Deployment: every backend on every bundle, only what is missing or stale."""

import collections
import concurrent.futures
import contextlib
import pathlib
import shutil
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from deepmaker_jax import ledger
from deepmaker_jax.backends import BACKENDS
from deepmaker_jax.backends.backend import Backend, BackendError, failed
from deepmaker_jax.backends.worker import (
    LIMIT_SECONDS,
    StoppedError,
    is_fresh,
    made_from,
    run_backend,
)
from deepmaker_jax.bundles import deployable, run_of
from deepmaker_jax.documents import FRONT
from deepmaker_jax.errors import InputError
from deepmaker_jax.export.manifest import (
    WEIGHTS,
    load_manifest,
    own_entries,
    standing,
    write_manifest,
)
from deepmaker_jax.files import lock
from deepmaker_jax.machine import num_cores
from deepmaker_jax.terminal import say

LIGHT, NONE = "light", "none"  # what an experiment's targets may be besides names of backends


class Deployed(NamedTuple):
    """One backend is done with one member.

    Attributes:
      id: of the member.
      target: the backend's name.
      status: failed if any of its files is; ok if one was run and agrees with JAX; else
        unsupported.
      reason: of the first file that is not ok; None if all are.
      num_ok, num_files: the backend's files in the bundle.
      seconds: that it took; 0 for what was there already.
      num_done, num_jobs: of this call.
    """

    id: str
    target: str
    status: str
    reason: str | None
    num_ok: int
    num_files: int
    seconds: float
    num_done: int
    num_jobs: int


def deploy(
    path: pathlib.Path,
    *,
    members: int | None = None,
    targets: Sequence[str] = (),
    backends: Mapping[str, Backend] = BACKENDS,
    num_workers: int | None = None,
    limit_seconds: float = LIMIT_SECONDS,
) -> Generator[Deployed, None, None]:
    """Builds and measures bundles for devices; yields an event for each member and backend.

    Input is checked before the first event. Backends work side by side, each in
    a process of its own; those that read clocks come last, one at a time. The
    manifest is written after each, so that nothing done is lost.

    Args:
      path: a finished run folder, that of a longer training, or a bundle.
      members: how many members of a run's front, the most accurate first; None for all.
      targets: names of backends; no name for all.
      backends: what there is to choose from, by name.
      num_workers: processes at once; None for one per core.
      limit_seconds: for one backend on one member.

    Raises:
      InputError: no front, no bundles, a name that is not there, or (by the first
        event) another process works in the run folder.
    """
    bundles = deployable(path, members)
    chosen = choose(targets, backends)
    return _deploy(run_of(path), bundles, chosen, num_workers or num_cores(), limit_seconds)


def describe(event: Deployed) -> str:
    """Returns an event as a line of progress."""
    files = f"{event.num_ok} of {event.num_files} files"
    spent = f"{event.seconds:.0f} s" if event.seconds else "there already"
    # What an agreeing target leaves out is the same for every member: told once, at the end.
    reason = f"; {event.reason}" if event.reason and event.status != "ok" else ""
    return (
        f"{event.num_done}/{event.num_jobs} {event.id} {event.target}: {event.status}, {files}, "
        f"{spent}{reason}"
    )


def deploy_and_print(path: pathlib.Path, *, quiet: bool = False, **settings: Any) -> None:
    """Deploys with `deploy`'s settings and prints a line for each event.

    Args:
      path: as `deploy`'s.
      quiet: print only what failed.
      **settings: of `deploy`.

    Raises:
      InputError: as `deploy`.
      RuntimeError: a backend failed on a member; all others are done.
    """
    failures, left_out = 0, collections.Counter[str]()
    with contextlib.closing(deploy(path, **settings)) as events:
        for event in events:
            if event.status == "failed" or not quiet:
                say(describe(event))
            failures += event.status == "failed"
            if event.status == "ok" and event.reason and not quiet:
                left_out[event.reason] += 1
    for reason, number in left_out.items():
        say(f"{reason} ({number} network{'s' * (number != 1)})")
    if failures:
        raise RuntimeError(f"{failures} failed, as each manifest.json says: run again to retry")


def named(targets: Sequence[str], backends: Mapping[str, Backend] = BACKENDS) -> list[str]:
    """Returns the names of backends among an experiment's `targets`.

    Raises:
      InputError: a name that is not there, or `NONE` beside another.
    """
    for name in targets:
        if name not in (LIGHT, NONE, *backends):
            known = ", ".join((*backends, LIGHT, NONE))
            raise InputError(f"targets (={name}) must be among {known}")
    if NONE in targets and len(targets) > 1:
        raise InputError(
            f"targets (={' '.join(targets)}) must be {NONE} alone, or others: leave {NONE} out"
        )
    return [name for name in targets if name in backends]


def at_the_end(
    targets: Sequence[str], backends: Mapping[str, Backend] = BACKENDS
) -> tuple[list[str], list[str]]:
    """Returns what an experiment's `targets` stand for.

    Args:
      targets: names of backends; `LIGHT` among them for the light ones whose tools
        are all installed; `NONE` or nothing for none.
      backends: what there is to choose from, by name.

    Returns:
      (names of backends, a line for each light one that is left out).

    Raises:
      InputError: as `named`.
    """
    chosen = named(targets, backends)
    left_out = []
    for name, backend in backends.items():
        if LIGHT in targets and backend.light and name not in chosen:
            if lacks := _lacks(backend):
                left_out.append(f"target {name} is left out without {lacks}")
            else:
                chosen.append(name)
    return chosen, left_out


def not_ready(targets: Sequence[str], backends: Mapping[str, Backend] = BACKENDS) -> Iterator[str]:
    """Yields a line for each named target whose tools are not all installed.

    Raises:
      InputError: as `named`.
    """
    for name in named(targets, backends):
        if lacks := _lacks(backends[name]):
            yield f"target {name} lacks {lacks}; until the run ends there is time for that"


def _lacks(backend: Backend) -> str | None:
    """Returns the tools that a backend lacks and what installs them; None if all are there."""
    missing = [tool for tool in backend.probe() if tool.version is None]
    if not missing:
        return None
    remedies = "; ".join(dict.fromkeys(tool.install for tool in missing))
    return f"{', '.join(tool.name for tool in missing)}: {remedies}"


def choose(targets: Sequence[str], backends: Mapping[str, Backend]) -> list[Backend]:
    """Returns the backends of these names; all for no name.

    Raises:
      InputError: there is none of that name.
    """
    for name in targets:
        if name not in backends:
            raise InputError(f"targets (={name}) must be among {', '.join(backends)}")
    return [backend for name, backend in backends.items() if name in targets or not targets]


@contextlib.contextmanager
def _alone(run: pathlib.Path) -> Iterator[None]:
    """Holds a run folder, or a bundle in none, against its experiment and other deployments.

    Raises:
      InputError: another process holds it, or it cannot be written.
    """
    names = (ledger.NAME, FRONT, WEIGHTS)
    path = next((run / name for name in names if (run / name).exists()), run / WEIGHTS)
    try:
        file = open(path, "r+b")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): copy the run") from None
    with file:
        lock(file, run)
        yield


def _deploy(
    run: pathlib.Path,
    bundles: list[pathlib.Path],
    backends: list[Backend],
    num_workers: int,
    limit_seconds: float,
) -> Generator[Deployed, None, None]:
    with _alone(run):
        yield from _deploy_alone(bundles, backends, num_workers, limit_seconds)


def _deploy_alone(
    bundles: list[pathlib.Path], backends: list[Backend], num_workers: int, limit_seconds: float
) -> Iterator[Deployed]:
    tools = {backend.name: list(backend.probe()) for backend in backends}
    num_jobs, done = len(bundles) * len(backends), 0
    waiting: list[tuple[pathlib.Path, Backend, str]] = []
    for bundle in bundles:
        manifest = load_manifest(bundle)
        for backend in backends:
            key = made_from(manifest, backend, tools[backend.name])
            if is_fresh(bundle, manifest, backend, tools[backend.name]):
                done += 1
                yield _event(manifest, backend, 0.0, done, num_jobs)
            else:
                waiting.append((bundle, backend, key))
    writing = threading.Lock()  # a manifest is read, changed and written by one thread at a time
    for timed, workers in ((False, num_workers), (True, 1)):
        jobs = [job for job in waiting if job[1].timed == timed]
        stop = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            running = {
                pool.submit(_attempt, job[0], job[1], writing, stop, limit_seconds): job
                for job in jobs
            }
            try:
                for future in concurrent.futures.as_completed(running):
                    (bundle, backend, key), (entries, seconds) = running[future], future.result()
                    done += 1
                    versions = {tool.name: tool.version for tool in tools[backend.name]}
                    target = {"made_from": key, "tools": versions}
                    with writing:
                        manifest = _record(bundle, backend, entries, target)
                    yield _event(manifest, backend, seconds, done, num_jobs)
            finally:
                stop.set()  # for jobs that still run when the caller has had enough
                pool.shutdown(cancel_futures=True)


def _attempt(
    bundle: pathlib.Path,
    backend: Backend,
    writing: threading.Lock,
    stop: threading.Event,
    limit_seconds: float,
) -> tuple[dict[str, Any], float]:
    """Returns (entries, seconds); a backend that dies has one entry, its folder's."""
    began = time.perf_counter()
    if stop.is_set():
        raise StoppedError
    try:
        with writing:  # before anything is built: at any instant a manifest lists what is there
            _record(bundle, backend, {}, None)
        folder = bundle / backend.name
        if folder.is_symlink():  # a target's files are written here, wherever it leads
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        entries = run_backend(backend, bundle, stop=stop, limit_seconds=limit_seconds)
    except (BackendError, OSError) as error:
        entries = {backend.name: failed(backend.name, backend.name, error)}
    return entries, time.perf_counter() - began


def _record(
    bundle: pathlib.Path, backend: Backend, entries: dict[str, Any], target: dict[str, Any] | None
) -> dict[str, Any]:
    """Replaces a backend's part of the manifest; returns the whole."""
    manifest = load_manifest(bundle)
    own = own_entries(manifest, backend.name)
    kept = {name: entry for name, entry in manifest["files"].items() if name not in own}
    targets = {n: t for n, t in manifest.get("targets", {}).items() if n != backend.name}
    targets |= {} if target is None else {backend.name: target}
    manifest |= {"files": kept | entries, "targets": targets}
    return write_manifest(bundle, manifest)


def _event(
    manifest: dict[str, Any], backend: Backend, seconds: float, done: int, num_jobs: int
) -> Deployed:
    found = standing(manifest, backend.name)
    return Deployed(
        manifest["id"], backend.name, found.status, found.reason, found.num_ok, found.num_files,
        seconds, done, num_jobs,
    )  # fmt: skip
