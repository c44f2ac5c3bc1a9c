"""Measured latency: what the clocks say, and candidates that have none."""

import itertools
import pathlib
from concurrent.futures.process import BrokenProcessPool

import pytest

from deepmaker_jax import latency
from deepmaker_jax.latency import Latency
from deepmaker_jax.ledger import WORKER_DIED
from tests.examples import ARCH


def test_the_median_call_and_how_long_the_thread_waited(monkeypatch):
    class Interpreter:
        invoke = staticmethod(lambda: None)

    monkeypatch.setattr(latency, "open_tflite", lambda model: Interpreter)
    clock, cpu_clock = itertools.count(0, 0.002), itertools.count(0, 0.3)
    found = latency.time_file(
        pathlib.Path("x"), clock=lambda: next(clock), cpu_clock=lambda: next(cpu_clock)
    )
    assert found.latency_ms == pytest.approx(2)
    assert found.latency_p95_ms == pytest.approx(2)
    # Two readings a call and two around them all: 0.402 s passed, 0.3 s were computed.
    assert found.waiting_share == pytest.approx(1 - 0.3 / (0.002 * (2 * latency.NUM_CALLS + 1)))


def test_files_are_made_side_by_side_and_timed_one_at_a_time(monkeypatch, tmp_path):
    """Whatever goes wrong with one candidate is its outcome."""
    asked = []
    made = [("slow", None), ("broken", RuntimeError("odd\nshape")), ("dead", BrokenProcessPool())]
    made += [("fast", None), ("killed", None)]
    timed = {
        "fast": Latency(1.0, 2.0, 0.5),
        "killed": BrokenProcessPool(),
        "slow": Latency(9, 9, 0),
    }

    def pooled(function, jobs, *, num_workers, **environment):
        asked.append((list(jobs), num_workers))
        yield from made if len(asked) == 1 else [(name, timed[name]) for name in jobs]

    monkeypatch.setattr(latency, "pooled", pooled)
    archs = dict.fromkeys(["fast", "broken", "dead", "killed", "slow"], ARCH)
    folder = tmp_path / "files"
    outcomes = {o.id: o for o in latency.measure(archs, folder=folder, num_workers=3)}
    assert asked == [(list(archs), 3), (["fast", "killed", "slow"], 1)]
    assert not folder.exists()
    assert {o.stage for o in outcomes.values()} == {"latency"}
    assert outcomes["fast"].measured == {
        "latency_ms": 1.0, "latency_p95_ms": 2.0, "waiting_share": 0.5,
    }  # fmt: skip
    assert outcomes["slow"].status == "ok"
    assert (outcomes["broken"].status, outcomes["broken"].reason) == (
        "failed", "no latency: RuntimeError: odd shape",
    )  # fmt: skip
    for id in ("dead", "killed"):
        assert outcomes[id].status == "failed"
        assert outcomes[id].reason.startswith(WORKER_DIED)
