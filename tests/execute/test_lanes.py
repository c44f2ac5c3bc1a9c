"""Units side by side: which lanes, which program, and what becomes of those that fail."""

import dataclasses
import threading
import time

import jax
import pytest

from deepmaker_jax.errors import StorageError
from deepmaker_jax.events import ProgramChanged
from deepmaker_jax.execute import Unit, lanes
from deepmaker_jax.execute.lanes import Lanes
from deepmaker_jax.lanes.wiring import choose
from deepmaker_jax.train.population import Population
from tests.examples import SMALL
from tests.execute.doing import LARGER, OWN, do, outcomes, side_by_side, units


def test_lanes_agree_with_programs_of_their_own(references):
    found = [outcomes(references[name][1]) for name in ("inline", "lanes2")]
    for id, plain in found[0].items():
        lane = found[1][id]
        assert lane.measured["train_loss"] == pytest.approx(plain.measured["train_loss"], rel=0.02)
        assert abs(lane.measured["val_accuracy"] - plain.measured["val_accuracy"]) < 0.02


def test_what_fits_no_class_or_is_of_another_stage_trains_by_itself(task, tmp_path, references):
    """An activation that size classes lack, and the final training."""
    (first,) = units(tmp_path, 1)
    odd = dataclasses.replace(SMALL, activation="tanh")
    work = [first._replace(id="odd", arch=odd), first._replace(id="final", stage="final"), first]
    found = outcomes(do("lanes2", task, tmp_path, work))
    assert {outcome.status for outcome in found.values()} == {"ok"}
    assert "val_accuracy" not in found["final"].measured
    assert found["unit0"].measured == outcomes(references["lanes2"][1])["unit0"].measured


@pytest.mark.parametrize("room", [2, 0])
def test_out_of_memory_halves_the_lanes_and_says_so(task, tmp_path, references, monkeypatch, room):
    """With room for none, candidates get programs of their own."""
    tried = []

    def scarce(*args, num_lanes, **rest):
        tried.append(num_lanes)
        if num_lanes > room:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return Population(*args, num_lanes=num_lanes, **rest)

    monkeypatch.setattr(lanes, "Population", scarce)
    results = do("lanes8", task, tmp_path, units(tmp_path))
    changes = [r.text for r in results if isinstance(r, ProgramChanged)]
    how = ["4 lanes", "2 lanes", "1 lanes", OWN][: 2 if room else 4]
    assert changes == [
        f"size class small-3x3 wants more memory than there is with {before} lanes: search goes on "
        f"with {after}"
        for before, after in zip((8, 4, 2, 1), how, strict=False)
    ]
    other = "lanes2" if room else "inline"
    assert tried == ([8, 4, 2] if room else [8, 4, 2, 1])
    found, wanted = outcomes(results), outcomes(references[other][1])
    assert {i: o.measured for i, o in found.items()} == {i: o.measured for i, o in wanted.items()}


def test_each_device_has_half_as_many_lanes_and_no_size_class_less_than_one(
    task, tmp_path, references, monkeypatch
):
    """The larger class's candidates wait already when the smaller one is given up."""
    tried = []

    def none(*args, num_lanes, **rest):
        time.sleep(0.05)  # all units are there
        tried.append((args[0].name, num_lanes))
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr(lanes, "Population", none)
    monkeypatch.setattr(jax, "local_devices", lambda: ["one", "two", "three"])
    (tmp_path / "more").mkdir()
    (larger,) = units(tmp_path / "more", 1)
    larger = larger._replace(id="larger", arch=LARGER, num_epochs=1)
    assert choose(LARGER, side_by_side(task, 9).size_classes).name == "medium-3x3"
    results = do("lanes9", task, tmp_path, [*units(tmp_path), larger])
    assert tried == [("small-3x3", 9), ("small-3x3", 3)]
    changes = [r.text for r in results if isinstance(r, ProgramChanged)]
    assert [text.partition("goes on with ")[2] for text in changes] == ["3 lanes", OWN]
    found, wanted = outcomes(results), outcomes(references["inline"][1])
    assert found.pop("larger").status == "ok"
    assert {i: o.measured for i, o in found.items()} == {i: o.measured for i, o in wanted.items()}


def test_of_what_waits_the_longest_trains_first(task, monkeypatch):
    """Lanes side by side wait for the longest among them, so they should be alike."""
    submitted, order = threading.Event(), []

    class Recorder:
        def __init__(self, *args, **rest):
            pass

        def train(self, next_job, on_call):
            assert submitted.wait(600)
            while (job := next_job()) is not None:
                order.append(job.key.id)
                yield job, ValueError("not trained here")

    monkeypatch.setattr(lanes, "Population", Recorder)
    runner = Lanes(side_by_side(task, 2))
    for depth in (2, 1, 4, 3, 1):
        stage = dataclasses.replace(SMALL.stages[0], num_layers=depth)
        arch = dataclasses.replace(SMALL, stages=(stage,))
        runner.submit(Unit(f"{depth}, {runner._results.num_open}", arch, "search", 1))
    submitted.set()
    assert len(outcomes(runner.results())) == 5
    runner.close()
    assert order == ["4, 2", "3, 3", "2, 0", "1, 1", "1, 4"]


@pytest.mark.parametrize("name", ["inline", "lanes2"])
def test_what_stands_in_a_checkpoints_place_is_no_candidates_fault(task, tmp_path, name):
    (tmp_path / "file").touch()
    work = units(tmp_path)
    work[0] = work[0]._replace(checkpoint=tmp_path / "file" / "state.msgpack")
    with pytest.raises(StorageError, match="file is a file: move it away"):
        do(name, task, tmp_path, work)


def test_memory_that_ends_while_lanes_train_costs_no_candidate(task, tmp_path, monkeypatch):
    calls, whole = [], Population._go_on

    def scarce(self):
        calls.append(self.num_lanes)
        if len(calls) == 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        whole(self)

    monkeypatch.setattr(Population, "_go_on", scarce)
    found = outcomes(do("lanes4", task, tmp_path, units(tmp_path)))
    assert calls[2] == 4
    assert set(calls[3:]) == {2}
    assert {outcome.status for outcome in found.values()} == {"ok"}


def test_a_program_that_fails_fails_its_units_alone(task, tmp_path, monkeypatch):
    def broken(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: no luck")

    monkeypatch.setattr(Population, "_go_on", broken)
    (first,) = units(tmp_path, 1)
    odd = first._replace(id="odd", arch=dataclasses.replace(SMALL, activation="tanh"))
    found = outcomes(do("lanes2", task, tmp_path, [*units(tmp_path), odd]))
    assert found["odd"].status == "ok"
    for i in range(3):
        assert found[f"unit{i}"].status == "failed"
        assert found[f"unit{i}"].reason.startswith("JaxRuntimeError: INTERNAL: no luck")


def test_closing_lanes_leaves_a_training_in_its_middle(task, tmp_path):
    runner = Lanes(side_by_side(task, 2))
    runner.submit(units(tmp_path, 1)[0]._replace(num_epochs=100_000))
    first = next(runner.results())
    runner.close()
    assert first.num_done == 1
    assert not runner._thread.is_alive()
