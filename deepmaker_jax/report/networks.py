"""The page's cards: one network each, drawn, with the files made of it."""

import collections
import html
from typing import Any

from deepmaker_jax import arch as archs
from deepmaker_jax.description import describe
from deepmaker_jax.errors import InputError
from deepmaker_jax.report import text
from deepmaker_jax.report.devices import figures
from deepmaker_jax.report.drawing import draw
from deepmaker_jax.report.markup import escape, section, table
from deepmaker_jax.report.tables import Row, accuracy
from deepmaker_jax.report.view import RunView, part


def networks_section(view: RunView, members: list[Row], anchors: dict[str, str]) -> str:
    """Returns a card for every member; "" if there is none."""
    if not members:
        return ""
    cards = "".join(_card(view, row, anchors[row.id]) for row in members)
    note = (
        "Boxes: height for resolution, width for channels; the pale edge is a 1x1 bottleneck. "
        "Arcs: maps that a layer reads from before its neighbour."
    )
    return section("Networks", note, cards)


def _card(view: RunView, row: Row, anchor: str) -> str:
    share, split = accuracy(row)
    about = [f"{text.percent(share)} {split} accuracy", f"{text.whole(row.params)} parameters"]
    about += [f"{text.short(row.macs)} MACs"]
    try:
        arch = archs.from_json(row.arch)
        drawing = (
            f'<p class="note">{escape(describe(arch), limit=2000)}</p>'
            f'<div class="scroll">{draw(arch, title=f"network {row.id}")}</div>'
        )
    except InputError as error:
        drawing = f'<p class="note">Not drawn: {escape(error)}</p>'
    return (
        f'<div class="network" id="{anchor}"><h3 class="id">{escape(row.id, limit=40)}</h3>'
        f'<p class="note">{html.escape(" · ".join(about))}</p>{drawing}{_files(view, row)}</div>'
    )


def _files(view: RunView, row: Row) -> str:
    """Returns a member's deployable files, folded; "" without a bundle.

    A target's sources, with no figures of their own, are counted in one line.
    """
    manifest = view.manifests.get(row.id)
    if not manifest or not manifest["files"]:
        return ""
    files: dict[str, dict[str, Any]] = manifest["files"]
    body, sources = [], collections.defaultdict[str, list[Any]](list)
    for path, file in sorted(files.items()):
        if "/" in path and file["status"] == "ok" and not (file.get("parity") or file.get("cost")):
            sources[path.split("/")[0]].append(file.get("bytes"))
        else:
            body.append(("", _file(path, file)))
    for target, sizes in sources.items():
        total = text.size(sum(text.number(size) or 0 for size in sizes))
        about = [f"<code>{escape(target, limit=40)}/</code>", f"{len(sizes)} files more", total]
        body.append(("", [*about, text.NONE, text.NONE, text.NONE, ""]))
    head = [
        "file", "status", "size", "top-1 agreement with JAX", "largest logit error", "accuracy",
        "figures",
    ]  # fmt: skip
    return (
        f"<details><summary>{len(files)} files in <code>{escape(f'models/{row.id}')}</code>"
        f"</summary>{table(head, body)}</details>"
    )


def _file(path: str, file: dict[str, Any]) -> list[str]:
    """Returns the cells of one file."""
    parity = part(file, "parity")
    status = escape(file["status"])
    if file.get("reason"):
        status += f": {escape(file['reason'], limit=160)}"
    costs = "".join(
        f'<span class="sub" title="{escape(cost.how)}">{escape(cost.label)} '
        f"{escape(cost.value)}</span>"
        for cost in figures(part(file, "cost"))
    )
    return [
        f"<code>{escape(path, limit=120)}</code>",
        status,
        text.size(file.get("bytes")),
        text.percent(parity.get("top1_agreement")),
        text.short(parity.get("max_abs_error")),
        text.percent(file.get("accuracy")),
        costs,
    ]
