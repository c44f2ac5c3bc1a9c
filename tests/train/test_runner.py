"""What a process keeps of the programs it compiles."""

import pytest

from deepmaker_jax.train import runner


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    """Starts without any program."""
    for name, value in (("_programs", {}), ("_own", {}), ("_dropped", [])):
        monkeypatch.setattr(runner, name, value)


def test_programs_of_one_architecture_make_room_and_are_forgotten(monkeypatch):
    cleared = []
    monkeypatch.setattr(runner.jax, "clear_caches", lambda: cleared.append(True))
    for key in range(runner.MAX_OWN + runner.CLEARED_AFTER - 1):
        assert runner.compiled_once(key, lambda key=key: f"program {key}") == f"program {key}"
        assert len(runner._own) <= runner.MAX_OWN
    assert not cleared
    runner.compiled_once("one more", str)
    assert cleared == [True]


def test_programs_of_size_classes_outlive_them(monkeypatch):
    monkeypatch.setattr(runner.jax, "clear_caches", lambda: None)
    made = []
    runner.compiled("class", lambda: made.append(True))
    for key in range(3 * runner.MAX_KEPT):
        runner.compiled_once(key, str)
    runner.compiled("class", lambda: made.append(True))
    assert made == [True]


def test_a_program_in_use_is_compiled_once():
    made = []
    for _ in range(3):
        runner.compiled_once("one", lambda: made.append(True))
    assert made == [True]
