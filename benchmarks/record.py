"""What stands with every figure: when, where, with what and how it was measured."""

import datetime
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


def train_missing(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple],
    path: pathlib.Path,
    *,
    num_workers: int,
) -> list[dict[str, Any]]:
    """Returns what is known of every job, one row each or several; does those that are not.

    Args:
      function: of a module; called in processes, returns a row or a list of rows.
      jobs: {name: its arguments}.
      path: JSON lines, in which each row that is made stands with its job's name.
      num_workers: jobs at once.

    Raises:
      RuntimeError: a job failed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {row["job"] for row in rows}
    left = {name: arguments for name, arguments in jobs.items() if name not in done}
    made = pooled(function, left, num_workers=num_workers, patience_seconds=PATIENCE_SECONDS)
    for name, found in made:
        if isinstance(found, BaseException):
            raise RuntimeError(f"{name} failed") from found
        more = [{"job": name} | row for row in (found if isinstance(found, list) else [found])]
        with open(path, "a") as file:
            file.writelines(dump_json(row) + "\n" for row in more)
        print(*more, sep="\n", flush=True)
        rows += more
    return rows


def publish(figures: dict[str, Any], out: pathlib.Path | None) -> None:
    """Prints the figures as JSON and writes them with their conditions to `out`, if named."""
    print(dump_json(figures, indent=1))
    if out is not None:
        write_json(out, conditions() | figures)
