"""The front on its devices: what each target says of each member, and which boards hold it."""

import collections
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from deepmaker_jax.backends.boards import APPLICATION_SHARE, BOARDS, excess
from deepmaker_jax.export.manifest import Standing, standing
from deepmaker_jax.report import text
from deepmaker_jax.report.markup import escape, section, table
from deepmaker_jax.report.tables import Row
from deepmaker_jax.report.view import RunView, part

LATENCY = "_latency_1_thread"  # how the costs of a CPU's runtimes end
FASTEST = "fastest"
# Costs that stand in the overview, and under which word; the cards list all.
HEADLINES = {
    "arena_bytes": "arena",
    "sram_bytes": "SRAM (est.)",
    "latency": "latency (est.)",
    "instructions": "instructions",
    "interval": "an image (est.)",
    "dsps": "DSPs (est.)",
    "reference_accuracy": "accuracy",
}
ARENA, ARENA_TARGET = "arena_bytes", "mcu"


class Figure(NamedTuple):
    """A measured or estimated cost: what it is, its value in words, how it was found."""

    label: str
    value: str
    how: str


class Demand(NamedTuple):
    """What a member takes of a microcontroller.

    Attributes:
      flash_bytes: the int8 file, or its estimate.
      arena_bytes: of TensorFlow Lite Micro, as measured, else as estimated.
      measured: whether the arena was.
    """

    flash_bytes: float
    arena_bytes: float
    measured: bool


def targets(view: RunView) -> list[str]:
    """Returns the targets that any bundle of the run was deployed to, by name."""
    return sorted({name for manifest in view.manifests.values() for name in _deployed(manifest)})


def standings(view: RunView, row: Row) -> dict[str, Standing]:
    """Returns where a member stands with each target that it was deployed to."""
    manifest = view.manifests.get(row.id, {})
    return {name: standing(manifest, name) for name in _deployed(manifest)}


def figures(costs: dict[str, Any]) -> list[Figure]:
    """Returns a manifest entry's costs in words, by name."""
    return [_figure(name, part(costs, name)) for name in sorted(costs)]


def fastest(found: Standing) -> Figure | None:
    """Returns the CPU runtime of the lowest latency at batch 1 on one thread; None without any."""
    latencies = {
        name.removesuffix(LATENCY): (milliseconds, cost)
        for name, cost in _costs(found)
        if name.endswith(LATENCY) and not name.startswith(FASTEST)
        if (milliseconds := text.number(cost.get("value"))) is not None
    }
    if not latencies:
        return None
    name = min(latencies, key=lambda name: (latencies[name][0], name))
    milliseconds, cost = latencies[name]
    how = text.plain(cost.get("how") or "", limit=300)
    return Figure(text.plain(name, limit=40), text.quantity(milliseconds, "ms"), how)


def demand(view: RunView, row: Row) -> Demand | None:
    """Returns what a member takes of a microcontroller; None where its costs are not known."""
    arena = None
    if (found := standings(view, row).get(ARENA_TARGET)) is not None:
        arena = next((text.number(c.get("value")) for n, c in _costs(found) if n == ARENA), None)
    flash = row.flash_bytes if row.int8_bytes is None else row.int8_bytes
    taken = row.arena_bytes if arena is None else arena
    return None if flash is None or taken is None else Demand(flash, taken, arena is not None)


def over(board: str, wanted: Demand) -> str | None:
    """Returns what of a board does not suffice, "flash" or "SRAM" or both; None if it fits."""
    found = excess(board, flash_bytes=wanted.flash_bytes, arena_bytes=wanted.arena_bytes)
    return ", ".join(found) or None


def terminal_table(view: RunView, members: list[Row]) -> list[list[str]]:
    """Returns the members' targets as cells, the heading first; [] for a run without any."""
    names = targets(view)
    if not names:
        return []
    cells = [
        ["network", *(text.plain(name, limit=12) for name in names), "arena", "boards", "fastest"]
    ]
    for row in members:
        stand, wanted = standings(view, row), demand(view, row)
        states = {name: found.status for name, found in stand.items()}
        words = [_SHORT[states[name]] if name in states else text.NONE for name in names]
        best = next(filter(None, map(fastest, stand.values())), None)
        cells.append([
            text.plain(row.id, limit=40), *words,
            text.size(wanted.arena_bytes) if wanted and wanted.measured else text.NONE,
            _count(wanted) if wanted else text.NONE,
            f"{best.label} {best.value}" if best else text.NONE,
        ])  # fmt: skip
    return cells


def left_out(view: RunView, members: list[Row]) -> list[tuple[str, str, str, int]]:
    """Returns (target, status, reason, number of members) of targets that brought nothing."""
    return _grouped(
        (name, found.status, str(found.reason))
        for row in members
        for name, found in standings(view, row).items()
        if found.status != "ok"
    )


def devices_section(view: RunView, members: list[Row], anchors: dict[str, str]) -> str:
    """Returns the members' targets and boards; "" where nothing is known of either."""
    return _targets_section(view, members, anchors) + _boards_section(view, members, anchors)


_SHORT = {"ok": "ok", "unsupported": "no", "failed": "failed"}


def _figure(name: str, cost: dict[str, Any]) -> Figure:
    unit = str(cost.get("unit") or "")
    return Figure(
        text.plain(name.replace("_", " "), limit=60),
        text.quantity(cost.get("value"), "" if unit == name else unit),  # not "1,337 DSPs dsps"
        text.plain(cost.get("how") or "", limit=300),
    )


def _deployed(manifest: dict[str, Any]) -> list[str]:
    return sorted(part(manifest, "targets"))


def _grouped(problems: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str, int]]:
    """Counts equal (target, status, reason); failed ones first."""
    counts = collections.Counter(problems)
    return [(*key, counts[key]) for key in sorted(counts, key=lambda key: (key[1], key))]


def _costs(found: Standing) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in found.entries.values():
        costs = part(entry, "cost")
        for name in sorted(costs):
            yield name, part(costs, name)


def _count(wanted: Demand) -> str:
    return f"{sum(over(name, wanted) is None for name in BOARDS)} of {len(BOARDS)}"


def _targets_section(view: RunView, members: list[Row], anchors: dict[str, str]) -> str:
    names = targets(view)
    if not names:
        return ""
    body = []
    for row in members:
        stand = standings(view, row)
        cells = [_target(stand[name]) if name in stand else text.NONE for name in names]
        body.append(("", [_link(row, anchors), *cells]))
    content = table(
        ["network", *(escape(name, limit=20) for name in names)], body, css="words full"
    )
    missing = _grouped(
        (name, entry["status"], str(entry.get("reason")))
        for row in members
        for name, found in standings(view, row).items()
        for entry in found.entries.values()
        if entry["status"] != "ok"
    )
    if missing:
        lines = [
            ("", [escape(name, limit=20), status, escape(reason), text.whole(count)])
            for name, status, reason, count in missing
        ]
        heads = ["target", "status", "why a file was not made, or not run", "files"]
        content += table(heads, lines, css="words full")
    note = (
        "What was built for each target and run or simulated there, compared with JAX on the "
        "bundle's reference images. Point at a figure for how it was found."
    )
    return section("Targets", note, content)


def _target(found: Standing) -> str:
    num_bytes = sum(text.number(entry.get("bytes")) or 0 for entry in found.entries.values())
    lines = [f"{found.num_ok} of {found.num_files} files, {text.size(num_bytes)}"]
    best = fastest(found)
    if best:
        value = f"fastest: {best.label} {best.value}"
        lines.append(f'<span title="{escape(best.how)}">{escape(value)}</span>')
    seen = {}
    for name, cost in _costs(found):
        if name in HEADLINES and name not in seen:
            figure = _figure(name, cost)
            how = escape(figure.how)
            seen[name] = f'<span title="{how}">{HEADLINES[name]} {escape(figure.value)}</span>'
    lines += seen.values()
    shown = "".join(f'<span class="sub">{line}</span>' for line in lines)
    return f'<b class="{found.status}">{found.status}</b>{shown}'


def _boards_section(view: RunView, members: list[Row], anchors: dict[str, str]) -> str:
    wanted = {row.id: demand(view, row) for row in members}
    head = ["network", "flash", "SRAM"]
    head += [
        f'{name}<span class="sub">{text.size(board.flash_bytes)}, {text.size(board.sram_bytes)}'
        "</span>"
        for name, board in BOARDS.items()
    ]
    body = []
    for row in members:
        need = wanted[row.id]
        if need is None:
            continue
        cells = [text.size(need.flash_bytes), text.size(need.arena_bytes)]
        cells[1] += "" if need.measured else '<span class="sub">estimate</span>'
        for name in BOARDS:
            lacking = over(name, need)
            cells.append('<b class="ok">fits</b>' if lacking is None else f"no: {lacking}")
        body.append(("", [_link(row, anchors), *cells]))
    if not body:
        return ""
    note = (
        f"Which network leaves a board {100 * APPLICATION_SHARE:.0f} % of its flash and of its "
        "SRAM for the runtime and the application. SRAM is TFLM's arena as measured, or its "
        "estimate where it was not."
    )
    return section("Boards", note, table(head, body, css="matrix full"))


def _link(row: Row, anchors: dict[str, str]) -> str:
    return f'<a class="id" href="#{anchors[row.id]}">{escape(row.id, limit=40)}</a>'
