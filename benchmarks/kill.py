"""Kills a run at random moments, again and again, and compares what it ends with.

    python -m benchmarks.kill --work DIR [--kills 100] [--full 20] [--seed 0] [--out FILE.json]

The run is a small search on scikit-learn's digits, from the first genome to the exported files and
the report, inline or in worker processes. It is killed (SIGKILL, to its first process alone or to
all of them) before one of the operations of any of its processes on a file of the run folder, or
some time after it began: both drawn by seed. In one of four deaths half a line is left at the
ledger's end, as by a machine that lost its power. The same command goes on, and is killed again, up
to MOST_DEATHS times; then it may end. Its front, bundles, and what it knows of robustness must be
those of a run that nobody disturbed, byte for byte; the ledger must hold nothing twice; no epoch
that was told may be told again; no process may be left. Anything else ends this program with exit
code 1.

Further runs meet a disk that is full from one of those operations on, or files that cannot grow
beyond a size: they must end by themselves, with one line of error, and go on in the same way. An
hour and a half of two cores for what is published.
"""

import argparse
import collections
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.mortal import CONFIG, VARIABLE, Death
from benchmarks.record import publish
from deepmaker_jax.export.manifest import MANIFEST, load_manifest
from deepmaker_jax.ledger import NAME, key, read

__all__ = ["CONFIG", "check", "torment", "undisturbed"]

EXECUTORS = ("inline", "processes")
MOST_DEATHS = 6  # of one run, so that each gets far
TORN = 0.25  # share of deaths that leave half a line in the ledger
FULL = ("full", "limit")  # kinds of an end by a disk that takes no more
SMALLEST_BYTES, LARGEST_BYTES = 500, 400_000  # of the size that files cannot grow beyond
LIMIT_SECONDS = 1800.0  # for one life
END = 500  # characters of what a run said that are shown
WAIT_SECONDS = 60.0  # for what a dead run started


class Life(NamedTuple):
    """What was seen of a run until it ended.

    Attributes:
      code: its exit code.
      stage: the last event, or "report".
      operations: on files of the run folder, by all of its processes.
      epochs: that were told: "ID STAGE NUMBER" each.
      seconds: that its work took.
      said: what it wrote.
    """

    code: int
    stage: str
    operations: int
    epochs: list[str]
    seconds: float
    said: str


class Whole(NamedTuple):
    """A run that nobody disturbed: its life, and its files' bytes."""

    life: Life
    files: dict[str, bytes]


def live(out: pathlib.Path, executor: str, death: Death) -> Life:
    """Lets a run live to its end.

    Raises:
      RuntimeError: it hangs, or left processes behind.
    """
    number = len(list(out.parent.glob(f"{out.name}-life*")))
    control = out.with_name(f"{out.name}-life{number}")
    control.mkdir(parents=True)
    environment = os.environ | {VARIABLE: json.dumps([str(out), str(control), list(death)])}
    with open(control / "said", "wb") as said:  # a pipe would stay open as long as a worker lives
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.mortal", executor],
            stdout=said, stderr=said, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(LIMIT_SECONDS)
            _wait_for_group(process.pid)
        except (subprocess.TimeoutExpired, RuntimeError) as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise RuntimeError(f"{control.name}: {error}") from None
    told = {path.name: path.read_text() for path in control.iterdir()}
    return Life(
        code, (told.get("stages") or "start").split()[-1], len(told.get("operations", "")),
        told.get("epochs", "").splitlines(), float(told.get("seconds", 0)), told["said"],
    )  # fmt: skip


def _wait_for_group(group: int) -> None:
    """Waits until no process of a group is left.

    Raises:
      RuntimeError: one lives on.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while left := [pid for pid, of in _processes() if of == group]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {left} live on {WAIT_SECONDS:.0f} s after its death")
        time.sleep(0.05)


def _processes() -> list[tuple[int, int]]:
    """Returns (process, its group) of all that are there and not just names nobody asked for."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # it is gone
        if state not in "ZX":
            found.append((int(path.parent.name), int(group)))
    return found


def files(out: pathlib.Path) -> dict[str, bytes]:
    """Returns what must not depend on time or place: the front, the bundles and robustness."""
    folders = (out / "models", out / "robustness")
    paths = [out / "front.json", *(p for of in folders for p in sorted(of.rglob("[!.]*")))]
    found = {str(path.relative_to(out)): path.read_bytes() for path in paths if path.is_file()}
    for name in [name for name in found if name.endswith(MANIFEST)]:
        manifest = load_manifest((out / name).parent)
        for entry in manifest["files"].values():
            entry["cost"] = None  # some of them are measured
        found[name] = json.dumps(manifest, sort_keys=True).encode()
    return found


def undisturbed(out: pathlib.Path, executor: str) -> Whole:
    """Runs once to the end.

    Raises:
      RuntimeError: it failed.
    """
    life = live(out, executor, Death("age"))
    if life.code:
        raise RuntimeError(f"the undisturbed run ended with {life.code}: {life.said[-END:]}")
    return Whole(life, files(out))


def draw(rng: np.random.Generator, whole: Life, *, full: bool = False) -> Death:
    """Returns a death, or a full disk; a resumed run has fewer operations and less time left."""
    share, together = rng.uniform() * rng.uniform(0.3, 1), bool(rng.integers(2))
    first = rng.uniform() < 0.5
    if full and first:
        return Death("full", 1 + int(share * whole.operations))
    if full:
        sizes = math.log(SMALLEST_BYTES), math.log(LARGEST_BYTES)
        return Death("limit", int(math.exp(rng.uniform(*sizes))))
    if first:
        return Death("file", 1 + int(share * whole.operations), together)
    return Death("clock", round(share * whole.seconds, 3), together)


def tear(out: pathlib.Path) -> None:
    """Leaves half a line at the end of a ledger that has a whole one."""
    path = out / NAME
    lines = path.read_bytes().splitlines() if path.exists() else []
    if lines:
        with open(path, "ab") as file:
            file.write(lines[-1][: len(lines[-1]) // 2])


def check(out: pathlib.Path, whole: Whole, epochs: Sequence[str] = ()) -> list[str]:
    """Returns what is not as in the run that nobody disturbed.

    Args:
      out: the run folder.
      whole: that run.
      epochs: that were told, in all lives.
    """
    found = files(out)
    names = sorted(found.keys() | whole.files.keys())
    wrong = [f"{n} is another" for n in names if found.get(n) != whole.files.get(n)]
    measured = collections.Counter(map(key, read(out / NAME)))
    wrong += [f"{id} was paid {n} times" for (id, _), n in measured.items() if n > 1]
    left = [*out.rglob(".*"), *out.glob("checkpoints")]
    wrong += [f"{path.relative_to(out)} was left behind" for path in left]
    # A training's state is saved before its epoch is told.
    again = [told for told, n in collections.Counter(epochs).items() if n > 1]
    wrong += [f"epoch {told} was trained again" for told in again]
    return wrong


def torment(
    out: pathlib.Path,
    whole: Whole,
    rng: np.random.Generator,
    executor: str,
    most: int,
    *,
    full: bool = False,
) -> list[dict[str, Any]]:
    """Kills one run up to `most` times, lets it end and checks it; returns its deaths.

    Args:
      out: the run folder.
      whole: a run that nobody disturbed.
      rng: draws the deaths.
      executor: of the run.
      most: deaths.
      full: its disk is full instead.

    Raises:
      RuntimeError: it ended otherwise than by its death or well, or with other files.
    """
    deaths: list[dict[str, Any]] = []
    epochs: list[str] = []
    while True:
        death = draw(rng, whole.life, full=full) if len(deaths) < most else Death("age")
        life = live(out, executor, death)
        epochs += life.epochs
        if life.code == 0 and death.kind in FULL:
            most = len(deaths)  # it was done before, or only an exporter has met the full disk
            continue
        if life.code == 0:
            break
        if not _is_its_end(death, life):
            raise RuntimeError(
                f"{out.name} after {deaths} and {death} ended with {life.code}: {life.said[-END:]}"
            )
        torn = rng.uniform() < TORN
        if torn:
            tear(out)
        met = {"code": life.code, "stage": life.stage, "torn": torn, "executor": executor}
        deaths.append(death._asdict() | met)
    if wrong := check(out, whole, epochs):
        raise RuntimeError(f"{out.name} after {deaths}: {'; '.join(wrong)}")
    return deaths


def _is_its_end(death: Death, life: Life) -> bool:
    """Whether a life that did not end well ended as it should."""
    if death.kind in FULL:
        said = life.said.strip().splitlines()
        errors = [line for line in said if line.startswith("error: ")]
        return life.code in (1, 2) and errors == said[-1:] and "Traceback" not in life.said
    return death.kind != "age" and life.code == -signal.SIGKILL


def main() -> None:
    """Kills and publishes."""
    parser = argparse.ArgumentParser(description="Kills a run at random moments.")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="a new folder for runs")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full", type=int, default=20, help="full disks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    work = args.work.absolute()
    work.mkdir(parents=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "programs"))
    rng, deaths, runs = np.random.default_rng(args.seed), [], 0
    whole = {executor: undisturbed(work / executor, executor) for executor in EXECUTORS}
    if whole["inline"].files != whole["processes"].files:
        raise RuntimeError("the undisturbed runs of both executors differ")
    for full, wanted in ((False, args.kills), (True, args.kills + args.full)):
        while len(deaths) < wanted:
            executor = EXECUTORS[runs % len(EXECUTORS)]
            most = min(MOST_DEATHS, wanted - len(deaths))
            out = work / f"run{runs}"
            deaths += torment(out, whole[executor], rng, executor, most, full=full)
            runs += 1
            print(f"{len(deaths)} deaths, {runs} runs: all ended as they should", flush=True)
    names = ("kind", "all", "stage", "torn", "executor", "code")
    counts = {n: dict(collections.Counter(str(death[n]) for death in deaths)) for n in names}
    lives = {name: of.life._asdict() for name, of in whole.items()}
    undisturbed_runs = {
        name: {"operations": life["operations"], "epochs": len(life["epochs"]),
               "seconds": life["seconds"]}
        for name, life in lives.items()
    }  # fmt: skip
    publish(
        {"deaths": len(deaths), "runs": runs, "undisturbed": undisturbed_runs, "by": counts},
        args.out,
    )


if __name__ == "__main__":
    main()
