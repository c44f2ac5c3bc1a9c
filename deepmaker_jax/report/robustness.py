"""The members ranked by how much of their accuracy lasts: corruptions, int8, other seeds."""

import html
from collections.abc import Callable
from typing import Any, NamedTuple

from deepmaker_jax.report import text
from deepmaker_jax.report.markup import escape, section, table
from deepmaker_jax.report.view import RunView, part

MOST_KINDS = 12  # columns, whatever a file says
SHORT = {  # in the order of the columns; others follow
    "gaussian_noise": "noise", "gaussian_blur": "blur", "brightness": "brightness",
    "contrast": "contrast", "jpeg_compression": "JPEG",
}  # fmt: skip


class Spread(NamedTuple):
    """Mean and sample deviation over trainings, 0..1; None where not known."""

    mean: float | None
    deviation: float | None


class Figures(NamedTuple):
    """What is known of one member. Accuracies are shares of test images.

    Attributes:
      id: the member's.
      accuracy, corrupted: of the float network that is exported, clean and corrupted.
      kinds: its accuracy by kind of corruption, mean over the severities.
      int8, int8_corrupted: of the int8 file.
      num_seeds: trainings, the exported one among them.
      over_seeds, corrupted_over_seeds: of the float networks.
    """

    id: str
    accuracy: float | None
    corrupted: float
    kinds: dict[str, float | None]
    int8: float | None
    int8_corrupted: float | None
    num_seeds: int
    over_seeds: Spread
    corrupted_over_seeds: Spread


class _Column(NamedTuple):
    heading: str
    cell: Callable[[Figures], str]


def ranked(view: RunView) -> list[Figures]:
    """Returns the front's members whose robustness is known, best under corruptions first."""
    members = [] if view.front is None else view.front["members"]
    found = [figures for member in members if (figures := _figures(member)) is not None]
    return sorted(found, key=lambda f: (-f.corrupted, f.id))


def _figures(member: dict[str, Any]) -> Figures | None:
    known = part(member, "robustness")
    seeds, corruptions, int8 = (part(known, name) for name in ("seeds", "corruptions", "int8"))
    corrupted = text.number(corruptions.get("accuracy"))
    if corrupted is None:
        return None
    kinds = part(corruptions, "kinds")
    trained = seeds.get("trained")
    return Figures(
        id=str(member.get("id")),
        accuracy=text.number(member.get("test_accuracy")),
        corrupted=corrupted,
        kinds={name: _mean(part(kinds, name)) for name in sorted(kinds)[:MOST_KINDS]},
        int8=text.number(int8.get("accuracy")),
        int8_corrupted=text.number(int8.get("corrupted_accuracy")),
        num_seeds=len(trained) if isinstance(trained, list) else 0,
        over_seeds=_spread(seeds, "test_accuracy"),
        corrupted_over_seeds=_spread(seeds, "corrupted_accuracy"),
    )


def _mean(severities: dict[str, Any]) -> float | None:
    values = [value for v in severities.values() if (value := text.number(v)) is not None]
    return sum(values) / len(values) if values else None


def _spread(seeds: dict[str, Any], name: str) -> Spread:
    found = part(seeds, name)
    return Spread(text.number(found.get("mean")), text.number(found.get("deviation")))


def _lost(before: float | None, after: float | None) -> str:
    return text.NONE if before is None or after is None else text.points(100 * (before - after))


def _over(spread: Spread) -> str:
    if spread.mean is None or spread.deviation is None:
        return text.NONE
    return f"{text.hundredths(spread.mean)} ± {text.hundredths(spread.deviation)}"


def _columns(rows: list[Figures], *, wide: bool) -> list[_Column]:
    """Returns the columns that hold something; `wide` ones do not fit a terminal."""
    offered = [
        _Column("network", lambda f: text.plain(f.id, limit=40)),
        _Column("test %", lambda f: text.hundredths(f.accuracy)),
        _Column("corrupt %", lambda f: text.hundredths(f.corrupted)),
        _Column("lost", lambda f: _lost(f.accuracy, f.corrupted)),
    ]
    if wide:
        found = {name for f in rows for name in f.kinds}
        kinds = [*(name for name in SHORT if name in found), *sorted(found - SHORT.keys())]
        offered += [_kind(name) for name in kinds[:MOST_KINDS]]
    offered += [
        _Column("int8 lost", lambda f: _lost(f.accuracy, f.int8)),
        _Column("int8 corrupt %", lambda f: text.hundredths(f.int8_corrupted)),
        _Column("over seeds", lambda f: _over(f.over_seeds)),
    ]
    if wide:
        offered.append(_Column("corrupt over seeds", lambda f: _over(f.corrupted_over_seeds)))
    return [c for c in offered if any(c.cell(f) != text.NONE for f in rows)]


def _kind(name: str) -> _Column:
    heading = text.plain(SHORT.get(name, name), limit=24)
    return _Column(heading, lambda f: text.hundredths(f.kinds.get(name)))


def terminal_table(view: RunView) -> list[list[str]]:
    """Returns the ranking as cells, the heading first; [] where nothing was measured."""
    rows = ranked(view)
    if not rows:
        return []
    columns = _columns(rows, wide=False)
    return [[c.heading for c in columns], *([c.cell(f) for c in columns] for f in rows)]


def robustness_section(view: RunView, anchors: dict[str, str]) -> str:
    """Returns the ranking as a table; "" where nothing was measured."""
    rows = ranked(view)
    if not rows:
        return ""
    columns = _columns(rows, wide=True)
    body = []
    for figures in rows:
        first, *cells = (html.escape(column.cell(figures)) for column in columns)
        if figures.id in anchors:
            first = f'<a class="id" href="#{anchors[figures.id]}">{first}</a>'
        body.append(("", [first, *cells]))
    num_seeds = max(figures.num_seeds for figures in rows)
    note = (
        "How much of the accuracy on the test split lasts, in percent, the most robust network "
        "first. Corrupt: under noise, blur, brightness, contrast and JPEG at severities 1, 3 and 5 "
        "of CIFAR-10-C (Hendrycks and Dietterich 2019); by kind, the mean over the severities."
    )
    if num_seeds > 1:
        note += (
            f" Over seeds: mean and standard deviation of {num_seeds} trainings, that of the "
            "exported weights among them."
        )
    return section(
        "Robustness", note, table([escape(c.heading) for c in columns], body, css="matrix full")
    )
