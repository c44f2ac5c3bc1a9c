"""Whatever text a file holds, in a value or a key: the page and the terminal show it as text."""

import copy
import html.parser
import json
import re

import pytest

from deepmaker_jax.cli import main
from deepmaker_jax.ledger import NAME, checksum
from deepmaker_jax.report import figure, page
from tests.fuzz import run as runs
from tests.fuzz.core import ESCAPES, MARKUP, Door
from tests.fuzz.test_documents import documents

HOSTILE = f"{MARKUP}{ESCAPES}"
LOOSE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


class Page(html.parser.HTMLParser):
    """Collects a page's elements, and its attributes' names."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.links = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {(tag, name) for name, _ in attributes}
        self.links += [value for name, value in attributes if name in ("href", "src")]


@pytest.fixture
def run(tmp_path):
    return runs.make(tmp_path)


def check_page(run, clean):
    """The page has no element, attribute or link that it has not for harmless text."""
    text = (run / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert found.tags <= clean.tags
    assert found.attributes <= clean.attributes
    assert all(link.startswith("#") for link in found.links)
    assert not LOOSE.search(text)


def texts(value, path=()):
    """Yields the place of every text in a document, and of every key as (place, None)."""
    if isinstance(value, dict):
        for key in value:
            yield (*path, key), None
            yield from texts(value[key], (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:1]):  # the rest are alike
            yield from texts(inner, (*path, i))
    elif isinstance(value, str):
        yield path, value


def replaced(value, path, kept):
    """A copy with hostile text there: in place of the value, or of the key."""
    value = copy.deepcopy(value)
    *parents, last = path
    inner = value
    for key in parents:
        inner = inner[key]
    if kept is None:
        inner[HOSTILE] = inner.pop(last)
    else:
        inner[last] = HOSTILE
    return value


def test_every_text_of_every_document(run, capsys, monkeypatch):
    """One at a time, in config.json, front.json, manifest.json and a measurement that failed."""
    main(["report", str(run)])
    clean = Page((run / "report.html").read_text(encoding="utf-8"))
    for name in ("plot_front", "plot_hypervolume"):  # theirs are in the next test
        monkeypatch.setattr(page, name, lambda *_, **__: figure.Plot("<svg></svg>", b""))
    runs.standing_in(monkeypatch)
    door = Door("texts", capsys)
    ledger = run / NAME
    lines = ledger.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if json.loads(line)["status"] != "ok")
    for path in [*documents(run), ledger]:
        text = path.read_text()
        value = json.loads(lines[number] if path == ledger else text)
        value.pop("sum", None)
        for place, kept in texts(value):
            bad = replaced(value, place, kept)
            if path == ledger:
                bad = json.dumps(bad | {"sum": checksum(bad)})
                bad = "\n".join([*lines[:number], bad, *lines[number + 1 :]]) + "\n"
            runs.put(path, bad if isinstance(bad, str) else json.dumps(bad))
            case = (path.name, place, kept is None)
            code = door.give(case, case, lambda: main(["report", str(run)]))
            if code == 0:
                check_page(run, clean)
            door.give(case, case, lambda: main(["show", str(run)]))
            if path.name in ("front.json", "manifest.json"):
                door.give(case, case, lambda: main(["check", str(run)]), codes=(0, 1, 2))
        runs.put(path, text)
    door.check(least=150, refused=20, accepted=150)


def test_every_text_at_once_in_the_plots(run, capsys):
    """Names and units become labels, legends and tooltips."""
    main(["report", str(run)])
    clean = Page((run / "report.html").read_text(encoding="utf-8"))
    (run / "report.html").unlink()  # what follows lacks some of what it tells of
    config = runs.make_config(
        [
            runs.ERROR | {"unit": HOSTILE},
            runs.FLASH | {"name": HOSTILE, "unit": HOSTILE, "how": HOSTILE},
        ]
    )
    config |= {"experiment": HOSTILE, "preset": HOSTILE, "command": HOSTILE, "reason": HOSTILE}
    config["references"] = [
        {"name": HOSTILE, "params": 9, "accuracy": 0.9, "bytes": 9_000, "source": HOSTILE}
    ]
    config |= {"versions": {HOSTILE: HOSTILE}, "platform": {HOSTILE: HOSTILE}, "seed": HOSTILE}
    runs.put(documents(run)[0], json.dumps(config))
    front = json.loads(documents(run)[1].read_text())
    for i, member in enumerate(front["members"]):
        member |= {"id": f"{HOSTILE}{i}", "bundle": None}
        member["objectives"][HOSTILE] = 20_000 + i
    runs.put(documents(run)[1], json.dumps(front))
    lines = []
    for line in (run / NAME).read_text().splitlines():
        record = json.loads(line)
        record["objectives"][HOSTILE] = record["objectives"]["flash_bytes"]
        record |= {"id": HOSTILE + record["id"], "reason": HOSTILE, "parents": [HOSTILE]}
        lines.append(json.dumps(record | {"sum": checksum(record)}))
    runs.put(run / NAME, "\n".join(lines) + "\n")
    door = Door("plots' texts", capsys)
    assert door.give("report", 0, lambda: main(["report", str(run)])) == 0
    check_page(run, clean)
    assert door.give("show", 0, lambda: main(["show", str(run)])) == 0
