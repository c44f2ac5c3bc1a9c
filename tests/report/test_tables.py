"""The rows of the front against a hand computation."""

import json

import pytest

from deepmaker_jax.files import write_document
from deepmaker_jax.report import read_run, tables
from tests.report.conftest import ERROR, FLASH, LATENCY, REFERENCES


def member(id, params, val, test, **changes):
    """Returns a member of front.json."""
    return {
        "id": id, "genome": [], "arch": {}, "objectives": {"error": 1 - val, "flash_bytes": 5000},
        "params": params, "macs": 1_000_000, "peak_activation_bytes": 2048, "val_accuracy": val,
        "test_accuracy": test, "int8_bytes": None, "int8_accuracy": None, "bundle": None,
    } | changes  # fmt: skip


@pytest.fixture
def view_of(make_run):
    """A function that reads a run whose front.json has the given members."""

    def make(*members, **changes):
        run = make_run(9, **changes)
        write_document(run / "front.json", {"objectives": [], "members": list(members)})
        return read_run(run)

    return make


BIG = member("big", 264_000, 0.80, 0.91)
SMALL = member("small", 10_000, 0.70, 0.87, int8_bytes=22_528, int8_accuracy=0.8651)


def test_members_are_compared_with_the_most_accurate(view_of):
    view = view_of(BIG, SMALL)
    big, small = tables.rows(view)
    assert (big.compression, big.points_lost) == (1.0, 0.0)
    assert small.compression == pytest.approx(26.4)
    assert small.points_lost == pytest.approx(4.0)
    cells = [column.cell(small) for column in tables.columns(view, [big, small])]
    assert cells == [
        "small", "10,000", "1.00M", "70.00", "87.00", "22.0 KB", "86.51", "26.4x", "4.00",
    ]  # fmt: skip


def test_test_data_do_not_choose_the_reference(view_of):
    """A member that only the test split prefers is not the reference: it gains points."""
    view = view_of(BIG, member("lucky", 132_000, 0.79, 0.93))
    lucky = tables.rows(view)[1]
    assert lucky.compression == pytest.approx(2.0)
    assert lucky.points_lost == pytest.approx(-2.0)


def test_the_config_may_name_a_published_network(view_of):
    view = view_of(BIG, SMALL, reference="ResNet-20")
    big, small = tables.rows(view)
    assert small.compression == pytest.approx(27.0)
    assert small.points_lost == pytest.approx(100 * (0.913 - 0.87))
    assert big.compression == pytest.approx(270_000 / 264_000)


def test_the_config_may_name_a_member(view_of):
    big, small = tables.rows(view_of(BIG, SMALL, reference="small"))
    assert (small.compression, small.points_lost) == (1.0, 0.0)
    assert big.compression == pytest.approx(10 / 264)
    assert big.points_lost == pytest.approx(-4.0)


def test_the_config_may_name_a_candidate_that_left_the_front(view_of, make_run):
    searched = read_run(make_run(9, name="other")).records[0]
    (row,) = tables.rows(view_of(SMALL, reference=searched["id"]))
    assert row.compression == pytest.approx(searched["costs"]["params"] / 10_000)
    # The candidate has no test accuracy, so validation accuracies are compared.
    lost = 100 * (searched["measured"]["val_accuracy"] - 0.70)
    assert row.points_lost == pytest.approx(lost)


def test_an_unknown_reference_falls_back(view_of):
    view = view_of(BIG, SMALL, reference="nobody")
    assert tables.reference(view, tables.rows(view)).id == "big"
    assert tables.unknown_reference(view, tables.rows(view)) == (
        "reference nobody is neither a member nor a published network: points are counted against "
        "the most accurate member"
    )
    for name in (None, "small", "ResNet-20"):
        known = view._replace(config=view.config | {"reference": name})
        assert tables.unknown_reference(known, tables.rows(known)) == ""


def test_bytes_compare_where_parameters_are_unknown(view_of):
    reference = {"name": "only bytes", "params": None, "accuracy": 0.9131, "bytes": 45_056}
    view = view_of(SMALL, references=[reference])
    pair = tables.against(tables.rows(view)[0], tables.published(view)[0])
    assert pair.compression == pytest.approx(2.0)
    assert pair.points_lost == pytest.approx(4.31)


def test_published_networks_are_marked(view_of):
    rows = tables.published(view_of(BIG))
    assert [(r.id, r.published, r.params, r.test_accuracy, r.int8_bytes) for r in rows] == [
        (n["name"], True, n["params"], n["accuracy"], n["bytes"]) for n in REFERENCES
    ]


def test_missing_values_are_left_out_or_dashes(view_of):
    bare = {"id": "bare", "arch": None, "params": "many", "test_accuracy": None}
    view = view_of(BIG, bare)
    rows = tables.rows(view)
    assert [c.cell(rows[1]) for c in tables.columns(view, rows)] == [
        "bare", "-", "-", "-", "-", "-", "-", "-",
    ]  # fmt: skip
    headings = [c.heading for c in tables.columns(view, rows)]
    assert "int8" not in headings
    assert "flash (est.)" in headings


def test_int8_figures_come_from_the_manifest_where_front_json_has_none(make_run):
    run = make_run(9)
    front = json.loads((run / "front.json").read_text())
    front["members"][0] |= {"int8_bytes": None, "int8_accuracy": None}
    write_document(run / "front.json", front)
    row = tables.rows(read_run(run))[0]
    assert (row.int8_bytes, row.int8_accuracy) == (53208, 0.8512)


def test_without_front_json_the_rows_come_from_the_ledger(make_run):
    finished = tables.rows(read_run(make_run(40)))
    running = tables.rows(read_run(make_run(40, finished=False, name="running")))
    assert [r.id for r in running] == [r.id for r in finished]
    assert [r.val_accuracy for r in running] == [r.val_accuracy for r in finished]
    assert {r.test_accuracy for r in running} == {None}


def test_an_objective_of_ones_own_has_a_column(make_run):
    view = read_run(make_run(20, objectives=[ERROR, FLASH, LATENCY]))
    rows = tables.rows(view)
    (column,) = [c for c in tables.columns(view, rows) if c.heading == LATENCY["name"]]
    assert column.cell(rows[0]) == f"{rows[0].objectives[LATENCY['name']]:.3g} ms"
