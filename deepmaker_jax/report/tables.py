"""The rows of the front: one set of numbers for the terminal and the page."""

from collections.abc import Callable
from typing import Any, NamedTuple

from deepmaker_jax.objective import COST_HOW, ERROR_HOW
from deepmaker_jax.report import text
from deepmaker_jax.report.view import RunView, candidates, front_records, part

VALIDATION, TEST = "val. %", "test %"  # headings
INT8_FILE = "model_int8.tflite"
# Objectives that have a column of their own.
KNOWN = ("error", "val_error", "params", "macs", "peak_activation_bytes", "flash_bytes")


class Row(NamedTuple):
    """One network. Numbers are None where nothing was measured.

    Attributes:
      id: the candidate's id, or a published network's name.
      objectives: {name: raw value}; empty for a published network.
      published: the numbers are another author's, not measured here.
      source: where a published network's numbers come from.
      params, macs, peak_activation_bytes, arena_bytes, flash_bytes: costs; the arena and flash are
        estimates.
      val_accuracy, test_accuracy: of the float network, 0..1.
      int8_bytes, int8_accuracy: of the int8 file, once it was written and run.
      compression: how many times smaller than the reference.
      points_lost: accuracy points under the reference; negative ones are gained.
      arch: as JSON; None for a published network.
    """

    id: str
    objectives: dict[str, Any]
    published: bool = False
    source: str = ""
    params: float | None = None
    macs: float | None = None
    peak_activation_bytes: float | None = None
    arena_bytes: float | None = None
    flash_bytes: float | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    int8_bytes: float | None = None
    int8_accuracy: float | None = None
    compression: float | None = None
    points_lost: float | None = None
    arch: Any = None


class Column(NamedTuple):
    """A column of the front's table: heading and how a row fills it."""

    heading: str
    cell: Callable[[Row], str]


def rows(view: RunView) -> list[Row]:
    """Returns the front's members in order, compared with the run's reference."""
    if view.front is not None:
        members = [_member(member, view) for member in view.front["members"]]
    else:
        members = [_candidate(record) for record in front_records(view)]
    return [against(row, reference(view, members)) for row in members]


def published(view: RunView) -> list[Row]:
    """Returns the published networks that config.json names."""
    listed = view.config.get("references")
    return [
        Row(
            id=str(item.get("name")),
            objectives={},
            published=True,
            source=str(item.get("source") or ""),
            params=text.number(item.get("params")),
            test_accuracy=text.number(item.get("accuracy")),
            int8_bytes=text.number(item.get("bytes")),
        )
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict)
    ]


def reference(view: RunView, members: list[Row]) -> Row | None:
    """Returns the network that compression is counted against.

    config.json's `reference` may name a member, a published network or any
    measured candidate. Without one, or when it names none of them, it is the
    most accurate member by validation accuracy: test data decide nothing.
    """
    name = view.config.get("reference")
    if name is not None:
        measured = (_candidate(r) for r in candidates(view.records) if r["id"] == name)
        named = [row for row in (*members, *published(view)) if row.id == name]
        for row in (*named, *measured):
            return row
    known = [row for row in members if row.val_accuracy is not None]
    return max(known, key=lambda row: row.val_accuracy or 0.0) if known else None


def unknown_reference(view: RunView, members: list[Row]) -> str:
    """Returns a line on a config's `reference` that names nothing; "" if it names something."""
    name, taken = view.config.get("reference"), reference(view, members)
    if name is None or taken is None or taken.id == name:
        return ""
    return (
        f"reference {text.plain(name, limit=60)} is neither a member nor a published network: "
        "points are counted against the most accurate member"
    )


def against(row: Row, other: Row | None) -> Row:
    """Returns `row` with its compression and points lost counted against `other`.

    Compression is the ratio of parameters, or of int8 bytes where parameters
    are not known. Points are of test accuracy where both have one, else of
    validation accuracy.
    """
    if other is None:
        return row
    smaller = _ratio(other.params, row.params) or _ratio(other.int8_bytes, row.int8_bytes)
    lost = _difference(other.test_accuracy, row.test_accuracy)
    if lost is None:
        lost = _difference(other.val_accuracy, row.val_accuracy)
    return row._replace(compression=smaller, points_lost=None if lost is None else 100 * lost)


def accuracy(row: Row) -> tuple[float | None, str]:
    """Returns a network's accuracy and its split: test where there is one, else validation."""
    if row.test_accuracy is not None:
        return row.test_accuracy, "test"
    return row.val_accuracy, "validation"


def columns(view: RunView, table: list[Row], *, wide: bool = False) -> list[Column]:
    """Returns the columns that hold something in at least one row.

    Args:
      view: the run, for its objectives.
      table: the rows.
      wide: also those that do not fit a terminal of 80 characters.
    """
    offered = [
        Column("params", lambda row: text.whole(row.params)),
        Column("MACs", lambda row: text.short(row.macs)),
        Column(VALIDATION, lambda row: text.hundredths(row.val_accuracy)),
        Column(TEST, lambda row: text.hundredths(row.test_accuracy)),
    ]
    if any(row.int8_bytes is not None for row in table):
        offered.append(Column("int8", lambda row: text.size(row.int8_bytes)))
        offered.append(Column("int8 %", lambda row: text.hundredths(row.int8_accuracy)))
    if all(row.published or row.int8_bytes is None for row in table):
        offered.append(Column("flash (est.)", lambda row: text.size(row.flash_bytes)))
    if wide:
        offered.append(Column("peak SRAM", lambda row: text.size(row.peak_activation_bytes)))
    for objective in view.objectives:
        if objective.name not in KNOWN:
            offered.append(_objective_column(objective.name, objective.unit))
    offered += [
        Column("smaller", lambda row: text.times(row.compression)),
        Column("lost", lambda row: text.points(row.points_lost)),
    ]
    filled = [c for c in offered if any(c.cell(row) != text.NONE for row in table)]
    return [Column("network", lambda row: text.plain(row.id, limit=40)), *filled]


def hows(view: RunView) -> list[tuple[str, str]]:
    """Returns (name, how it was measured) of the objectives of which headings do not tell it."""
    return [
        (text.plain(o.name, limit=60), text.plain(o.how))
        for o in view.objectives
        if o.how and o.how not in (COST_HOW, ERROR_HOW)
    ]


def _objective_column(name: str, unit: str) -> Column:
    heading = text.plain(name, limit=24)
    return Column(heading, lambda row: text.quantity(row.objectives.get(name), unit))


def _member(member: dict[str, Any], view: RunView) -> Row:
    id = str(member.get("id"))
    values = part(member, "objectives")
    file = part(part(view.manifests.get(id), "files"), INT8_FILE)
    file = file if file.get("status") == "ok" else {}
    numbers: dict[str, Any] = {
        "params": member.get("params"),
        "macs": member.get("macs"),
        "peak_activation_bytes": member.get("peak_activation_bytes"),
        "arena_bytes": member.get("arena_bytes"),
        "flash_bytes": member.get("flash_bytes", values.get("flash_bytes")),
        "val_accuracy": member.get("val_accuracy"),
        "test_accuracy": member.get("test_accuracy"),
        "int8_bytes": _first(member.get("int8_bytes"), file.get("bytes")),
        "int8_accuracy": _first(member.get("int8_accuracy"), file.get("accuracy")),
    }
    for name, value in numbers.items():
        numbers[name] = text.number(value)
    return Row(id=id, objectives=values, arch=member.get("arch"), **numbers)


def _candidate(record: dict[str, Any]) -> Row:
    names = ("params", "macs", "peak_activation_bytes", "arena_bytes", "flash_bytes")
    costs: dict[str, Any] = {n: text.number(part(record, "costs").get(n)) for n in names}
    return Row(
        id=str(record["id"]),
        objectives=part(record, "objectives"),
        val_accuracy=text.number(part(record, "measured").get("val_accuracy")),
        arch=record["arch"],
        **costs,
    )


def _first(value: Any, other: Any) -> Any:
    return other if value is None else value


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
