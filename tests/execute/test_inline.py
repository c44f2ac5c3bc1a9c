"""Units in a thread of this process, which closing leaves."""

import dataclasses
import threading
import time

import jax
import pytest

from deepmaker_jax.execute import Inline, inline
from deepmaker_jax.train import runner
from deepmaker_jax.train.runner import Plain
from tests.execute.doing import executor, units


def test_closing_inline_leaves_an_epoch_in_its_middle(task, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "CALL_SECONDS", 0.0)  # a step a call
    monkeypatch.setattr(runner, "FIRST_STEPS", 1)
    began, calls, whole = threading.Event(), [], Plain.run

    def run(self, *steps):
        calls.append(steps)
        began.set()
        whole(self, *steps)
        time.sleep(0.01)

    monkeypatch.setattr(Plain, "run", run)
    settings = dataclasses.replace(task.settings, batch_size=2)
    num_steps = len(task.search_rows) // 2
    assert num_steps > 500
    trainer = Inline(task._replace(settings=settings))
    trainer.submit(units(tmp_path, 1)[0])
    assert began.wait(600)
    trainer.close()
    assert len(calls) < num_steps / 2


@pytest.mark.parametrize("name", ["inline", "lanes2"])
def test_closing_does_not_wait_for_a_compile_and_nothing_comes_of_it(
    task, tmp_path, monkeypatch, name
):
    began, goes_on, whole = threading.Event(), threading.Event(), jax.stages.Lowered.compile

    def compile(self, *args, **rest):
        began.set()
        assert goes_on.wait(600)
        return whole(self, *args, **rest)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile)
    monkeypatch.setattr(runner, "_own", {})  # what this process has compiled
    monkeypatch.setattr(runner, "_programs", {})
    monkeypatch.setattr(inline, "CLOSE_SECONDS", 0.1)
    trainer, (unit,) = executor(name, task, tmp_path), units(tmp_path, 1)
    trainer.submit(unit)
    assert began.wait(600)
    trainer.close()
    assert trainer._thread.is_alive()
    goes_on.set()
    trainer._thread.join()
    assert not unit.weights.exists()
    assert trainer._results.num_open == 1
