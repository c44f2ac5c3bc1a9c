"""Candidates that share a program: each as if alone, whenever it came and whichever its slot."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from deepmaker_jax.config import TrainConfig
from deepmaker_jax.data import load
from deepmaker_jax.errors import InputError, StorageError
from deepmaker_jax.lanes.size_class import table
from deepmaker_jax.lanes.wiring import choose
from deepmaker_jax.train import Split, lane, runner, train
from deepmaker_jax.train.course import Job
from deepmaker_jax.train.init import init
from deepmaker_jax.train.population import Population
from tests.examples import SMALL

SETTINGS = TrainConfig(batch_size=64, crop=1, flip=False)
SCALE = np.array([1 / 96], np.float32)
CLASS = choose(SMALL, table((8, 8, 1), 10, activations=("relu",), optimizers=("sgd",)))
ROWS, HELD_OUT = np.arange(0, 1200), np.arange(1200, 1437)
WIDER = dataclasses.replace(SMALL, stem_width=16, learning_rate_log2=-1)
DEEPER = dataclasses.replace(
    SMALL, stages=(dataclasses.replace(SMALL.stages[0], num_layers=4, connectivity="window"),)
)
NARROW = dataclasses.replace(SMALL, stages=(dataclasses.replace(SMALL.stages[0], bottleneck=2),))
LOST = dataclasses.replace(SMALL, learning_rate_log2=100)


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    return Split(data.train_images, data.train_labels)


def job(arch, num_epochs=3, **rest):
    return Job(arch, num_epochs, ROWS, HELD_OUT, **rest)


def make(data, num_lanes=2):
    rest = {"settings": SETTINGS, "seed": 0, "input_scale": SCALE, "num_lanes": num_lanes}
    return Population(CLASS, data, **rest)


def do(data, jobs, **rest):
    """Returns what became of jobs, in their order, and the order in which they ended."""
    waiting = [one._replace(key=i) for i, one in enumerate(jobs)]
    found = list(make(data).train(lambda: waiting.pop(0) if waiting else None, **rest))
    ended = [one.key for one, _ in found]
    return [found[ended.index(i)][1] for i in range(len(jobs))], ended


@pytest.fixture(scope="module")
def whole(digits):
    """More candidates than lanes, of different lengths; one of them gets lost."""
    told = []
    jobs = [
        job(SMALL, on_epoch=lambda epoch, loss: told.append((epoch, loss))),
        job(LOST),
        job(WIDER, 2),
        job(DEEPER, 1),
    ]
    return (*do(digits, jobs), told)


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)
    assert a.score == b.score
    assert a.train_loss == b.train_loss


def test_a_lane_ends_where_the_candidate_alone_does(whole, digits):
    found, _, told = whole
    for trained, (arch, num_epochs) in zip(
        [found[0], found[2], found[3]], [(SMALL, 3), (WIDER, 2), (DEEPER, 1)], strict=True
    ):
        alone = train(
            arch, digits, settings=SETTINGS, num_epochs=num_epochs, seed=0, input_scale=SCALE,
            rows=ROWS, held_out=HELD_OUT, size_class=CLASS,
        )  # fmt: skip
        assert trained.train_loss == pytest.approx(alone.train_loss, rel=1e-2)
        assert abs(trained.score.accuracy - alone.score.accuracy) <= 1.5 / len(HELD_OUT)
        assert trained.score.loss == pytest.approx(alone.score.loss, rel=5e-2)
        one_epoch = trained if num_epochs == 1 else None
        if one_epoch:  # before rounding has grown
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3),
                one_epoch.variables, alone.variables,
            )  # fmt: skip
    assert [epoch for epoch, _ in told] == [1, 2, 3]
    assert told[-1][1] == found[0].train_loss < told[0][1]


def test_a_candidate_that_gets_lost_gives_its_slot_to_the_next(whole):
    found, ended, _ = whole
    assert found[1].diverged
    assert found[1].score is None
    assert ended[0] == 1
    assert not any(found[i].diverged for i in (0, 2, 3))


def test_bits_depend_neither_on_the_slot_nor_on_the_neighbours_nor_on_the_pace(
    whole, digits, monkeypatch
):
    found, _, _ = whole
    monkeypatch.setattr(runner, "FIRST_STEPS", 7)
    (other,), _ = do(digits, [job(DEEPER, 1)])
    same_bits(other, found[3])
    monkeypatch.setattr(runner, "CALL_SECONDS", 0.0)  # a step, or a batch to measure on, a call
    (_, other), _ = do(digits, [job(LOST), job(SMALL)])
    same_bits(other, found[0])


def test_a_candidate_goes_on_from_its_checkpoint_to_the_same_bits(whole, digits, tmp_path):
    class StopError(Exception):
        pass

    def leave(epoch, loss):
        if epoch == 2:
            raise StopError

    path = tmp_path / "state.msgpack"
    with pytest.raises(StopError):
        do(digits, [job(WIDER), job(SMALL, checkpoint=path, on_epoch=leave)])
    epochs = []
    again = job(SMALL, checkpoint=path, on_epoch=lambda epoch, loss: epochs.append(epoch))
    for _ in range(2):  # the second time nothing is left to train
        (trained,), _ = do(digits, [again])
        assert epochs == [3]
        same_bits(trained, whole[0][0])


def test_lanes_of_different_rungs_train_side_by_side(digits, tmp_path):
    """A candidate that goes on beside a new one: each with its own cycle of the learning rate."""
    path, rungs = tmp_path / "state.msgpack", (1, 3)
    do(digits, [job(SMALL, 1, checkpoint=path, rungs=rungs), job(WIDER, 1)])
    (further, _), _ = do(digits, [job(SMALL, checkpoint=path, rungs=rungs), job(DEEPER, 1)])
    (whole,), _ = do(digits, [job(SMALL, rungs=rungs)])
    same_bits(further, whole)


def test_what_overflows_while_it_is_measured_spoils_nobody(whole, digits):
    """Finite weights and a finite training loss, but running statistics that nothing can bear.

    The 1x1 convolutions of the next one read blocks of groups, not all of them its own.
    """
    overflowing = init(WIDER, seed=0, input_scale=SCALE)
    for norm in overflowing["batch_stats"].values():
        norm["mean"] = np.full_like(norm["mean"], -3e38)
    one_step = job(WIDER, 1, start=overflowing)._replace(rows=ROWS[:64])
    (lost, _, found), ended = do(digits, [one_step, job(WIDER, 2), job(NARROW, 1)])
    assert not lost.diverged
    assert not np.isfinite(lost.score.loss)
    assert ended[0] == 0  # so that its slot is the third one's
    (alone,), _ = do(digits, [job(NARROW, 1)])
    same_bits(found, alone)


def test_a_checkpoint_that_cannot_be_written_fails_its_job_alone(whole, digits, tmp_path):
    (tmp_path / "file").touch()
    blocked = job(SMALL, checkpoint=tmp_path / "file" / "state.msgpack")
    (first, second, third), ended = do(digits, [blocked, job(WIDER, 2), job(DEEPER, 1)])
    assert isinstance(first, StorageError)
    assert ended[0] == 0  # after its first epoch
    same_bits(second, whole[0][2])
    same_bits(third, whole[0][3])


def test_a_job_that_cannot_begin_is_answered_and_the_others_go_on(whole, digits):
    few = job(SMALL)._replace(rows=ROWS[:63])
    elsewhere = job(SMALL, start={"constants": {"input_scale": SCALE * 2}})
    (first, second, third), _ = do(digits, [few, elsewhere, job(DEEPER, 1)])
    assert isinstance(first, InputError)
    assert isinstance(second, InputError)
    assert "must have this run's scale" in str(second)
    same_bits(third, whole[0][3])


def test_all_of_them_take_one_program(digits, monkeypatch):
    monkeypatch.setattr(runner, "_programs", {})
    whole = lane.run_side_by_side

    def counted(*args):
        return chex.assert_max_traces(whole(*args), n=1)

    monkeypatch.setattr(lane, "run_side_by_side", counted)
    found, _ = do(digits, [job(arch, 1) for arch in (SMALL, WIDER, DEEPER)])
    assert not any(trained.diverged for trained in found)
    do(digits, [job(WIDER, 2)])
    assert len(runner._programs) == 1


@pytest.fixture
def compilations():
    """A list that grows with everything that JAX compiles."""
    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.jit(lambda x: x + 1)(0)
    assert len(seen) == 1
    seen.clear()
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_another_population_compiles_nothing(whole, digits, compilations):
    """Neither its program nor what clears, fills and empties its slots."""
    do(digits, [job(WIDER, 1), job(LOST), job(DEEPER, 1)])
    assert compilations == []


def test_in_turn_the_first_candidate_compiles_for_all(digits, compilations):
    rest = {"settings": SETTINGS, "num_epochs": 1, "seed": 0, "input_scale": SCALE,
        "rows": ROWS, "held_out": HELD_OUT, "size_class": CLASS}  # fmt: skip
    train(SMALL, digits, **rest)
    compilations.clear()
    for arch in (WIDER, DEEPER, LOST):
        train(arch, digits, **rest)
    assert compilations == []


def test_a_network_of_its_own_compiles_its_training_and_its_prediction_alone(
    digits, compilations, monkeypatch
):
    """No program for each of its shapes, to copy it or to start its optimizer."""
    monkeypatch.setattr(runner, "_own", {})
    monkeypatch.setattr(runner, "_dropped", [])  # so that JAX is not told to forget in between
    rest = {"settings": SETTINGS, "num_epochs": 1, "seed": 0, "input_scale": SCALE,
        "rows": ROWS, "held_out": HELD_OUT}  # fmt: skip
    train(SMALL, digits, **rest)
    compilations.clear()
    train(WIDER, digits, **rest)
    assert len(compilations) == 2


def test_leaving_is_prompt(digits):
    class StopError(Exception):
        pass

    calls = []

    def leave():
        calls.append(0)
        raise StopError

    with pytest.raises(StopError):
        do(digits, [job(SMALL, 100)], on_call=leave)
    assert len(calls) == 1
