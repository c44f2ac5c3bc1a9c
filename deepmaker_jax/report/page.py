"""The report: one self-contained HTML page from the run folder alone.

No script, no request: the style is inline, plots and drawings are inline SVG, and
a content policy forbids the rest. All foreign text passes through `markup.escape`.
"""

import html
import pathlib

from deepmaker_jax.documents import CHECKPOINTS, FRONT, MODELS
from deepmaker_jax.errors import InputError
from deepmaker_jax.export.manifest import MANIFEST
from deepmaker_jax.files import remove_leftovers, write_bytes
from deepmaker_jax.report import tables, text
from deepmaker_jax.report.account import cost_section, definitions, reproduction_section
from deepmaker_jax.report.devices import devices_section
from deepmaker_jax.report.longer import longer_section, read_longer
from deepmaker_jax.report.markup import escape, section, table
from deepmaker_jax.report.networks import networks_section
from deepmaker_jax.report.plots import plot_front, plot_hypervolume
from deepmaker_jax.report.robustness import robustness_section
from deepmaker_jax.report.style import CSS
from deepmaker_jax.report.tables import Row
from deepmaker_jax.report.view import (
    RunView,
    front_records,
    hypervolume_trace,
    paid_unit,
    part,
    read_run,
    seconds,
)

NAME = "report.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
NEAR_POINTS = 5  # the headline names the smallest network that loses no more


def write_report(run: pathlib.Path) -> pathlib.Path:
    """Writes report.html, front.png and hypervolume.png into a run folder.

    The same folder gives the same bytes. A run that still goes on gets a page of
    what it has so far.

    Args:
      run: the run folder.

    Returns:
      The page's path.

    Raises:
      InputError: the folder is no run folder or is damaged.
    """
    run = pathlib.Path(run)
    view = read_run(run)
    members = tables.rows(view)
    anchors = {row.id: f"net-{i}" for i, row in enumerate(members, 1)}
    front = plot_front(view, links=anchors)
    volume = plot_hypervolume(view)
    sections = [
        _headline(view, members),
        section(
            "Front",
            "Each dot is a candidate as the search measured it; faint ones are dominated. Point at "
            "one for its numbers, click a member for its drawing.",
            f'<div class="scroll">{front.svg}</div>',
        ),
        _front_table(view, members, anchors),
        _published_table(view, members, anchors),
        robustness_section(view, anchors),
        devices_section(view, members, anchors),
        longer_section(read_longer(run)),
        section(
            "Hypervolume by cost",
            "How much of the objective space the front covered for what had been paid. "
            "A dot ends a generation.",
            f'<div class="scroll">{volume.svg}</div>',
        ),
        networks_section(view, members, anchors),
        cost_section(view),
        reproduction_section(view),
    ]
    body = "\n".join(filter(None, sections))
    title = escape(f"DeepMaker: {_name(view)}")
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style></head>\n<body><main>\n{body}\n"
        f"{definitions(view)}</main></body></html>\n"
    )
    for name in (NAME, "front.png", "hypervolume.png"):
        remove_leftovers(run / name)
    write_bytes(run / "front.png", front.png)
    write_bytes(run / "hypervolume.png", volume.png)
    write_bytes(run / NAME, page.encode())
    return run / NAME


def check_page(run: pathlib.Path) -> None:
    """Raises InputError if the page can't be drawn again, or would tell less than the one there.

    A run that still goes on has its checkpoints, and no front yet. Of bundles the page tells what
    their manifests do, whatever became of the files.
    """
    view = read_run(run)
    if not (run / NAME).exists():
        return
    for name, what in view.gaps:
        to_come = name == FRONT and (run / CHECKPOINTS).exists()
        of_bundle = name.startswith(f"{MODELS}/") and not name.endswith(f"/{MANIFEST}")
        if not to_come and not of_bundle:
            raise InputError(
                f"{run / NAME} tells of more than {run} holds, where {name} {what}, or move {NAME} "
                "away"
            )


def _name(view: RunView) -> str:
    names = (view.config.get("experiment"), view.config.get("preset"))
    return " ".join(text.plain(name, limit=80) for name in names if name) or "a run"


def _headline(view: RunView, members: list[Row]) -> str:
    *names, last = (text.plain(o.name.replace("_", " "), limit=40) for o in view.objectives)
    data, space = part(view.config, "data"), part(view.config, "space")
    about = f"A search for small networks on {text.plain(data.get('name', 'the data'), limit=60)}"
    if space.get("name"):
        about += f" in space {_space(text.plain(space['name']))}"
    about += f", minimising {', '.join(names)} and {last}."
    state = "" if view.front is not None else '<span class="tag">still running</span>'
    volume = hypervolume_trace(view).hypervolume
    unit, hours = paid_unit(view)
    paid = hours * sum(
        sum(seconds(r).values()) for r in (*view.records, *view.latencies, *view.finals)
    )
    tiles = [
        ("on the front", str(len(front_records(view)))),
        ("measurements", f"{len(view.records):,}"),
        ("hypervolume", f"{volume[-1]:.3f}" if volume.size else text.NONE),
        (unit, text.short(paid)),
    ]
    if view.front is not None:
        tiles.insert(1, ("trained in full", str(len(members))))
    best = _best(members)
    if best is not None:
        share, split = tables.accuracy(best)
        label = "test accuracy of the best in validation"
        tiles.insert(
            0, (label if split == "test" else f"best {split} accuracy", text.percent(share))
        )
    shown = "".join(f"<div><b>{html.escape(v)}</b><span>{k}</span></div>" for k, v in tiles)
    gaps = "".join(
        f'<p class="lacks">{escape(gap.name)} {html.escape(gap.text)}.</p>' for gap in view.gaps
    )
    return (
        f"<header><h1>{html.escape(_name(view))} {state}</h1>"
        f'<p class="lead">{html.escape(about)} {html.escape(_sentence(members))}</p>{gaps}'
        f'<div class="tiles">{shown}</div></header>'
    )


def _space(name: str) -> str:
    """Returns a space's name, what `Space.narrow` adds to it in words."""
    whole, bracket, narrowed = name.removesuffix("]").partition("[")
    genes = [gene.partition("=") for gene in narrowed.split(";")]
    if not bracket or not all(choices for _, _, choices in genes):
        return name
    words = "; ".join(f"{gene} {text.either(choices.split('|'))}" for gene, _, choices in genes)
    return f"{whole} (narrowed: {words})"


def _best(members: list[Row]) -> Row | None:
    """Returns the most accurate member by validation accuracy, as `tables.reference` does."""
    known = [row for row in members if row.val_accuracy is not None]
    return max(known, key=lambda row: row.val_accuracy or 0.0) if known else None


def _sentence(members: list[Row]) -> str:
    """Returns what the front reaches, in words."""
    best = _best(members)
    if best is None:
        return "No candidate has been measured yet."
    share, split = tables.accuracy(best)
    said = (
        f"Of {len(members)} network{'s' * (len(members) != 1)} the most accurate in validation "
        f"reaches {text.percent(share)} on the {split} split with {text.whole(best.params)} "
        "parameters"
    )
    said += f" ({text.size(best.int8_bytes)} as int8)." if best.int8_bytes else "."
    # Which network is named is a decision, so validation takes it; what is said of it is the test.
    least = (best.val_accuracy or 0.0) - NEAR_POINTS / 100
    near = [row for row in members if (row.val_accuracy or 0.0) >= least]
    pairs = [tables.against(row, best) for row in near]
    small = max(pairs, key=lambda p: p.compression or 0.0, default=best)
    if small.id == best.id:
        return said
    return (
        f"{said} The smallest within {NEAR_POINTS} points of it in validation has "
        f"{text.whole(small.params)}: {text.times(small.compression)} smaller for "
        f"{text.points(small.points_lost)} points on the {split} split."
    )


def _front_table(view: RunView, members: list[Row], anchors: dict[str, str]) -> str:
    reference = tables.reference(view, members)
    others = [tables.against(row, reference) for row in tables.published(view)]
    columns = tables.columns(view, [*members, *others], wide=True)
    body = []
    for row in (*members, *others):
        first, *cells = (html.escape(column.cell(row)) for column in columns)
        if row.published:
            first += f'<span class="tag" title="{escape(row.source)}">published</span>'
        else:
            first = f'<a class="id" href="#{anchors[row.id]}">{first}</a>'
        is_reference = reference is not None and row.id == reference.id
        kind = "published" if row.published else ""
        body.append((f"{kind} reference" if is_reference else kind, [first, *cells]))
    if reference is None:
        note = "No network has been measured yet."
    else:
        source = " (published)" if reference.published else ""
        note = (
            f"Compression and points lost are counted against <b>{escape(reference.id)}</b>{source}"
        )
        if unknown := tables.unknown_reference(view, members):
            note += f": {escape(unknown)}."
        elif view.config.get("reference") is None:
            note += ", the most accurate member by validation accuracy."
        else:
            note += ", which the config names."
    return section("Members", note, table([html.escape(c.heading) for c in columns], body))


def _published_table(view: RunView, members: list[Row], anchors: dict[str, str]) -> str:
    """Returns every member against every published network; "" if there is none."""
    others = tables.published(view)
    if not others or not members:
        return ""
    head = ["network"] + [
        f'{escape(row.id, limit=40)}<span class="sub">{_published_size(row)}, '
        f"{text.percent(row.test_accuracy)}</span>"
        for row in others
    ]
    body = []
    for row in members:
        cells = [f'<a class="id" href="#{anchors[row.id]}">{escape(row.id, limit=40)}</a>']
        for other in others:
            pair = tables.against(row, other)
            lost = f'<span class="sub">{text.points(pair.points_lost)} points</span>'
            cells.append(text.times(pair.compression) + lost)
        body.append(("", cells))
    note = (
        "How many times smaller each network is, and how many points of test accuracy that costs; "
        "negative points are gained. The published numbers are their authors', not measured here."
    )
    return section("Against published networks", note, table(head, body, css="matrix full"))


def _published_size(row: Row) -> str:
    return text.size(row.int8_bytes) if row.params is None else f"{text.short(row.params)} params"
