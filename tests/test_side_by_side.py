"""Candidates side by side (`--program vmap`): a whole run, how few programs it takes, memory."""

import collections
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10, digits
from deepmaker_jax import Config, load_data, program, run
from deepmaker_jax.config import FinalConfig, LimitConfig, SearchConfig, SpaceConfig, TrainConfig
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Measured, Note, ProgramChanged
from deepmaker_jax.execute import Outcome, Task, Unit, lanes
from deepmaker_jax.execute.lanes import Lanes
from deepmaker_jax.feasible import make
from deepmaker_jax.lanes.size_class import WHOLE_BATCH, table
from deepmaker_jax.lanes.wiring import choose
from deepmaker_jax.spaces import SPACES
from deepmaker_jax.task import with_lanes, with_size_classes
from deepmaker_jax.train import Split, lane, runner
from deepmaker_jax.train.memory import lane_bytes, num_lanes
from deepmaker_jax.train.population import Population
from tests.lanes.drawn import draw

TINY = Config(
    validation_share=0.2,
    space=SpaceConfig(only=("optimizer=sgd", "activation=relu", "stages=1", "kernel=3")),
    limits=LimitConfig(params=4_000),
    search=SearchConfig(population=4, generations=2, epochs=6, objectives=("error", "params")),
    train=TrainConfig(batch_size=64),
    final=FinalConfig(members=4, epochs=3, export=False),
    program="vmap",
)
DIGITS = load_data("digits")


class Stopped(Exception):  # noqa: N818 - it stands for a Ctrl-C
    pass


def go(out, *, config=TINY, stop=lambda event: False):
    events = []

    def on_event(event):
        events.append(event)
        if stop(event):
            raise Stopped

    front = run(dataclasses.replace(config, out=str(out)), data=DIGITS, on_event=on_event)
    return front, events


def weights(out):
    return {path.parent.name: path.read_bytes() for path in out.rglob("weights.safetensors")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, *go(out)


def test_a_search_side_by_side_says_what_trained_it(whole):
    out, front, events = whole
    config = json.loads((out / "config.json").read_text())
    assert config["program"] == {
        "strategy": "vmap", "final_strategy": "vmap",
        "size_class": [f"{size}-{k}x{k}" for size in ("small", "medium", "large") for k in (3, 5)],
        "lanes": [4] * 6, "final_lanes": [4] * 6, "devices": 1, "threads": 1, "device": "cpu",
    }  # fmt: skip
    assert config["reproducible"] is True
    assert front["members"]
    assert max(member["val_accuracy"] for member in front["members"]) > 0.4
    assert {e.record["status"] for e in events if isinstance(e, Measured)} == {"ok"}


def test_killed_twice_it_ends_with_the_same_bits(whole, tmp_path):
    """In the search, and in the final training."""
    for num in (2, 7):
        measured = []

        def stop(event, num=num, measured=measured):
            measured.extend([event] * isinstance(event, Measured))
            return len(measured) == num

        with pytest.raises(Stopped):
            go(tmp_path / "run", stop=stop)
    front, _ = go(tmp_path / "run")
    assert front == whole[1]
    assert weights(tmp_path / "run") == weights(whole[0])


def test_less_memory_than_hoped_for_is_noted_and_stays_noted(tmp_path, monkeypatch):
    def scarce(*args, num_lanes, **rest):
        if num_lanes > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return Population(*args, num_lanes=num_lanes, **rest)

    monkeypatch.setattr(lanes, "Population", scarce)
    shorter = dataclasses.replace(
        TINY,
        search=dataclasses.replace(TINY.search, generations=1),
        final=dataclasses.replace(TINY.final, members=1),
    )
    front, events = go(tmp_path / "run", config=shorter)
    reasons = [event.text for event in events if isinstance(event, ProgramChanged)]
    assert len(reasons) == 1
    assert reasons[0].endswith("with 4 lanes: search goes on with 2 lanes")
    assert len(front["members"]) == 1
    for _ in range(2):  # run again, it finds the same
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        assert config["program_changes"] == reasons
        assert (config["reproducible"], config["reason"]) == (False, reasons[0])
        go(tmp_path / "run", config=shorter)
    assert not [event for event in events if isinstance(event, Note)]


@pytest.mark.parametrize("name", ["processes", "ray"])
def test_processes_cannot_train_side_by_side(tmp_path, name):
    config = dataclasses.replace(TINY, executor=name)
    with pytest.raises(InputError, match=rf"program \(=vmap\) .* leave --executor {name} out"):
        go(tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()


def test_a_cluster_trains_on_cpus(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(InputError, match=r"executor \(=ray\) trains on CPUs: set JAX_PLATFORMS"):
        program.executor(Config(executor="ray"))


@pytest.mark.parametrize(
    ("settings", "device", "executor", "strategy"),
    [
        ({}, "gpu", "lanes", "vmap"),
        ({"program": "map"}, "tpu", "inline", "map"),
        ({"executor": "processes"}, "gpu", "processes", "plain"),
        ({}, "cpu", "processes", "map"),
        ({"executor": "ray"}, "cpu", "ray", "map"),
        ({"program": "vmap"}, "cpu", "lanes", "vmap"),
    ],
)
def test_accelerators_train_side_by_side_by_default(
    settings, device, executor, strategy, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    config = Config(**settings)
    assert program.executor(config) == executor
    chosen = program.choose(executor, config.program, search_flops=1.0, final_flops=1.0)
    assert (chosen["strategy"], chosen["final_strategy"]) == (strategy, strategy)


@pytest.mark.parametrize(
    ("flags", "expected"), [("", False), ("--xla_gpu_deterministic_ops=true", True)]
)
def test_a_gpu_that_times_its_kernels_is_not_reproducible(flags, expected, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    found, reason = program.reproducible({"device": "gpu", "threads": None})
    assert found is expected
    assert expected or "XLA_FLAGS=--xla_gpu_deterministic_ops=true" in reason


def test_a_space_without_a_lanes_optimizer_has_no_size_class(monkeypatch):
    """On an accelerator too each of its networks trains in a program of its own."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    space = SPACES["neuropower"]((8, 8, 1), 10).narrow({"optimizer": ["adagrad"]})
    chosen = program.choose("lanes", "auto", search_flops=1.0, final_flops=1.0)
    assert chosen["strategy"] == "vmap"
    found = with_lanes(with_size_classes(task(), space, DIGITS, chosen), TINY, chosen)
    assert found.size_classes == ()
    assert chosen["lanes"] == chosen["final_lanes"] == []
    executor = Lanes(found)
    assert executor.num_workers == 1
    executor.close()


SHAPE = (8, 8, 3)


def task(num_lanes=2):
    rng = np.random.default_rng(0)
    classes = table(SHAPE, 10)
    return Task(
        images=rng.integers(0, 256, (24, *SHAPE), dtype=np.uint8),
        labels=np.arange(24, dtype=np.int32) % 10,
        search_rows=np.arange(16),
        validation_rows=np.arange(16, 24),
        input_scale=np.full(3, 1 / 64, np.float32),
        settings=TrainConfig(batch_size=8, crop=1, flip=True),
        seed=0,
        size_classes=classes,
        in_class=("search",),
        lanes={"search": (num_lanes,) * len(classes)},
    )


def standing_still(size_class, settings):
    """Stands where a size class's program does; nothing is learned, and nothing measured right."""

    def run(common, states, work, feeds, calls):
        return states, work, jnp.zeros((*calls.num_valid.shape, 2))

    return run


def counting(monkeypatch, whole=lane.run_side_by_side):
    """Returns a list that grows with each trace of a size class's program, which `whole` makes."""
    traced = []

    def counted(size_class, settings):
        inner = whole(size_class, settings)

        def outer(*args):
            traced.append(size_class.name)
            return inner(*args)

        return outer

    monkeypatch.setattr(lane, "run_side_by_side", counted)
    monkeypatch.setattr(runner, "_programs", {})
    return traced


def train(archs):
    executor = Lanes(task())
    for i, arch in enumerate(archs):
        executor.submit(Unit(f"unit{i}", arch, "search", 1))
    found = [result for result in executor.results() if isinstance(result, Outcome)]
    executor.close()
    return collections.Counter(outcome.status for outcome in found)


def test_a_hundred_networks_take_no_more_programs_than_sixty(monkeypatch):
    """Random genomes up to 200,000 parameters; the programs that are counted do no work."""
    archs = draw(SHAPE, num=120)
    assert None not in {choose(arch, task().size_classes) for arch in archs}
    traced = counting(monkeypatch, standing_still)
    assert train(archs[:60])["failed"] == 0
    num = len(traced)
    assert num == len(set(traced)) <= 12
    assert train(archs[60:])["failed"] == 0
    assert len(traced) == num


@pytest.mark.parametrize(
    ("config", "shape"), [(digits.demo(), (8, 8, 1)), (cifar10.smoke(), (32, 32, 3))]
)
def test_the_small_presets_need_at_most_three_programs(config, shape):
    allowed = dict(choice.split("=") for choice in config.space.only)
    space = SPACES["deepmaker"](shape, 10).narrow({k: v.split("|") for k, v in allowed.items()})
    feasible, rng = make(space, config.limits, spread="params"), np.random.default_rng(0)
    drawn = [*feasible.sample(rng, num=150)]
    drawn += [g for g in (feasible.shrink(rng, row) for row in space.sample(rng, num=150))
        if g is not None]  # fmt: skip
    found = {choose(space.decode(genome), table(shape, 10)) for genome in drawn}
    assert None not in found
    assert len(found) <= 3


def test_with_a_warm_cache_nothing_is_compiled(monkeypatch):
    archs = draw(SHAPE, num=3, kernel=3, most=20_000)
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    seen = collections.Counter()

    def listen(event, **_):
        seen[event.rpartition("/")[2]] += 1

    try:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        for _ in range(2):
            jax.clear_caches()
            traced = counting(monkeypatch)
            seen.clear()
            jax.monitoring.register_event_listener(listen)
            assert train(archs)["failed"] == 0
            jax.monitoring.unregister_event_listener(listen)
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
    assert traced
    assert seen["cache_hits"] >= len(traced)
    assert seen["cache_misses"] == 0


@pytest.mark.parametrize(
    ("name", "side", "batch_size", "num", "whole_batch"),
    [
        ("small-3x3", 8, 8, 2, False),
        ("medium-3x3", 16, 32, 1, True),
    ],
)
def test_the_memory_model_is_xlas_within_a_tenth(name, side, batch_size, num, whole_batch):
    shape = (side, side, 3)
    of = next(c for c in table(shape, 10) if c.name == name)
    if whole_batch:
        of = of._replace(num_pixels=WHOLE_BATCH)
    settings = TrainConfig(batch_size=batch_size, crop=1, flip=True)
    data = task()
    population = Population(
        of, Split(np.zeros((24, *shape), np.uint8), data.labels), settings=settings, seed=0,
        input_scale=data.input_scale, num_lanes=num,
    )  # fmt: skip
    found = population.memory()
    assert num * lane_bytes(of, settings) == pytest.approx(found, rel=0.1)


class Device:
    platform = "gpu"

    def __init__(self, gigabytes):
        self._bytes = int(gigabytes * 1e9)

    def memory_stats(self):
        return {"bytes_limit": self._bytes}


@pytest.mark.parametrize(
    ("gigabytes", "devices", "wanted", "expected"),
    [(80, 1, 3, 3), (80, 1, 1000, 4), (80, 4, 64, 16), (80, 4, 5, 8), (3, 1, 16, 2), (1, 1, 16, 1)],
)
def test_lanes_fill_a_device_and_no_more(gigabytes, devices, wanted, expected, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(gigabytes)] * devices)
    of, settings = table((32, 32, 3), 10)[0], TrainConfig(batch_size=64)
    found = num_lanes(of, settings, data_bytes=150_000_000, wanted=wanted)
    assert found == expected
    assert found % devices == 0
