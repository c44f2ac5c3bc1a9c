"""What stands with every figure: when, where, with what and how it was measured."""

import datetime
import os
import pathlib
import sys
from typing import Any

from deepmaker_jax import program
from deepmaker_jax.files import dump_json, write_json


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


def portable(word: str) -> str:
    """Returns an argument as it may be published: a path elsewhere as its last name."""
    if not os.path.isabs(word) and not word.startswith(".."):
        return word
    below = os.path.relpath(word)
    return os.path.basename(below) if below.startswith("..") else below


def publish(figures: dict[str, Any], out: pathlib.Path | None) -> None:
    """Prints the figures as JSON and writes them with their conditions to `out`, if named."""
    print(dump_json(figures, indent=1))
    if out is not None:
        write_json(out, conditions() | figures)
