"""One suite over the executors: same bits, failures that stay outcomes, nothing left behind."""

import dataclasses
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from deepmaker_jax.config import TrainConfig
from deepmaker_jax.data import load, stratified
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Epoch
from deepmaker_jax.execute import Inline, Outcome, Processes, Task, Unit
from deepmaker_jax.export.weights import load_weights
from deepmaker_jax.train import candidate
from deepmaker_jax.train.runner import Plain
from tests.examples import SMALL


@pytest.fixture(scope="module")
def task():
    data = load("digits")
    rest, validation = stratified(data.train_labels, share=0.2, seed=0)
    return Task(
        images=data.train_images,
        labels=data.train_labels,
        search_rows=rest,
        validation_rows=validation,
        input_scale=np.array([1 / 96], np.float32),
        settings=TrainConfig(batch_size=64, crop=1, flip=False),
        seed=0,
    )


def units(folder, num=3):
    """The same network with different learning rates: one program serves them all."""
    return [
        Unit(
            f"unit{i}",
            dataclasses.replace(SMALL, learning_rate_log2=-i),
            "search",
            2,
            weights=folder / f"unit{i}.safetensors",
        )
        for i in range(num)
    ]


def executor(name, task, folder):
    if name == "inline":
        return Inline(task)
    return Processes(task, num_workers=int(name[-1]), folder=folder / "shared")


def do(name, task, folder, work):
    runner = executor(name, task, folder)
    try:
        for unit in work:
            runner.submit(unit)
        return list(runner.results())
    finally:
        runner.close()


def outcomes(results):
    return {result.id: result for result in results if isinstance(result, Outcome)}


@pytest.fixture(scope="module")
def reference(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inline")
    return folder, do("inline", task, folder, units(folder))


@pytest.mark.parametrize("name", ["processes1", "processes2"])
def test_processes_give_inlines_bits_whatever_their_number(task, reference, tmp_path, name):
    results = do(name, task, tmp_path, units(tmp_path))
    folder, expected = reference
    found, wanted = outcomes(results), outcomes(expected)
    assert {i: o.measured for i, o in found.items()} == {i: o.measured for i, o in wanted.items()}
    for unit in units(tmp_path):
        assert unit.weights.read_bytes() == (folder / unit.weights.name).read_bytes()


def test_every_epoch_is_told_and_every_unit_answered_once(reference):
    _, results = reference
    told = [(r.id, r.num_done) for r in results if isinstance(r, Epoch)]
    assert told == [(f"unit{i}", epoch) for i in range(3) for epoch in (1, 2)]
    answered = [r.id for r in results if isinstance(r, Outcome)]
    assert answered == ["unit0", "unit1", "unit2"]


def test_an_outcome_has_its_measurements_and_seconds(reference):
    for outcome in outcomes(reference[1]).values():
        assert outcome.status == "ok"
        assert 0.1 <= outcome.measured["val_accuracy"] <= 1
        assert set(outcome.seconds) == {"compile", "train", "eval"}


def test_the_weights_file_rebuilds_the_network(reference):
    folder, _ = reference
    arch, variables = load_weights(folder / "unit1.safetensors")
    assert arch == dataclasses.replace(SMALL, learning_rate_log2=-1)
    assert variables["params"]["stem"]["kernel"].shape == (3, 3, 1, 8)


@pytest.mark.parametrize("name", ["inline", "processes1"])
def test_a_unit_that_raises_or_diverges_is_an_outcome_and_the_next_goes_on(task, tmp_path, name):
    task = task._replace(settings=dataclasses.replace(task.settings, sgd_learning_rate=1e30))
    bad = units(tmp_path, 1)[0]._replace(id="bad", start=tmp_path / "missing.safetensors")
    found = outcomes(do(name, task, tmp_path, [bad, *units(tmp_path, 1)]))
    assert found["bad"].status == "failed"
    assert found["bad"].reason.startswith("InputError: PATH cannot be read")
    assert "\n" not in found["bad"].reason
    assert str(tmp_path) not in found["bad"].reason
    assert found["unit0"].status == "diverged"
    assert "not finite" in found["unit0"].reason
    assert not (tmp_path / "unit0.safetensors").exists()


@pytest.mark.parametrize(("deaths", "status"), [(1, "ok"), (2, "failed")])
def test_the_unit_of_a_worker_that_dies_is_tried_once_more(task, tmp_path, deaths, status):
    runner = Processes(task, num_workers=1, folder=tmp_path / "shared")
    try:
        for unit in units(tmp_path, 2):
            runner.submit(unit)
        results = []
        for result in runner.results():
            results.append(result)
            if isinstance(result, Epoch) and len(results) <= deaths:
                (worker,) = multiprocessing.active_children()
                os.kill(worker.pid, signal.SIGKILL)
        found = outcomes(results)
    finally:
        runner.close()
    assert found["unit0"].status == status
    if status == "failed":
        assert found["unit0"].reason == "its worker died (signal 9)"
    assert found["unit1"].status == "ok"


class Deadly:
    """Kills the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (7,)


def test_units_that_kill_their_workers_at_once_never_end_the_run(task, tmp_path):
    (good,) = units(tmp_path, 1)
    bad = [good._replace(id=f"bad{i}", arch=Deadly()) for i in range(3)]
    found = outcomes(do("processes1", task, tmp_path, [*bad, good]))
    assert found["unit0"].status == "ok"
    reasons = {(found[unit.id].status, found[unit.id].reason) for unit in bad}
    assert reasons == {("failed", "its worker died (exit code 7)")}


def test_workers_that_never_get_ready_end_the_run_with_one_line(task, tmp_path, monkeypatch):
    monkeypatch.setattr("deepmaker_jax.execute.processes._work", Deadly())
    with pytest.raises(InputError, match="worker processes cannot start"):
        do("processes2", task, tmp_path, units(tmp_path, 1))


def test_closing_ends_the_workers_and_removes_the_shared_data(task, tmp_path):
    runner = Processes(task, num_workers=2, folder=tmp_path / "shared")
    for unit in units(tmp_path):
        runner.submit(unit)
    assert len(multiprocessing.active_children()) == 2
    assert (tmp_path / "shared" / "images.npy").exists()
    runner.close()
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "shared").exists()


def test_closing_inline_leaves_an_epoch_in_its_middle(task, tmp_path, monkeypatch):
    monkeypatch.setattr(candidate, "STEPS_A_CALL", 1)
    began, calls, whole = threading.Event(), [], Plain.run

    def run(self, rows):
        calls.append(rows)
        began.set()
        whole(self, rows)
        time.sleep(0.01)

    monkeypatch.setattr(Plain, "run", run)
    settings = dataclasses.replace(task.settings, batch_size=2)
    num_steps = len(task.search_rows) // 2
    assert num_steps > 500
    runner = Inline(task._replace(settings=settings))
    runner.submit(units(tmp_path, 1)[0])
    assert began.wait(60)
    runner.close()
    assert len(calls) < num_steps / 2


def test_nothing_starts_before_the_first_unit(task, tmp_path):
    runner = Processes(task, num_workers=2, folder=tmp_path / "shared")
    assert list(runner.results()) == []
    assert multiprocessing.active_children() == []
    runner.close()
