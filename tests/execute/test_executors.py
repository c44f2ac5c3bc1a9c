"""One suite over the executors: same bits, failures that stay outcomes, nothing left behind."""

import contextlib
import dataclasses
import os
import re
import signal
import time

import jax
import pytest
import ray

from deepmaker_jax import program
from deepmaker_jax.errors import InputError, StorageError
from deepmaker_jax.events import Epoch, Note, ProgramChanged
from deepmaker_jax.execute import Outcome, processes
from deepmaker_jax.execute import ray as ray_executor
from deepmaker_jax.execute.ray import Ray
from deepmaker_jax.export.weights import load_weights
from deepmaker_jax.train import Split, evaluate
from tests.examples import SMALL
from tests.execute.doing import (
    Deadly,
    FailsToCompile,
    Hanging,
    busy,
    do,
    executor,
    fails_to_compile,
    outcomes,
    units,
)
from tests.execute.ray_workers import busy_ray_workers

# Ray forks only to execute another program at once, which JAX's threads do not mind.
pytestmark = pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """The module's one Ray cluster is started by the first test that wants it."""
    yield
    ray.shutdown(wait_for_processes=True)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("processes1", "inline"),
        ("processes2", "inline"),
        ("ray2", "inline"),
        ("lanes2", "lanes2"),
    ],
)
def test_bits_are_the_same_whatever_the_executor_of_a_program(
    task, references, tmp_path, name, other
):
    work = units(tmp_path)
    results = do(name, task, tmp_path, work[::-1] if name == "lanes2" else work)
    folder, expected = references[other]
    found, wanted = outcomes(results), outcomes(expected)
    assert {i: o.measured for i, o in found.items()} == {i: o.measured for i, o in wanted.items()}
    for unit in units(tmp_path):
        assert unit.weights.read_bytes() == (folder / unit.weights.name).read_bytes()


def test_every_epoch_is_told_and_every_unit_answered_once(reference):
    _, results = reference
    told = [(r.id, r.num_done) for r in results if isinstance(r, Epoch)]
    for i in range(3):
        assert [epoch for id, epoch in told if id == f"unit{i}"] == [1, 2]
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


def test_robust_accuracy_is_that_of_the_weights_on_the_corrupted_images(task, reference):
    folder, results = reference
    assert len(task.corrupted_rows) == 2 * len(task.validation_rows)
    assert task.num_train + len(task.corrupted_rows) == len(task.images) == len(task.labels)
    images, labels = task.images[task.corrupted_rows], task.labels[task.corrupted_rows]
    for id, outcome in outcomes(results).items():
        arch, variables = load_weights(folder / f"{id}.safetensors")
        direct = evaluate(arch, variables, Split(images, labels)).accuracy
        # Two logits may be as good as equal, and programs round otherwise.
        assert outcome.measured["robust_accuracy"] == pytest.approx(direct, abs=1.5 / len(labels))
        assert outcome.measured["robust_accuracy"] != outcome.measured["val_accuracy"]


@pytest.mark.parametrize("name", ["inline", "lanes2"])
def test_a_units_own_seed_is_as_good_as_the_runs(task, tmp_path, name):
    """Beside units of the run's seed, in the same program; and it makes a difference."""
    first, second, third = units(tmp_path)
    do(name, task, tmp_path, [first, second._replace(seed=7), third])
    other = units(tmp_path / "other")
    (tmp_path / "other").mkdir()
    do(name, task._replace(seed=7), tmp_path, other)
    found = [unit.weights.read_bytes() for unit in (first, second, third)]
    wanted = [unit.weights.read_bytes() for unit in other]
    assert found[1] == wanted[1]
    assert found[0] != wanted[0]
    assert found[2] != wanted[2]


@pytest.mark.parametrize("name", ["inline", "processes1", "ray1", "lanes2"])
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


@pytest.mark.parametrize(
    ("name", "deaths", "retries", "number", "how"),
    [
        ("processes1", 1, 1, signal.SIGKILL, None),
        ("processes1", 2, 1, signal.SIGSEGV, "signal 11"),
        ("processes1", 1, 0, signal.SIGKILL, "signal 9"),
        ("ray1", 1, 1, signal.SIGKILL, None),
        ("ray1", 2, 1, signal.SIGSEGV, "it was killed, or crashed"),
    ],
)
def test_the_unit_of_a_worker_that_dies_is_tried_again_as_often_as_is_wanted_and_last(
    task, tmp_path, name, deaths, retries, number, how
):
    runner = executor(name, task, tmp_path, retries=retries)
    first, second = units(tmp_path, 2)
    first = first._replace(num_epochs=30)  # it is not over when it is to die
    begun, found, noted = [], {}, []
    try:
        runner.submit(first)
        runner.submit(second)
        for result in runner.results():
            if isinstance(result, Outcome):
                found[result.id] = result
            elif isinstance(result, Note):
                noted.append(result.text)
            elif isinstance(result, Epoch) and result.num_done == 1:
                begun.append(result.id)
                if result.id == "unit0" and begun.count("unit0") <= deaths:
                    (worker,) = busy(name)
                    os.kill(worker, number)
    finally:
        runner.close()
    assert begun == ["unit0", "unit1", *["unit0"] * retries]
    assert [text.startswith("unit0: its worker died (") for text in noted] == [True] * retries
    assert found["unit0"].status == ("failed" if how else "ok")
    if how:
        assert found["unit0"].reason == f"its worker died ({how})"
    assert found["unit1"].status == "ok"


@pytest.mark.parametrize("name", ["inline", "lanes2", "processes1", "ray1"])
def test_a_candidate_that_trains_too_long_is_timed_out_and_the_next_goes_on(task, tmp_path, name):
    """The limit is none at all: the last step of a training is never too late."""
    long, short = units(tmp_path, 2)
    settings = dataclasses.replace(task.settings, batch_size=len(task.search_rows))
    task = task._replace(settings=settings, limit_seconds=1e-9)
    short = short._replace(num_epochs=1)
    found = outcomes(do(name, task, tmp_path, [long, short._replace(stage="final"), short]))
    assert found["unit0"].status == "timeout"
    assert found["unit0"].reason == "trained longer than 1e-09 s"
    assert not long.weights.exists()
    assert found["unit1"].status == "ok"


@pytest.mark.parametrize("name", ["processes1", "ray1"])
def test_a_worker_that_gives_no_sign_of_life_is_killed_and_its_unit_recorded(
    task, tmp_path, monkeypatch, name
):
    runner = executor(name, task, tmp_path, retries=0)
    (good,) = units(tmp_path, 1)
    try:
        runner.submit(good)  # a worker that has not started gives none either
        assert outcomes(runner.results())["unit0"].status == "ok"
        monkeypatch.setattr(processes, "TICK_SECONDS", 0.2)
        monkeypatch.setattr(ray_executor, "PATIENCE_SECONDS", 1.0)
        runner._patience = 1.0
        runner.submit(good._replace(id="bad", arch=Hanging()))
        (bad,) = outcomes(runner.results()).values()
    finally:
        runner.close()
    assert bad.status == "failed"
    assert bad.reason == "its worker died (no sign of life for 1 s)"


@pytest.mark.parametrize("name", ["inline", "processes1", "ray1"])
def test_a_program_that_does_not_compile_fails_its_unit_and_the_next_goes_on(task, tmp_path, name):
    settings = dataclasses.replace(task.settings, batch_size=48)  # no process has its program yet
    runner = executor(name, task._replace(settings=settings), tmp_path)
    (good,) = units(tmp_path, 1)
    arch = fails_to_compile() if name == "inline" else FailsToCompile()
    ended = []
    try:
        for unit in (good._replace(id="bad", arch=arch), good._replace(num_epochs=1)):
            runner.submit(unit)
            ended.extend(outcomes(runner.results()).values())
    finally:
        runner.close()
    assert [outcome.status for outcome in ended] == ["failed", "ok"]
    assert ended[0].reason.startswith("JaxRuntimeError: INTERNAL: no such instruction (")


@pytest.mark.parametrize(
    ("name", "retries", "batch"),  # batches of which no process has the program yet
    [("processes1", 0, 40), ("processes2", 1, 40), ("ray1", 0, 40), ("ray2", 1, 24)],
)
def test_a_unit_that_ran_out_of_memory_is_tried_again_as_often_as_wished(
    task, tmp_path, name, retries, batch
):
    settings = dataclasses.replace(task.settings, batch_size=batch)
    runner = executor(name, task._replace(settings=settings), tmp_path, retries=retries)
    greedy, other = units(tmp_path, 2)
    arch = FailsToCompile("RESOURCE_EXHAUSTED: Out of memory", tmp_path / "mark")
    try:
        for unit in (greedy._replace(arch=arch), other):
            runner.submit(unit)
        ended = [result for result in runner.results() if isinstance(result, Outcome)]
    finally:
        runner.close()
    assert sorted(outcome.id for outcome in ended) == ["unit0", "unit1"]
    found = outcomes(ended)
    assert found["unit1"].status == "ok"
    assert found["unit0"].status == ("ok" if retries else "failed")
    if not retries:
        assert found["unit0"].reason.startswith("out of memory: JaxRuntimeError")


@pytest.mark.parametrize("name", ["inline", "lanes2", "processes1", "ray1"])
def test_a_run_folder_that_is_gone_ends_the_run_and_fails_no_candidate(task, tmp_path, name):
    (unit,) = units(tmp_path, 1)
    gone = unit._replace(checkpoint=tmp_path / "removed" / "run" / "state.msgpack")
    with pytest.raises(
        StorageError, match=r"state\.msgpack cannot be written \(its folder is gone"
    ):
        do(name, task, tmp_path, [gone])
    assert not (tmp_path / "removed").exists()


@pytest.mark.parametrize(
    ("name", "how"), [("processes1", "exit code 7"), ("ray1", "it was killed, or crashed")]
)
def test_units_that_kill_their_workers_at_once_never_end_the_run(task, tmp_path, name, how):
    (good,) = units(tmp_path, 1)
    bad = [good._replace(id=f"bad{i}", arch=Deadly()) for i in range(3 if how[0] == "e" else 1)]
    found = outcomes(do(name, task, tmp_path, [*bad, good]))
    assert found["unit0"].status == "ok"
    reasons = {(found[unit.id].status, found[unit.id].reason) for unit in bad}
    assert reasons == {("failed", f"its worker died ({how})")}


@pytest.mark.parametrize("accept", [False, True])
def test_nodes_that_would_compute_other_bits_are_refused_or_told(
    task, tmp_path, monkeypatch, accept
):
    executor("ray1", task, tmp_path)
    here = program.training_conditions() | {"jax": "0.0.1"}
    monkeypatch.setattr(program, "training_conditions", lambda: here)
    runner = Ray(task, num_workers=1, accept_platform=accept)
    results = []
    try:
        for unit in units(tmp_path, 2):
            runner.submit(unit)
        with contextlib.nullcontext() if accept else pytest.raises(InputError) as refused:
            results.extend(runner.results())
    finally:
        runner.close()
    differs = rf"node \S+ differs from this machine: jax \(here 0\.0\.1, there {jax.__version__}\)"
    if accept:
        (told,) = [result.text for result in results if isinstance(result, ProgramChanged)]
        assert re.fullmatch(differs, told)
        assert {outcome.status for outcome in outcomes(results).values()} == {"ok"}
    else:
        assert re.match(differs + "; .* add --accept-platform", str(refused.value))


def test_closing_a_cluster_leaves_a_training_in_its_middle(task, tmp_path):
    runner = executor("ray1", task, tmp_path)
    runner.submit(units(tmp_path, 1)[0]._replace(num_epochs=100_000))
    first = next(runner.results())
    assert first.num_done == 1
    assert len(busy_ray_workers()) == 1
    runner.close()
    deadline = time.monotonic() + 20
    while busy_ray_workers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert busy_ray_workers() == []
