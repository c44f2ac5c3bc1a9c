"""The ranking by robustness: its order, its numbers, and what it does without them."""

import html
import json
import re

import pytest

from deepmaker_jax.files import write_json
from deepmaker_jax.report import read_run, write_report
from deepmaker_jax.report.robustness import ranked, robustness_section, terminal_table
from tests.report.conftest import SCRIPT


def change(run, member):
    """Replaces the first member's entries."""
    path = run / "front.json"
    front = json.loads(path.read_text())
    front["members"][0] |= member
    write_json(path, front)


def cells(section):
    """The section's rows of text."""
    return [
        [html.unescape(cell) for cell in re.findall("<t[hd]>(.*?)</t[hd]>", row)]
        for row in section.split("<tr")[1:]
    ]


def test_the_most_accurate_under_corruptions_comes_first(make_run):
    view = read_run(make_run(60))
    found = ranked(view)
    members = {m["id"]: m["robustness"]["corruptions"]["accuracy"] for m in view.front["members"]}
    assert [figures.id for figures in found] == sorted(members, key=lambda id: (-members[id], id))
    assert [figures.corrupted for figures in found] == sorted(members.values(), reverse=True)
    assert found[0].id != view.front["members"][0]["id"]  # another order than the front's


def test_the_section_has_the_fronts_numbers(make_run):
    view = read_run(make_run(60, num_seeds=3))
    figures = ranked(view)[0]
    heading, first, *others = cells(robustness_section(view, {figures.id: "net-7"}))
    assert len(others) == len(view.front["members"]) - 1
    row = dict(zip(heading, first, strict=True))
    assert figures.id in row["network"]
    assert "#net-7" in row["network"]
    test, corrupted = 100 * figures.accuracy, 100 * figures.corrupted
    assert row["test %"] == f"{test:.2f}"
    assert row["corrupt %"] == f"{corrupted:.2f}"
    assert row["lost"] == f"{test - corrupted:.2f}"
    # The mean over severities 1, 3, 5 of what is half lost at 5.
    assert row["noise"] == f"{test * (1 - 0.5 * 3 / 5):.2f}"
    assert row["JPEG"] == f"{test * (1 - 0.1 * 3 / 5):.2f}"
    assert row["int8 lost"] == "0.40"
    assert row["int8 corrupt %"] == f"{corrupted - 1:.2f}"
    assert row["over seeds"] == f"{test:.2f} ± 1.23"
    assert row["corrupt over seeds"] == f"{corrupted:.2f} ± 1.23"


def test_one_seed_has_no_spread(make_run):
    section = robustness_section(read_run(make_run(60)), {})
    assert "±" not in section
    assert "seeds" not in section


@pytest.mark.parametrize("finished", [True, False])
def test_without_figures_there_is_nothing_to_rank(make_run, finished):
    run = make_run(8, finished=finished)
    if finished:
        front = json.loads((run / "front.json").read_text())
        for member in front["members"]:
            member["robustness"] = None
        write_json(run / "front.json", front)
    view = read_run(run)
    assert robustness_section(view, {}) == ""
    assert terminal_table(view) == []


@pytest.mark.parametrize(
    "member",
    [
        {"robustness": 3},
        {"robustness": {"corruptions": {"accuracy": "high", "kinds": []}}},
        {"robustness": {"corruptions": {"accuracy": 0.5, "kinds": {"a": 1, "b": {"1": None}}}}},
        {"robustness": {"corruptions": {"accuracy": 0.5}, "seeds": 1, "int8": []}},
        {"robustness": {"corruptions": {"accuracy": 0.5}, "seeds": {"trained": 3}}},
        {"test_accuracy": None},
        {"id": SCRIPT, "bundle": None},
    ],
)
def test_whatever_a_file_says_becomes_a_page(make_run, member):
    run = make_run(8)
    change(run, member)
    page = write_report(run).read_text()
    assert SCRIPT not in page
    assert terminal_table(read_run(run))
