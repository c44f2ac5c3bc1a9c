"""The front as a table in the terminal, finished or while the run goes on."""

import collections
import pathlib

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from deepmaker_jax.documents import experiment_line
from deepmaker_jax.report import devices, longer, robustness, tables, text
from deepmaker_jax.report.view import RunView, hypervolume_trace, read_run


def show(run: pathlib.Path, console: Console | None = None) -> None:
    """Prints a run's state and its front, on stdout if `console` is None.

    Raises:
      InputError: the folder is no run folder or is damaged.
    """
    console = console or Console(highlight=False)
    run = pathlib.Path(run)
    view = read_run(run)
    names = (view.config.get("experiment"), view.config.get("preset"))
    name = " ".join(text.plain(n, limit=60) for n in names if n) or "run"
    line(console, f"{name}: {state(view)}")
    for gap in view.gaps:
        line(console, f"{gap.name} {gap.text}")
    if view.gaps and (command := experiment_line(run, view.config)):
        line(console, command)
    print_front(view, console)
    print_longer(run, console)


def state(view: RunView) -> str:
    """Returns where a run stands, in one line."""
    counts = collections.Counter(str(r["status"]) for r in view.records)
    others = ", ".join(f"{counts[s]} {text.plain(s)}" for s in sorted(counts) if s != "ok")
    volume = hypervolume_trace(view).hypervolume
    words = [
        "finished" if view.front is not None else "front so far",
        f"{len(view.records)} measurement{'s' * (len(view.records) != 1)}"
        + (f" ({others})" if others else ""),
    ]
    if view.records:
        words.append(f"generation {text.plain(view.records[-1]['generation'])}")
        words.append(f"hypervolume {volume[-1]:.4f}")
    if view.front is None and view.finals:
        words.append(f"{len(view.finals)} retrained")
    return ", ".join(words)


def print_front(view: RunView, console: Console) -> None:
    """Prints the front's table, what its last columns mean, robustness, and the targets."""
    members = tables.rows(view)
    if not members:
        line(console, "No candidate has been measured yet.")
        return
    columns = tables.columns(view, members)
    cells = [[column.heading for column in columns]]
    cells += [[column.cell(row) for column in columns] for row in members]
    _print_table(cells, console)
    for name, how in tables.hows(view):
        line(console, f"{name}: {how}")
    reference = tables.reference(view, members)
    if reference is not None:
        published = " (published)" if reference.published else ""
        name = text.plain(reference.id, limit=60)
        line(console, f"smaller, lost: parameters and accuracy points against {name}{published}")
    if unknown := tables.unknown_reference(view, members):
        line(console, unknown)
    if {tables.VALIDATION, tables.TEST} <= set(cells[0]):
        line(console, "val. %: after the search's training; test %: after the final one")
    if ranking := robustness.terminal_table(view):
        line(console, "")
        _print_table(ranking, console)
        line(console, "corrupt: on corrupted test images; lost: accuracy points by that, by int8")
    devices_table = devices.terminal_table(view, members)
    if devices_table:
        line(console, "")
        _print_table(devices_table, console)
        for target, status, reason, count in devices.left_out(view, members):
            line(console, f"{target}: {status} for {count} of {len(members)}: {reason}")


def print_longer(run: pathlib.Path, console: Console) -> None:
    """Prints the longer trainings of a run's members; nothing if there are none."""
    found = longer.read_longer(run)
    if not found:
        return
    line(console, "")
    if cells := longer.terminal_table(found):
        _print_table(cells, console)
    for trained in found:
        if trained.problem:
            line(console, trained.problem)


def _print_table(cells: list[list[str]], console: Console) -> None:
    """Prints rows of cells, the heading first; the first column to the left, others to the right.

    By hand: rich's own table cuts or wraps cells that do not fit the terminal.
    """
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for i, row in enumerate(cells):
        padded = [" " * (w - cell_len(cell)) for cell, w in zip(row, widths, strict=True)]
        first = row[0] + padded[0]
        rest = [space + cell for space, cell in zip(padded[1:], row[1:], strict=True)]
        line(console, "  ".join([first, *rest]), style="" if i else "bold")


def print_finished(
    run: pathlib.Path, console: Console | None = None, *, page: pathlib.Path, following: str
) -> None:
    """Prints the finished run: the front, where the files are, one command to try next.

    Args:
      run: the run folder.
      console: where to; stdout if None.
      page: the report.
      following: a whole command line.

    Raises:
      InputError: the folder is no run folder or is damaged.
    """
    console = console or Console(highlight=False)
    run = pathlib.Path(run)
    view = read_run(run)
    print_front(view, console)
    num = sum(m.get("bundle") is not None for m in (view.front or {}).get("members", []))
    line(console, "")
    line(console, f"report  {page}")
    line(console, f"front   {run / 'front.json'}")
    if num:
        line(console, f"models  {run / 'models'} ({num} bundle{'s' * (num != 1)})")
    line(console, f"next    {following}")


def line(console: Console, words: str, *, style: str = "") -> None:
    """Prints one line as it is: no markup, no wrapping, no control characters."""
    console.print(Text(text.plain(words, limit=5000), style=style), soft_wrap=True)
