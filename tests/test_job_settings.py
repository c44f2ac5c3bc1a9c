"""The main job under objectives, targets, a board and presets."""

import dataclasses
import functools
import importlib.util
import json

import numpy as np
import pytest

from configs import cifar10
from deepmaker_jax import (
    Gene,
    Objective,
    Space,
    latency,
    make_dataset,
    run,
)
from deepmaker_jax.backends import boards
from deepmaker_jax.cli import main
from deepmaker_jax.config import LimitConfig, SpaceConfig
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import (
    GenerationStarted,
    Measured,
    Note,
)
from deepmaker_jax.evolve import NSGA3
from deepmaker_jax.evolve.reference import directions
from deepmaker_jax.export import read_bundle
from deepmaker_jax.job import _name_of
from deepmaker_jax.objective import built_in
from deepmaker_jax.search import strategy_scale
from tests.examples import LAST, SMALL
from tests.tiny import DIGITS, TINY, Stopped, go, of_kind


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"measure": lambda m: m["speed"]}, "objective mine raises KeyError"),
        ({"measure": lambda m: float("nan")}, r"objective mine \(=nan\) must be a finite number"),
        ({"scale": "log10"}, "must have scale linear or log2"),
        ({"ideal": 5.0}, "an ideal below its reference"),
        ({"reference": float("inf")}, "an ideal below its reference"),
        ({"scale": "log2"}, r"\(ideal 0.0\) must be above 0 on a log2 scale"),
        (
            {"scale": "log2", "ideal": 0.1, "measure": lambda m: -0.5},
            r"objective mine \(=-0.5\) must be above 0 on a log2 scale: make its scale linear",
        ),
    ],
)
def test_an_objective_that_cannot_work_is_refused_before_training(tmp_path, changed, message):
    mine = Objective("mine", "s", "linear", 0.0, 1.0, lambda m: 0.5)._replace(**changed)
    error = Objective("error", "share", "linear", 0.0, 1.0, lambda m: m["val_error"])
    with pytest.raises(InputError, match=message):
        go(tmp_path / "run", objectives=(error, mine))
    assert not (tmp_path / "run").exists()


def test_a_first_objective_that_needs_no_training_is_refused(tmp_path):
    energy = Objective("energy", "nJ", "log2", 1.0, 1e6, lambda m: 0.005 * m["macs"])
    delay = built_in("latency_ms", LimitConfig())
    error = Objective("error", "share", "linear", 0.0, 1.0, lambda m: m["val_error"])
    for first in (energy, delay):
        with pytest.raises(InputError, match=f"objective {first.name} .* must not come first: put"):
            go(tmp_path / "run", objectives=(first, error))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"config": {}}, r"config \(=\{\}\) must be a Config"),
        ({"data": None}, r"data \(of type NoneType\) must be a Dataset"),
        ({"space": 3}, r"space \(=3\) must be a function .* set space\.name"),
        ({"space": lambda: None}, r"space\(input_shape, num_classes\) raises TypeError"),
        ({"space": lambda shape, num: None}, "space returns None: it must return a Space"),
        ({"objectives": None, "space": lambda *_: 1 / 0}, "space.* raises ZeroDivisionError"),
        ({"objectives": (built_in("error", LimitConfig()), None)}, r"objectives \(=None\) must be"),
        ({"objectives": ("error", "macs")}, r"objectives \(=error\) .* set search\.objectives"),
        ({"objectives": 3}, r"objectives \(=3\) must be Objectives"),
        ({"strategy": "nsga2"}, r"strategy \(=nsga2\) must be called .* set search\.strategy"),
        ({"strategy": lambda: None}, "strategy raises TypeError"),
    ],
)
def test_a_part_of_ones_own_that_cannot_be_one_is_one_line(tmp_path, part, message):
    parts = {"config": dataclasses.replace(TINY, out=str(tmp_path / "run")), "data": DIGITS} | part
    with pytest.raises(InputError, match=message):
        run(parts.pop("config"), **parts)
    assert not (tmp_path / "run").exists()


def test_a_strategy_made_from_nsga3_has_directions_its_own_if_it_was_given_some(tmp_path):
    found = []

    class Mine(NSGA3):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            found.append((self.directions, self.fixed_box))

    own = np.array([[0.0, 1.0], [1.0, 0.0]])
    given = functools.partial(Mine, directions=own)
    for factory in (Mine, functools.partial(Mine, fixed_box=True), given):
        with pytest.raises(Stopped):
            go(tmp_path / str(len(found)), strategy=factory, stop=lambda event: True)
    usual = directions(2, TINY.search.population)
    wanted = (usual, True), (usual, True), (own, False)
    for (expected, is_fixed), (made, fixed_box) in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(made, expected)
        assert fixed_box == is_fixed


def test_a_strategy_is_named_by_all_that_it_was_given_and_by_no_address():
    def names(directions, scale):
        factory = functools.partial(NSGA3, directions=directions, scale=scale, fixed_box=True)
        return _name_of(factory)

    table = np.random.default_rng(0).uniform(size=(1000, 3))
    first = names(table, strategy_scale)
    assert first == names(table.copy(), strategy_scale)
    assert "strategy_scale" in first
    assert " at 0x" not in first
    changed = table.copy()
    changed[500] = 1
    assert names(changed, strategy_scale) != first
    assert names(table.astype(np.float32), strategy_scale) != first


def test_a_floor_is_of_the_first_cost_that_is_named(tmp_path):
    search = dataclasses.replace(TINY.search, floor=3000, objectives=("error", "macs", "params"))
    config, events = dataclasses.replace(TINY, search=search), []

    def stop(event):
        events.append(event)
        return isinstance(event, Measured)

    with pytest.raises(Stopped):
        go(tmp_path / "run", config=config, stop=stop)
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [o["ideal"] for o in document["objectives"]] == [0.0, 3000, 256]
    measured = of_kind(events, Measured)[0].record
    assert document["objectives"][1]["how"] == "from the layer list, at least 3,000"
    assert measured["objectives"]["macs"] == max(measured["costs"]["macs"], 3000)
    mine = Objective("mine", "s", "linear", 0.0, 1.0, lambda m: 0.5)
    error = Objective("error", "share", "linear", 0.0, 1.0, lambda m: m["val_error"])
    with pytest.raises(InputError, match=r"search.floor \(=3000\) is of the named objectives"):
        go(tmp_path / "own", config=config, objectives=(error, mine))


def test_targets_cut_the_space_when_a_run_begins_and_stay_when_it_resumes(tmp_path):
    config = dataclasses.replace(TINY, targets=("fpga",))
    with pytest.raises(Stopped):
        go(tmp_path / "run", config=config, stop=lambda event: isinstance(event, Measured))
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    assert document["space"]["targets"] == ["fpga"]
    config, told = dataclasses.replace(TINY, targets=("mcu",)), []

    def stop(event):
        told.extend([event.text] if isinstance(event, Note) else [])
        return isinstance(event, GenerationStarted)

    with pytest.raises(Stopped):
        go(tmp_path / "run", config=config, stop=stop)
    assert told == [
        "the search keeps to what it began with (fpga targets): others are for the finished front"
    ]
    after = json.loads((tmp_path / "run" / "config.json").read_text())
    assert after["space"]["targets"] == ["fpga"]
    with pytest.raises(InputError, match=r"targets \(=fpgaa\) must be among arm, mcu"):
        go(tmp_path / "run", config=dataclasses.replace(TINY, targets=("fpgaa",)))
    config = dataclasses.replace(
        TINY, targets=("fpga",), space=SpaceConfig(only=("activation=silu",))
    )
    with pytest.raises(InputError, match=r"targets \(fpga\) can do no network of space deepmaker"):
        go(tmp_path / "other", config=config)
    assert not (tmp_path / "other").exists()


def test_latency_is_an_objective_that_is_measured_once_and_told_with_its_unit(tmp_path, capsys):
    search = dataclasses.replace(
        TINY.search, generations=1, epochs=1, objectives=("error", "latency_ms")
    )
    final_settings = dataclasses.replace(TINY.final, members=1, epochs=1, export=False)
    config = dataclasses.replace(TINY, search=search, final=final_settings)
    out = tmp_path / "run"
    front, _ = go(out, config=config)
    assert front["objectives"][1] == {
        "name": "latency_ms", "unit": "ms", "scale": "log2", "how": latency.HOW,
    }  # fmt: skip
    document = json.loads((out / "config.json").read_text())
    assert document["reproducible"] is False
    assert document["reason"] == "objective latency_ms is measured by a clock"
    records = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    kinds = [(r["fidelity"]["name"], r["status"]) for r in records]
    assert kinds == [("latency", "ok")] * 4 + [("search", "ok")] * 4 + [("final", "ok")]
    assert all(0 < r["measured"]["latency_ms"] < 1000 for r in records[:4])
    assert all(0 <= r["measured"]["waiting_share"] < 1 for r in records[:4])
    assert not (out / "checkpoints").exists()
    (member,) = front["members"]
    measured = {r["id"]: r["measured"]["latency_ms"] for r in records[:4]}
    assert member["objectives"]["latency_ms"] == measured[member["id"]]
    assert main(["show", str(out)]) == 0
    said = capsys.readouterr().out
    assert "finished, 4 measurements" in said
    assert f"latency_ms: {latency.HOW}" in said
    again, _ = go(out, config=config)
    assert again == front
    assert len((out / "ledger.jsonl").read_text().splitlines()) == len(records)


def test_a_space_or_objective_that_changed_its_meaning_is_refused_on_resume(tmp_path):
    error = Objective("error", "share", "linear", 0.0, 1.0, lambda m: m["val_error"])

    def energy(factor):
        return Objective("energy", "nJ", "log2", 1.0, 1e6, lambda m: factor * m["macs"])

    def chains(kernel):
        def space(input_shape, num_classes):
            def to_arch(row):
                stage = dataclasses.replace(LAST, num_layers=row["layers"], kernel=kernel)
                return dataclasses.replace(
                    SMALL, input_shape=input_shape, num_classes=num_classes, stages=(stage,)
                )

            return Space("chains", (Gene("layers", (1, 2, 3, 4, 5, 6)),), to_arch)

        return space

    config = dataclasses.replace(TINY, space=SpaceConfig(), limits=LimitConfig())
    search = dataclasses.replace(TINY.search, generations=1, epochs=1)
    config = dataclasses.replace(config, search=search)

    def start(kernel, factor):
        return go(
            tmp_path / "run",
            config=config,
            space=chains(kernel),
            objectives=(error, energy(factor)),
            stop=lambda event: isinstance(event, Measured) and event.num_done == 4,
        )

    with pytest.raises(Stopped):
        start(3, 1.0)
    with pytest.raises(InputError, match="to another network than when it was measured"):
        start(5, 1.0)
    with pytest.raises(InputError, match=r"objective energy of .* was .* and is .* now"):
        start(3, 2.0)


@pytest.fixture(scope="module")
def pictures():
    """320 noisy pictures of 16x16x3 in 4 classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(320) % 4
    images = rng.integers(0, 120, (320, 16, 16, 3))
    images[..., 0] += 40 * labels[:, None, None]
    return make_dataset(
        "pictures",
        train_images=images[:240].astype(np.uint8),
        train_labels=labels[:240].astype(np.int32),
        test_images=images[240:].astype(np.uint8),
        test_labels=labels[240:].astype(np.int32),
        class_names=("a", "b", "c", "d"),
        source="made here",
    )


@pytest.mark.parametrize(
    ("preset", "only"),
    [
        ("neuropower", ("depth=16", "blocks=2")),
        ("full", ("stages=1|2", "layers_1=1|2", "layers_2=1|2")),
    ],
)
def test_the_large_presets_run_reduced(preset, only, pictures, tmp_path):
    """Their space, objectives and recipe; 4 genomes (the least), 1 generation, 1 epoch."""
    config = cifar10.PRESETS[preset]()
    config = dataclasses.replace(
        config,
        space=dataclasses.replace(config.space, only=only),
        search=dataclasses.replace(config.search, population=4, generations=1, epochs=1),
        final=dataclasses.replace(config.final, members=1, epochs=1),
        train=dataclasses.replace(config.train, batch_size=50),
    )
    front, events = go(tmp_path / "run", config=config, data=pictures)
    assert len(of_kind(events, Measured)) == 4 + 1
    assert front["members"][0]["status"] == "ok"
    bundle = read_bundle(tmp_path / "run" / front["members"][0]["bundle"])
    assert bundle["files"]["model_int8.tflite"]["status"] == "ok"


def test_a_board_limits_the_search_in_python_too(tmp_path):
    def stop(event):
        raise RuntimeError("enough")

    config = dataclasses.replace(TINY, out=str(tmp_path / "run"), board="pico")
    with pytest.raises(RuntimeError, match="enough"):
        run(config, data=DIGITS, on_event=stop)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    limits = {"params": 4_000} | boards.limits("pico")
    assert {name: value for name, value in settings["limits"].items() if value} == limits
    with pytest.raises(InputError, match=r"board \(=z80\) must be one of"):
        run(dataclasses.replace(config, board="z80"), data=DIGITS)


def test_without_ray_one_line_names_the_extra(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "ray" else find_spec(name, *rest),
    )
    with pytest.raises(InputError, match=r"\(=ray\) needs ray: pip install 'deepmaker-jax\[ray\]'"):
        go(tmp_path / "run", executor="ray")
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_does_not_answer_is_one_line_and_no_folder(tmp_path):
    config = dataclasses.replace(TINY, address="127.0.0.1:9")
    with pytest.raises(InputError, match=r"address \(=127\.0\.0\.1:9\) is no cluster .*refused"):
        go(tmp_path / "run", config=config, executor="ray")
    assert not (tmp_path / "run").exists()
