"""What stands with every figure: when, where, with what and how it was measured."""

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from deepmaker_jax import program
from deepmaker_jax.execute import runtime
from deepmaker_jax.execute.pool import pooled
from deepmaker_jax.files import dump_json, write_json

PATIENCE_SECONDS = 4 * 3600.0  # for one training beside whatever else runs


def conditions() -> dict[str, Any]:
    """Returns date, machine, versions and command of this process."""
    name = pathlib.Path(sys.argv[0]).stem
    machine = program.describe_platform()
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{program.num_cores()} cores, {machine['processor']}, {machine['machine']}",
        "versions": program.versions(),
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *map(portable, sys.argv[1:])]),
    }


def in_workers_environment() -> None:
    """Runs this program again with the environment that a worker has, unless it has it.

    The C library reads it once, when a process begins.
    """
    if os.environ.get(runtime.TUNABLES) is None:
        name = f"benchmarks.{pathlib.Path(sys.argv[0]).stem}"
        environment = os.environ | runtime.worker_environment()
        words = [sys.executable, "-m", name, *sys.argv[1:]]
        raise SystemExit(subprocess.run(words, env=environment, check=False).returncode)


def portable(word: str) -> str:
    """Returns an argument as it may be published: a path elsewhere as its last name."""
    if not os.path.isabs(word) and not word.startswith(".."):
        return word
    below = os.path.relpath(word)
    return os.path.basename(below) if below.startswith("..") else below


def digest(*paths: pathlib.Path) -> str:
    """Returns eight hex digits of what some files hold: what a kept row was made of."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:8]


def known(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of each job that `train_missing` has done, of a file that may not be there.

    A line that was cut off in writing is no line, and is removed.
    """
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return {line["job"]: line["rows"] for line in map(json.loads, whole.splitlines())}


def train_missing(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple],
    path: pathlib.Path,
    *,
    num_workers: int,
) -> list[dict[str, Any]]:
    """Returns what is known of these jobs, one row each or several; does those that are not.

    Args:
      function: of a module; called in processes, returns a row or a list of rows.
      jobs: {name: its arguments}.
      path: JSON lines, one for each job that was done here, of these or of others.
      num_workers: jobs at once.

    Raises:
      RuntimeError: a job failed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done = known(path)
    left = {name: arguments for name, arguments in jobs.items() if name not in done}
    made = pooled(function, left, num_workers=num_workers, patience_seconds=PATIENCE_SECONDS)
    with contextlib.closing(made):
        for name, found in made:
            if isinstance(found, BaseException):
                raise RuntimeError(f"{name} failed") from found
            done[name] = found if isinstance(found, list) else [found]
            line = dump_json({"job": name, "rows": done[name]})
            with open(path, "a") as file:
                file.write(line + "\n")
            print(line, flush=True)
    return [{"job": name} | row for name in jobs for row in done[name]]


def publish(figures: dict[str, Any], out: pathlib.Path | None) -> None:
    """Prints the figures as JSON and writes them with their conditions to `out`, if named."""
    print(dump_json(figures, indent=1))
    if out is not None:
        write_json(out, conditions() | figures)
