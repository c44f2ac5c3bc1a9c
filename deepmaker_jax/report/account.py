"""The page's account: what a run cost, how to do it again, what the words mean."""

import collections
import html
from typing import Any

from deepmaker_jax.documents import written_by
from deepmaker_jax.report import text
from deepmaker_jax.report.markup import escape, section, table
from deepmaker_jax.report.tables import hows
from deepmaker_jax.report.view import PHASES, RunView, examples, paid_unit, part, seconds

MAX_REASONS = 12
DEFINITIONS = (
    ("front", "The candidates that no other one equals or beats in every objective and beats in at "
     "least one."),
    ("error, val.", "Of the float network on the validation split, as the search measured it."),
    ("test", "Accuracy of the float network, retrained from scratch, on the test split. That was "
     "opened when front and weights were fixed; the search never saw it."),
    ("params", "Trainable ones, batch norm's included, before folding."),
    ("MACs", "Multiply-accumulates of convolutions and dense layers for one image; FLOPs are twice "
     "as many."),
    ("int8, int8 %", "Of the int8 TFLite file as written; its accuracy on the test split."),
    ("flash (est.), peak SRAM", "Flash: the int8 file's size as estimated from the layer list. "
     "SRAM: int8 activations alive at once, without the runtime's own structures."),
    ("smaller", "Parameters of the reference divided by the network's; int8 bytes where parameters "
     "are not known."),
    ("lost", "Accuracy of the reference minus the network's, in percentage points: of test "
     "accuracy where both have one, else of validation accuracy. Negative: gained."),
    ("corrupt, int8 corrupt", "Accuracy of the float network, and of the int8 file, on corrupted "
     "test images: each meets several corruptions in turn, front.json says how many images that "
     "makes."),
    ("hypervolume", "Share of the box between the config's ideal and reference points that the "
     "front dominates, on scaled axes (log2 for sizes): 0 to 1, more is better."),
    ("KB", "1024 bytes."),
)  # fmt: skip


def cost_section(view: RunView) -> str:
    """Returns measurements, examples and time by stage, and what went wrong how often."""
    unit, hours = paid_unit(view)
    body = []
    stages = [("search", view.records), ("final training", view.finals)]
    if view.latencies:
        stages.insert(0, ("latency", view.latencies))
    for name, records in stages:
        phases = [hours * sum(seconds(r)[phase] for r in records) for phase in PHASES]
        counts = [text.whole(len(records)), text.short(sum(map(examples, records)))]
        body.append(("", [name, *counts, *(f"{v:.2f}" for v in (*phases, sum(phases)))]))
    head = ["stage", "measurements", "training examples", *PHASES, f"total {unit}"]
    statuses = collections.Counter(r["status"] for r in view.records)
    total = max(1, len(view.records))
    order = sorted(statuses, key=lambda name: (name != "ok", -statuses[name], name))
    rows = [
        ("", [escape(name), f"{statuses[name]:,}", text.percent(statuses[name] / total)])
        for name in order
    ]
    content = table(head, body)
    if rows:
        content += table(["status of a search measurement", "number", "share"], rows, css="counts")
    reasons = collections.Counter(
        (r["status"], str(r["reason"]))
        for r in (*view.records, *view.finals)
        if r["status"] != "ok"
    )
    if reasons:
        listed = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        lines = [
            ("", [escape(status), f"{count:,}", escape(reason, limit=200)])
            for (status, reason), count in listed[:MAX_REASONS]
        ]
        if len(listed) > MAX_REASONS:
            rest = sum(count for _, count in listed[MAX_REASONS:])
            lines.append(("", ["other", f"{rest:,}", "further reasons, see ledger.jsonl"]))
        content += table(["status", "number", "reason"], lines, css="words full")
    note = f"Times as the ledger records them, in {unit}, summed over all measurements."
    return section("What it cost", note, content)


def reproduction_section(view: RunView) -> str:
    """Returns the command, and all that its result depends on."""
    config = view.config
    data, program = part(config, "data"), part(config, "program")
    splits = ", ".join(
        f"{text.whole(data.get(f'num_{split}'))} {split}"
        for split in ("train", "validation", "test")
    )
    if config.get("reproducible") is True:
        promise = "yes: the same command on the same machine and versions gives the same front"
    else:
        promise = f"no: {config.get('reason') or 'no reason was recorded'}"
    lines = [
        ("reproducible", promise),
        ("seed", config.get("seed")),
        ("program", _pairs(program)),
        ("data", f"{data.get('name')} from {data.get('source')}; {splits}"),
        ("data fingerprint", data.get("fingerprint")),
        ("test split", data.get("test_split")),
        ("classes", _listed(data.get("class_names")) or data.get("num_classes")),
        ("versions", _pairs(part(config, "versions"))),
        ("platform", _pairs(part(config, "platform"))),
    ]
    body = [("", [name, escape(value, limit=1000)]) for name, value in lines if value is not None]
    command = escape(written_by(config) or "not recorded", limit=4000)
    content = f"<pre>{command}</pre>{table([], body, css='words full')}"
    return section("How to reproduce it", "The command, with another --out.", content)


def _listed(names: Any) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list) else ""


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_words(values[name])}" for name in sorted(values)) or "not recorded"


def _words(value: Any) -> str:
    if isinstance(value, list):
        return f"({_listed(value)})"
    return "none" if value is None else str(value)


def definitions(view: RunView) -> str:
    """Returns the footnote."""
    found = [*DEFINITIONS, *hows(view)]
    items = "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in found)
    return f"<footer><h2>Definitions</h2><dl>{items}</dl></footer>\n"
