"""One suite over the executors: same bits, failures that stay outcomes, nothing left behind."""

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import re
import signal
import threading
import time
import types

import jax
import numpy as np
import pytest
import ray

from deepmaker_jax import program
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.data import load, stratified
from deepmaker_jax.data.corruption import dealt
from deepmaker_jax.errors import InputError, StorageError
from deepmaker_jax.events import Epoch, ProgramChanged
from deepmaker_jax.execute import Inline, Outcome, Processes, Task, Unit, lanes, processes, work
from deepmaker_jax.execute import unit as unit_module
from deepmaker_jax.execute.lanes import Lanes
from deepmaker_jax.execute.ray import Ray
from deepmaker_jax.execute.unit import arrays
from deepmaker_jax.export.weights import load_weights
from deepmaker_jax.lanes.size_class import table
from deepmaker_jax.lanes.wiring import choose
from deepmaker_jax.train import candidate
from deepmaker_jax.train.population import Population
from deepmaker_jax.train.runner import Plain
from tests.examples import SMALL
from tests.execute.ray_workers import busy_ray_workers

# Ray forks only to execute another program at once, which JAX's threads do not mind.
pytestmark = pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")


@pytest.fixture(scope="module")
def task():
    data = load("digits")
    rest, validation = stratified(data.train_labels, share=0.2, seed=0)
    corrupted, rows = dealt(data.train_images[validation], at_least=500, seed=0)
    return Task(
        images=np.concatenate([data.train_images, corrupted]),
        labels=np.concatenate([data.train_labels, data.train_labels[validation[rows]]]),
        corrupted_rows=len(data.train_labels) + np.arange(len(corrupted)),
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


OWN = "programs of their own for the networks of small-3x3, medium-3x3, large-3x3"
WIDE_STAGE = dataclasses.replace(SMALL.stages[0], num_layers=3, growth=56)
LARGER = dataclasses.replace(SMALL, stem_width=48, stages=(WIDE_STAGE,))


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """The module's one Ray cluster is started by the first test that wants it."""
    yield
    ray.shutdown(wait_for_processes=True)


def executor(name, task, folder, **rest):
    if name == "inline":
        return Inline(task)
    if name.startswith("ray"):
        if not ray.is_initialized():
            ray.init(
                "local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False,
                logging_level=logging.CRITICAL, object_store_memory=200 << 20,
            )  # fmt: skip
        return Ray(task, num_workers=int(name[-1]), **rest)
    if name.startswith("lanes"):
        return Lanes(side_by_side(task, int(name[-1])))
    return Processes(task, num_workers=int(name[-1]), folder=folder / "shared", **rest)


def side_by_side(task, num_lanes):
    """The search's candidates in lanes; the final ones in programs of their own."""
    classes = table((8, 8, 1), 10, activations=("relu",), optimizers=("sgd",))
    num = (num_lanes,) * len(classes)
    return task._replace(size_classes=classes, in_class=("search",), lanes={"search": num})


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
def references(task, tmp_path_factory):
    """What three units come to: (folder, results) by executor."""
    found = {}
    for name in ("inline", "lanes2"):
        folder = tmp_path_factory.mktemp(name)
        found[name] = folder, do(name, task, folder, units(folder))
    return found


@pytest.fixture(params=["inline", "lanes2"])
def reference(request, references):
    return references[request.param]


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
        direct = candidate.evaluate(arch, variables, candidate.Split(images, labels)).accuracy
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


def busy(name):
    """The processes of an executor that train."""
    if name.startswith("processes"):
        return [worker.pid for worker in multiprocessing.active_children()]
    return busy_ray_workers()


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
    begun, found = [], {}
    try:
        runner.submit(first)
        runner.submit(second)
        for result in runner.results():
            if isinstance(result, Outcome):
                found[result.id] = result
            elif isinstance(result, Epoch) and result.num_done == 1:
                begun.append(result.id)
                if result.id == "unit0" and begun.count("unit0") <= deaths:
                    (worker,) = busy(name)
                    os.kill(worker, number)
    finally:
        runner.close()
    assert begun == ["unit0", "unit1", *["unit0"] * retries]
    assert found["unit0"].status == ("failed" if how else "ok")
    if how:
        assert found["unit0"].reason == f"its worker died ({how})"
    assert found["unit1"].status == "ok"


@pytest.mark.parametrize("name", ["inline", "lanes2", "processes1"])
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


class Hanging:
    """Stops the process that unpickles it, as a driver that waits for a device does."""

    def __reduce__(self):
        return time.sleep, (3600,)


def test_a_worker_that_gives_no_sign_of_life_is_killed_and_its_unit_recorded(
    task, tmp_path, monkeypatch
):
    monkeypatch.setattr(processes, "TICK_SECONDS", 0.2)
    runner = Processes(
        task, num_workers=2, folder=tmp_path / "shared", retries=0, patience_seconds=20
    )
    (good,) = units(tmp_path, 1)
    try:
        runner.submit(good._replace(id="bad", arch=Hanging()))
        runner.submit(good)
        found = outcomes(runner.results())
    finally:
        runner.close()
    assert found["unit0"].status == "ok"
    assert found["bad"].status == "failed"
    assert found["bad"].reason == "its worker died (no sign of life for 20 s)"


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
    assert runner._finish(worker, lost) is None
    assert runner._line.take([other]) is None  # it waits until nobody trains
    assert runner._line.take([]) == unit
    runner._doing[worker] = unit
    assert runner._finish(worker, lost) == lost  # it has no more tries


def test_a_worker_that_trains_gives_signs_of_life(task, tmp_path, monkeypatch):
    monkeypatch.setattr(unit_module, "ALIVE_SECONDS", 0.0)
    monkeypatch.setattr(processes.runtime, "end_with_parent", lambda: None)
    asked, said = units(tmp_path, 1), []

    def next_unit():
        if not asked:
            raise EOFError
        return asked.pop()

    for name, value in arrays(task).items():
        np.save(tmp_path / f"{name}.npy", value)
    connection = types.SimpleNamespace(recv=next_unit, send=said.append)
    processes._work(connection, task._replace(**dict.fromkeys(arrays(task))), tmp_path)
    assert said[0] == processes.READY
    assert said.count("alive") >= 2
    assert said[-1].status == "ok"


@pytest.mark.parametrize("name", ["inline", "lanes2", "processes1"])
def test_a_run_folder_that_is_gone_ends_the_run_and_fails_no_candidate(task, tmp_path, name):
    (unit,) = units(tmp_path, 1)
    gone = unit._replace(checkpoint=tmp_path / "removed" / "run" / "state.msgpack")
    with pytest.raises(StorageError, match=r"state\.msgpack cannot be written \(No such file"):
        do(name, task, tmp_path, [gone])
    assert not (tmp_path / "removed").exists()


class Deadly:
    """Kills the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (7,)


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


def test_workers_that_never_get_ready_end_the_run_with_one_line(task, tmp_path, monkeypatch):
    monkeypatch.setattr("deepmaker_jax.execute.processes._work", Deadly())
    with pytest.raises(InputError, match="worker processes cannot start"):
        do("processes2", task, tmp_path, units(tmp_path, 1))


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
            assert submitted.wait(60)
            while (job := next_job()) is not None:
                order.append(job.key.id)
                yield job, ValueError("not trained here")

    monkeypatch.setattr(lanes, "Population", Recorder)
    runner = Lanes(side_by_side(task, 2))
    for depth in (2, 1, 4, 3, 1):
        stage = dataclasses.replace(SMALL.stages[0], num_layers=depth)
        arch = dataclasses.replace(SMALL, stages=(stage,))
        runner.submit(Unit(f"{depth}, {runner._num_open}", arch, "search", 1))
    submitted.set()
    assert len(outcomes(runner.results())) == 5
    runner.close()
    assert order == ["4, 2", "3, 3", "2, 0", "1, 1", "1, 4"]


def test_a_lane_whose_checkpoint_cannot_be_written_fails_alone(task, tmp_path, references):
    (tmp_path / "file").touch()
    work = units(tmp_path)
    work[0] = work[0]._replace(checkpoint=tmp_path / "file" / "state.msgpack")
    found, wanted = outcomes(do("lanes2", task, tmp_path, work)), outcomes(references["lanes2"][1])
    assert found["unit0"].status == "failed"
    assert "FileExistsError" in found["unit0"].reason or "NotADirectory" in found["unit0"].reason
    for id in ("unit1", "unit2"):
        assert found[id].measured == wanted[id].measured


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


def test_nothing_starts_before_the_first_unit(task, tmp_path):
    runner = Processes(task, num_workers=2, folder=tmp_path / "shared")
    assert list(runner.results()) == []
    assert multiprocessing.active_children() == []
    runner.close()
