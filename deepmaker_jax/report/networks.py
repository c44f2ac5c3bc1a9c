"""The page's cards: one network each, drawn, with the files made of it."""

import html

from deepmaker_jax import arch as archs
from deepmaker_jax.description import describe
from deepmaker_jax.errors import InputError
from deepmaker_jax.report import text
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
    """Returns a member's deployable files, folded; "" without a bundle."""
    files = part(view.manifests.get(row.id), "files")
    if not files:
        return ""
    head = ["file", "status", "size", "top-1 agreement with JAX", "largest logit error", "accuracy"]
    body = []
    for path in sorted(files):
        file = part(files, path)
        parity = part(file, "parity")
        status = escape(file.get("status"), limit=40)
        if file.get("reason"):
            status += f": {escape(file['reason'], limit=160)}"
        cells = [
            text.size(file.get("bytes")),
            text.percent(parity.get("top1_agreement")),
            text.short(parity.get("max_abs_error")),
            text.percent(file.get("accuracy")),
        ]
        body.append(("", [f"<code>{escape(path, limit=120)}</code>", status, *cells]))
    folder = f"models/{row.id}"
    return (
        f"<details><summary>{len(files)} files in <code>{escape(folder)}</code></summary>"
        f"{table(head, body)}</details>"
    )
