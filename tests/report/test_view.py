"""Reading a run folder back."""

import json

import numpy as np
import pytest

from deepmaker_jax.errors import InputError
from deepmaker_jax.ledger import Ledger
from deepmaker_jax.report import read_run
from deepmaker_jax.report.view import (
    candidates,
    fitness,
    front_records,
    hypervolume_trace,
    paid_unit,
)
from tests.report.conftest import ERROR, FINAL, FLASH, SEARCH, make_config, write_run


def record(id, error, size, *, generation=0, status="ok", **changes):
    """Returns a small measurement."""
    return {
        "id": id, "generation": generation, "genome": [], "arch": {}, "parents": [],
        "fidelity": SEARCH, "objectives": {"error": error, "flash_bytes": size},
        "seconds": {"compile": 1.0, "train": 2.0, "eval": 0.5}, "status": status, "reason": None,
    } | changes  # fmt: skip


@pytest.fixture
def small_run(tmp_path):
    """A function that writes a run of given measurements and reads it."""

    def make(records, **changes):
        config = make_config([ERROR, FLASH], generations=2) | changes
        return read_run(write_run(tmp_path, config=config, records=records))

    return make


def test_the_front_so_far_is_sorted_and_leaves_failures_out(small_run):
    view = small_run(
        [
            record("c", 0.5, 8192),
            record("dominated", 0.5, 16384),
            record("nan", None, 4096, status="diverged"),
            record("not finite but ok", None, 4096),
            record("b", 0.2, 65536),
            record("twin of b", 0.2, 65536),
            record("failed", 0.1, 4096, status="failed"),
        ]
    )
    assert [r["id"] for r in front_records(view)] == ["b", "twin of b", "c"]


def test_a_candidate_counts_at_its_highest_fidelity(small_run):
    more = SEARCH | {"epochs": 8}
    view = small_run(
        [
            record("a", 0.5, 8192, fidelity=more),
            record("a", 0.4, 8192),
            record("b", 0.6, 8192),
        ]
    )
    assert [r["objectives"]["error"] for r in candidates(view.records)] == [0.5, 0.6]
    assert [r["objectives"]["error"] for r in front_records(view)] == [0.5]


def test_with_rungs_the_front_is_of_those_that_reached_the_last_and_examples_count_once(small_run):
    def at(*rungs):
        return {"fidelity": SEARCH | {"epochs": rungs[-1], "rungs": list(rungs)}}

    whole = [
        record("a", 0.6, 8192, **at(1)),
        record("small", 0.7, 4096, **at(1)),
        record("b", 0.5, 16384, **at(1)),
        record("a", 0.5, 8192, **at(1, 3)),
    ]
    view = small_run(whole)
    assert [r["id"] for r in front_records(view)] == ["a"]
    assert {r["id"]: r["objectives"]["error"] for r in candidates(view.records)} == {
        "a": 0.5, "small": 0.7, "b": 0.5,
    }  # fmt: skip
    an_epoch = SEARCH["images"]
    trace = hypervolume_trace(view)
    np.testing.assert_allclose(trace.cost, an_epoch * np.array([1, 2, 3, 5]))
    assert trace.hypervolume[2] == 0 < trace.hypervolume[3]


def test_if_nobody_came_through_the_last_rung_the_front_is_that_of_the_rung_below(small_run):
    def at(*rungs):
        return {"fidelity": SEARCH | {"epochs": rungs[-1], "rungs": list(rungs)}}

    view = small_run(
        [
            record("a", 0.6, 8192, **at(1)),
            record("b", 0.5, 16384, **at(1)),
            record("dominated", 0.7, 16384, **at(1)),
            record("b", None, 16384, status="timeout", **at(1, 3)),
        ]
    )
    assert [r["id"] for r in front_records(view)] == ["b", "a"]
    assert hypervolume_trace(view).hypervolume[-1] > 0


def test_final_measurements_are_kept_apart(small_run):
    view = small_run([record("a", 0.5, 8192), record("a", None, 8192, fidelity=FINAL)])
    assert (len(view.records), len(view.finals)) == (1, 1)


def test_hypervolume_by_cost_equals_a_hand_computation(small_run):
    """Error 0.45 of 0.9 is half an axis; 2**17 bytes is half of 2**12 to 2**22."""
    view = small_run(
        [
            record("a", 0.45, 2**17),
            record("infeasible", None, None, status="infeasible"),
            record("worse", 0.5, 2**18, generation=1),
            record("b", 0.225, 2**19 + 2**18, status="diverged", generation=1),
            record("c", 0.225, 2**19, generation=1),
        ]
    )
    trace = hypervolume_trace(view)
    np.testing.assert_allclose(trace.cost, [2000, 2000, 4000, 6000, 8000])
    # c adds the box between its own error and a's: 0.25 high, 0.3 wide.
    np.testing.assert_allclose(trace.hypervolume, [0.25, 0.25, 0.25, 0.25, 0.325])
    assert trace.generation.tolist() == [0, 0, 1, 1, 1]
    by_time = hypervolume_trace(view, by="seconds")
    np.testing.assert_allclose(by_time.cost, [3.5, 7.0, 10.5, 14.0, 17.5])


def test_hypervolume_of_nothing_is_empty(small_run):
    assert hypervolume_trace(small_run([])).hypervolume.shape == (0,)


def test_values_off_the_axis_are_not_measured(small_run):
    view = small_run([record("a", "0.5", 0), record("b", True, -1), record("c", 0.0, 1)])
    expected = [[np.nan, np.nan], [np.nan, np.nan], [0.0, 1.0]]
    np.testing.assert_array_equal(fitness(view.objectives, view.records), expected)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ({"device": "cpu", "threads": 1}, ("core-hours", 1 / 3600)),
        ({"device": "cpu", "threads": 4}, ("core-hours", 4 / 3600)),
        ({"device": "cpu", "threads": None}, ("core-hours", 1 / 3600)),
        ({"device": "gpu", "threads": 4}, ("device-hours", 1 / 3600)),
    ],
)
def test_time_is_counted_in_what_was_busy(small_run, program, expected):
    assert paid_unit(small_run([], program=program)) == expected


def test_a_torn_last_line_is_left_out(make_run):
    run = make_run(5, finished=False)
    with open(run / "ledger.jsonl", "ab") as file:
        file.write(b'{"id": "torn')
    assert len(read_run(run).records) == 5


def test_front_json_counts_until_a_resumed_run_measures_more(tmp_path):
    """A finished run that is given more generations has an old front.json for a while."""
    config = make_config([ERROR, FLASH], generations=1)
    front = {"members": [{"id": "a", "arch": {}}]}
    run = write_run(tmp_path, config=config, records=[record("a", 0.5, 8192)], front=front)
    assert read_run(run).front == front
    (run / "config.json").write_text(json.dumps(make_config([ERROR, FLASH], generations=2)))
    assert read_run(run).front == front
    ledger = Ledger(run / "ledger.jsonl")
    ledger.append(record("b", 0.4, 8192, generation=1))
    ledger.close()
    view = read_run(run)
    assert view.front is None
    assert [r["id"] for r in front_records(view)] == ["b"]


def test_front_json_stays_when_more_generations_left_its_members_in_place(tmp_path):
    config = make_config([ERROR, FLASH], generations=2)
    front = {"members": [{"id": "a", "arch": {}}]}
    run = write_run(tmp_path, config=config, records=[record("a", 0.5, 8192)], front=front)
    ledger = Ledger(run / "ledger.jsonl")
    ledger.append(record("b", 0.6, 8192, generation=1))
    ledger.close()
    assert read_run(run).front == front


def test_no_run_folder_is_one_clear_line(tmp_path):
    with pytest.raises(
        InputError, match=r"config\.json is missing: restore it, or name a run folder"
    ) as error:
        read_run(tmp_path / "nowhere")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", "[]", "does not hold a JSON object"),
        ("config.json", "{}", "must list 2 to 16 objectives"),
        ("config.json", json.dumps({"objectives": [ERROR]}), "must list 2 to 16 objectives"),
        (
            "config.json",
            json.dumps({"objectives": [ERROR, FLASH | {"ideal": 0}]}),
            "objective 'flash_bytes' needs",
        ),
        (
            "config.json",
            json.dumps({"objectives": [ERROR | {"reference": None}, FLASH]}),
            "objective 'error' needs",
        ),
        ("front.json", "[]", "does not hold a JSON object"),
        ("front.json", '{"members": [1]}', "has no list of members"),
        ("ledger.jsonl", "{}\n", "line 1 is not a measurement"),
    ],
)
def test_damage_is_one_clear_line(make_run, name, content, message):
    run = make_run(5)
    (run / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_run(run)
    assert "\n" not in str(error.value)
