"""What `deepmaker train` made of a run's members, as rows for the terminal and the page."""

import pathlib
from typing import Any, NamedTuple

from deepmaker_jax.documents import (
    CONFIG,
    LONGER,
    MODELS,
    RESTORE,
    has_ended,
    load_config,
    longer_of,
    train_command,
)  # fmt: skip
from deepmaker_jax.errors import InputError
from deepmaker_jax.export.manifest import MANIFEST, WEIGHTS, check_owner, read_entries
from deepmaker_jax.report import text
from deepmaker_jax.report.markup import escape, section, table
from deepmaker_jax.report.tables import INT8_FILE
from deepmaker_jax.report.view import part

HEAD = ("trained longer", "epochs", "test %", "int8", "int8 %", "in")


class Trained(NamedTuple):
    """A longer training in a run folder.

    Attributes:
      folder: its own, relative to the run's.
      member: whose training went on; "" if it cannot be told.
      epochs: how many were added.
      files: as its bundle's manifest has them; None without one.
      problem: a line that says why there is nothing to show, and the way out; "" if there is.
    """

    folder: str
    member: str = ""
    epochs: int = 0
    files: dict[str, Any] | None = None
    problem: str = ""


def read_longer(run: pathlib.Path) -> list[Trained]:
    """Returns the longer trainings of a run's members, by their folders' names."""
    return [_read(found.parent) for found in sorted(run.glob(f"{LONGER}/*/{CONFIG}"))]


def _read(folder: pathlib.Path) -> Trained:
    trained = Trained(f"{LONGER}/{folder.name}")
    try:
        longer = longer_of(load_config(folder))
        if longer is None:
            raise InputError(f"{folder / CONFIG} is not that of a longer training: {RESTORE}")
        trained = trained._replace(member=longer.member, epochs=longer.epochs)
        if not has_ended(folder):
            return trained._replace(
                problem=f"{folder} has not ended: it goes on with {train_command(folder, longer)}"
            )
        bundle = folder / MODELS / longer.member
        if not (bundle / MANIFEST).exists():  # its run was one without the export
            return trained
        return trained._replace(files=check_owner(bundle, read_entries(bundle))["files"])
    except InputError as error:
        return trained._replace(problem=str(error))


def terminal_table(found: list[Trained]) -> list[list[str]]:
    """Returns those that have ended as cells, the heading first; [] if there are none."""
    rows = [_cells(trained) for trained in found if not trained.problem]
    return [list(HEAD), *rows] if rows else []


def longer_section(found: list[Trained]) -> str:
    """Returns the longer trainings as a block of the page; "" if there are none."""
    if not found:
        return ""
    body = [("", [escape(cell, limit=100) for cell in _cells(trained)]) for trained in found]
    note = (
        "Members whose training <code>deepmaker train</code> went on with, from their weights: "
        "epochs added, accuracy on the test split. Without figures: not ended, or damaged."
    )
    return section("Trained longer", note, table(list(HEAD), body))


def _cells(trained: Trained) -> list[str]:
    weights, int8 = part(trained.files, WEIGHTS), part(trained.files, INT8_FILE)
    int8 = int8 if int8.get("status") == "ok" else {}
    return [
        text.plain(trained.member or text.NONE, limit=40),
        f"+{trained.epochs}",
        text.hundredths(weights.get("accuracy")),
        text.size(int8.get("bytes")),
        text.hundredths(int8.get("accuracy")),
        text.plain(trained.folder, limit=80),
    ]
