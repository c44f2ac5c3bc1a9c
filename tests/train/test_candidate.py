"""Training one network: what it sees, that it learns, and that it can stop and go on."""

import dataclasses

import jax
import numpy as np
import pytest

from deepmaker_jax.arch import layers
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.data import load
from deepmaker_jax.errors import InputError, TimeLimitError
from deepmaker_jax.lanes.size_class import table
from deepmaker_jax.lanes.wiring import choose
from deepmaker_jax.models import Network
from deepmaker_jax.train import Split, course, evaluate, predict, runner, train
from deepmaker_jax.train.course import Job, epoch_order
from deepmaker_jax.train.init import init
from deepmaker_jax.train.step import score
from tests.examples import SMALL

SETTINGS = TrainConfig(batch_size=64, crop=1, flip=False)
SCALE = np.array([1 / 96], np.float32)


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    return Split(data.train_images, data.train_labels)


@pytest.fixture(scope="module", params=["plain", "map"])
def size_class(request):
    """None for a program of the network's own."""
    return None if request.param == "plain" else choose(SMALL, table((8, 8, 1), 10))


@pytest.fixture(scope="module")
def run(digits, size_class):
    """Trains the small network; returns (result, [(epoch, loss)])."""

    def go(num_epochs=6, data=digits, **rest):
        losses = []
        settings = rest.pop("settings", SETTINGS)
        trained = train(
            SMALL,
            data,
            settings=settings,
            num_epochs=num_epochs,
            seed=0,
            input_scale=SCALE,
            size_class=size_class,
            on_epoch=lambda epoch, loss: losses.append((epoch, loss)),
            **rest,
        )
        return trained, losses

    return go


@pytest.fixture(scope="module")
def whole(run):
    return run()


def same_bits(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_training_learns_the_digits(whole, digits):
    trained, losses = whole
    assert [epoch for epoch, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert losses[-1][1] < 0.5 * losses[0][1]
    assert not trained.diverged
    accuracy, loss = evaluate(SMALL, trained.variables, digits)
    assert accuracy > 0.85
    assert 0 < loss < 0.6


def test_training_again_gives_the_same_bits(run, whole):
    assert same_bits(run()[0].variables, whole[0].variables)


def test_a_training_that_stopped_after_any_epoch_goes_on_to_the_same_bits(
    run, whole, size_class, tmp_path
):
    class StopError(Exception):
        pass

    for stop in (1, 4):
        path = tmp_path / f"{stop}.msgpack"

        def leave(epoch, loss, stop=stop):
            if epoch == stop:
                raise StopError

        with pytest.raises(StopError):
            train(
                SMALL, load_digits(), settings=SETTINGS, num_epochs=6, seed=0, input_scale=SCALE,
                size_class=size_class, checkpoint=path, on_epoch=leave,
            )  # fmt: skip
        trained, losses = run(checkpoint=path)
        assert [epoch for epoch, _ in losses] == list(range(stop + 1, 7))
        assert same_bits(trained.variables, whole[0].variables)
        assert trained.train_loss == whole[0].train_loss


def test_a_training_stopped_at_a_rung_and_gone_on_is_the_one_that_never_stopped(run, tmp_path):
    path, rungs = tmp_path / "state.msgpack", (1, 3)
    short, losses = run(num_epochs=1, rungs=rungs, checkpoint=path)
    assert [epoch for epoch, _ in losses] == [1]
    further, losses = run(num_epochs=3, rungs=rungs, checkpoint=path)
    assert [epoch for epoch, _ in losses] == [2, 3]
    assert same_bits(further.variables, run(num_epochs=3, rungs=rungs)[0].variables)
    assert not same_bits(further.variables, run(num_epochs=3)[0].variables)
    assert same_bits(short.variables, run(num_epochs=1)[0].variables)
    # What has trained further than is wanted is another training's.
    assert same_bits(run(num_epochs=1, checkpoint=path)[0].variables, short.variables)


def test_the_learning_rate_begins_anew_at_each_rung():
    job = Job(SMALL, 9, np.arange(64 * 5), rungs=(1, 3, 9))
    steps = course.Course(job, SETTINGS, seed=0)
    seen = []
    while not steps.is_over:
        seen.append(tuple(steps.cycle))
        steps.advance(len(steps.rows(99)), 1.0, dict)
    assert seen == [(0, 5)] + [(5, 10)] * 2 + [(15, 30)] * 6
    assert tuple(steps.cycle) == (15, 30)
    shorter = course.Course(job._replace(num_epochs=3, rungs=(1, 9)), SETTINGS, seed=0)
    shorter.advance(len(shorter.rows(99)), 1.0, dict)
    assert tuple(shorter.cycle) == (5, 10)


def test_a_time_limit_counts_what_was_spent_before_an_interruption(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(course.time, "perf_counter", lambda: now[0])
    path = tmp_path / "state.msgpack"
    job = Job(SMALL, 9, np.arange(64 * 5), checkpoint=path, limit_seconds=10.0)

    def state(step):
        return course.TrainState(*(np.full(2, step) for _ in course.TrainState._fields))

    steps = course.Course(job, SETTINGS, seed=0)
    steps.resume(state(0)._replace(step=np.int32(0)))
    now[0] += 6
    steps.advance(5, 1.0, lambda: state(5)._replace(step=np.int32(5)))
    again = course.Course(job, SETTINGS, seed=0)
    assert again.resume(state(0)._replace(step=np.int32(0))).step == 5
    now[0] += 3
    again.advance(5, 1.0, lambda: state(10)._replace(step=np.int32(10)))
    now[0] += 2
    with pytest.raises(TimeLimitError, match="trained longer than 10 s"):
        again.advance(5, 1.0, lambda: state(15)._replace(step=np.int32(15)))


def load_digits():
    data = load("digits")
    return Split(data.train_images, data.train_labels)


def test_a_training_of_another_length_needs_no_other_program(run):
    run(num_epochs=2)
    before = dict(runner._programs), dict(runner._own)
    run(num_epochs=1)
    assert (runner._programs, runner._own) == before


def test_a_training_that_stopped_within_an_epoch_goes_on_to_the_same_bits(
    run, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(runner, "FIRST_STEPS", 8)  # of 22 an epoch
    monkeypatch.setattr(runner.Pace, "took", lambda *_: None)
    monkeypatch.setattr(course, "CHECKPOINT_SECONDS", 0.0)
    path, saves, save = tmp_path / "state.msgpack", [], course.save

    def stop_at(path, state, *rest):
        save(path, state, *rest)
        saves.append(int(state.step))
        if len(saves) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(course, "save", stop_at)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path)
    assert saves == [8, 16, 22, 30, 38, 44, 52, 60]
    trained, losses = run(checkpoint=path)
    assert [epoch for epoch, _ in losses] == [3, 4, 5, 6]
    assert same_bits(trained.variables, whole[0].variables)
    assert trained.train_loss == whole[0].train_loss


def test_the_score_is_that_of_the_plain_network(run, digits, size_class):
    rows = np.arange(0, 1400, 2)
    trained, _ = run(num_epochs=2, rows=np.arange(1, 1400, 2), held_out=rows)
    some = Split(digits.images[rows], digits.labels[rows])
    plain = evaluate(SMALL, trained.variables, some)
    assert trained.score.accuracy == pytest.approx(plain.accuracy, abs=1e-7)
    assert trained.score.loss == pytest.approx(plain.loss, rel=1e-5)


def test_weights_that_a_training_starts_from_stay_as_they_are(run, whole):
    start, _ = whole
    before = jax.tree.map(np.copy, start.variables)
    further, _ = run(num_epochs=1, start=start.variables)
    assert same_bits(start.variables, before)
    assert not same_bits(further.variables, before)


@pytest.mark.parametrize("row", [[np.inf, 1e4, 0.0], [np.nan, 1e4, 0.0]])
def test_logits_that_are_no_numbers_are_scored_without_a_word(row):
    _, loss = score(np.array([row, [0.0, 1.0, 0.0]], np.float32), np.array([1, 1]))
    assert not np.isfinite(loss)


def test_the_score_does_not_depend_on_the_pace(run, monkeypatch):
    rows, found, calls = np.arange(0, 1400, 2), [], []
    for seconds in (1.0, 0.0):  # 0: a step a call, and as few images as go
        monkeypatch.setattr(runner, "CALL_SECONDS", seconds)
        before = len(calls)
        trained, _ = run(num_epochs=1, held_out=rows, on_steps=lambda: calls.append(True))
        found.append((trained.score, len(calls) - before))
    assert found[0][0] == found[1][0]
    assert found[0][1] < found[1][1]


def test_bfloat16_learns_as_well_with_float32_weights(digits, size_class):
    """Products of rounded operands are other numbers, and lead to about the same accuracy."""
    found = {}
    for compute in ("float32", "bfloat16"):
        found[compute] = train(
            SMALL, digits, settings=dataclasses.replace(SETTINGS, compute=compute), num_epochs=20,
            seed=0, input_scale=SCALE, size_class=size_class, rows=np.arange(1000),
            held_out=np.arange(1000, 1437),
        )  # fmt: skip
    wide, narrow = found["float32"], found["bfloat16"]
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow.variables)} == {np.dtype(np.float32)}
    assert not same_bits(wide.variables, narrow.variables)
    assert wide.score.accuracy > 0.9
    assert abs(wide.score.accuracy - narrow.score.accuracy) < 0.03
    assert narrow.train_loss == pytest.approx(wide.train_loss, rel=0.1)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80"])
def test_a_damaged_checkpoint_means_starting_over_to_the_same_bits(run, whole, tmp_path, content):
    path = tmp_path / "state.msgpack"
    path.write_bytes(content)
    trained, losses = run(checkpoint=path)
    assert [epoch for epoch, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert same_bits(trained.variables, whole[0].variables)


def test_a_network_that_diverges_says_so(run):
    settings = dataclasses.replace(SETTINGS, sgd_learning_rate=1e30)
    trained, losses = run(settings=settings, num_epochs=5)
    assert trained.diverged
    assert len(losses) < 5


def test_data_that_do_not_fill_a_batch_are_refused(run, digits):
    few = Split(digits.images[:63], digits.labels[:63])
    with pytest.raises(InputError, match=r"batch-size \(=64\) must be at most .* \(63\)"):
        run(data=few)


def test_every_epoch_has_each_image_at_most_once_and_another_order():
    first = epoch_order(0, 0, 100, 6, 16)
    second = epoch_order(0, 1, 100, 6, 16)
    assert first.shape == (6, 16)
    assert len(set(first.ravel())) == 96
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, epoch_order(0, 0, 100, 6, 16))


@pytest.mark.parametrize("num", [1, 249, 250, 251])
def test_evaluation_counts_every_image_once(whole, digits, num):
    trained, _ = whole
    some = Split(digits.images[:num], digits.labels[:num])
    logits = predict(Network(layers(SMALL)), trained.variables, some.images)
    assert logits.shape == (num, 10)
    right = logits.argmax(-1) == some.labels
    assert evaluate(SMALL, trained.variables, some)[0] == pytest.approx(right.mean())
    alone = predict(Network(layers(SMALL)), trained.variables, some.images[-1:])
    np.testing.assert_allclose(logits[-1:], alone, atol=1e-5)


def test_initial_weights_depend_on_seed_and_name_alone():
    first = init(SMALL, seed=0, input_scale=SCALE)
    wider = init(dataclasses.replace(SMALL, num_classes=12), seed=0, input_scale=SCALE)
    other = init(SMALL, seed=1, input_scale=SCALE)
    np.testing.assert_array_equal(
        first["params"]["s1l1"]["kernel"], wider["params"]["s1l1"]["kernel"]
    )
    assert not same_bits(first["params"]["s1l1"], other["params"]["s1l1"])
    assert first["params"]["s1l2"]["kernel"].std() == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.1)
    np.testing.assert_array_equal(first["constants"]["input_scale"], SCALE)
