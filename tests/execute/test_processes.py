"""Worker processes: how they start, hang, die and end."""

import multiprocessing
import os
import pickle
import signal
import types

import jax
import numpy as np
import pytest

from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Note
from deepmaker_jax.execute import Processes, processes, work
from deepmaker_jax.execute import unit as unit_module
from deepmaker_jax.execute.unit import arrays
from tests.execute.doing import Deadly, do, outcomes, units


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 9 bytes")],
)
def test_out_of_memory_is_told_apart_and_tried_again_alone(task, tmp_path, monkeypatch, error):
    """XLA's own message counts as Python's exception does."""

    def greedy(*args, **rest):
        raise error

    monkeypatch.setattr(work, "train_alone", greedy)
    unit, other = units(tmp_path, 2)
    (lost,) = outcomes(do("inline", task, tmp_path, [unit])).values()
    assert lost.status == "failed"
    assert lost.reason.startswith(f"out of memory: {type(error).__name__}")
    runner = Processes(task, num_workers=2, folder=tmp_path / "shared")
    worker = processes._Worker("process", None)
    runner._doing[worker] = unit
    assert isinstance(runner._finish(worker, lost), Note)
    assert runner._line.take([other]) is None  # it waits until nobody trains
    assert runner._line.take([]) == unit
    runner._doing[worker] = unit
    assert runner._finish(worker, lost) == lost  # it has no more tries


def test_a_worker_that_trains_gives_signs_of_life(task, tmp_path, monkeypatch):
    monkeypatch.setattr(unit_module, "ALIVE_SECONDS", 0.0)
    monkeypatch.setattr(processes.runtime, "belong_to_parent", lambda: None)
    asked, said = units(tmp_path, 1), []

    def next_unit():
        if not asked:
            raise EOFError
        return pickle.dumps(asked.pop())

    for name, value in arrays(task).items():
        np.save(tmp_path / f"{name}.npy", value)
    connection = types.SimpleNamespace(recv_bytes=next_unit, send=said.append)
    processes._work(connection, task._replace(**dict.fromkeys(arrays(task))), tmp_path)
    assert said[:2] == [processes.READY, processes.BEGUN]
    assert said.count("alive") >= 2
    assert said[-1].status == "ok"


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


def test_nothing_starts_before_the_first_unit(task, tmp_path):
    runner = Processes(task, num_workers=2, folder=tmp_path / "shared")
    assert list(runner.results()) == []
    assert multiprocessing.active_children() == []
    runner.close()


def test_a_worker_that_dies_while_it_is_idle_costs_its_next_unit_no_try(task, tmp_path):
    """The unit is on its way already: nobody knows in time."""
    runner = Processes(task, num_workers=1, folder=tmp_path / "shared", retries=0)
    (unit,) = units(tmp_path, 1)
    try:
        runner.submit(unit)
        assert outcomes(runner.results())[unit.id].status == "ok"
        (worker,) = runner._doing
        os.kill(worker.process.pid, signal.SIGSTOP)  # it takes nothing in any more
        runner.submit(unit)
        assert runner._doing[worker] == unit
        worker.process.kill()
        assert outcomes(runner.results())[unit.id].status == "ok"
    finally:
        runner.close()
