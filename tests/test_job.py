"""The main job, end to end on real digits, small enough for a test."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import cifar10
from deepmaker_jax import (
    Config,
    Gene,
    Objective,
    Space,
    latency,
    load,
    load_data,
    make_dataset,
    run,
)
from deepmaker_jax.backends import boards
from deepmaker_jax.cli import main
from deepmaker_jax.config import FinalConfig, LimitConfig, SearchConfig, SpaceConfig, TrainConfig
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import (
    Exported,
    FinalStarted,
    Finished,
    GenerationDone,
    GenerationStarted,
    Measured,
    Note,
    Started,
)
from deepmaker_jax.export import read_bundle
from experiments import digits
from tests.examples import LAST, SMALL
from tests.standin import StandIn

ROOT = pathlib.Path(__file__).parent.parent
TINY = Config(
    validation_share=0.2,
    space=SpaceConfig(only=("optimizer=sgd", "activation=relu", "stages=1", "bottleneck=0")),
    limits=LimitConfig(params=4_000),
    search=SearchConfig(population=4, generations=3, epochs=2, objectives=("error", "params")),
    train=TrainConfig(batch_size=64),
    final=FinalConfig(members=2, epochs=4, calibration_images=64),
)
# The command line of the same, without the defaults.
ARGS = [
    "demo", "--space.only", "optimizer=sgd", "activation=relu", "stages=1", "bottleneck=0",
    "--limits.params", "4000", "--search.population", "4", "--search.generations", "3",
    "--search.epochs", "2", "--final.members", "2", "--final.epochs", "4",
    "--final.calibration-images", "64",
]  # fmt: skip


class Stopped(Exception):  # noqa: N818 - it stands for a Ctrl-C
    pass


def go(out, *, config=TINY, stop=None, **rest):
    """Runs into `out`; returns (front, events). `stop(event)` true ends it like a Ctrl-C."""
    events = []

    def on_event(event):
        events.append(event)
        if stop and stop(event):
            raise Stopped

    config = dataclasses.replace(config, out=str(out), executor=rest.pop("executor", "inline"))
    front = run(config, data=rest.pop("data", DIGITS), on_event=on_event, **rest)
    return front, events


DIGITS = load_data("digits")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run: (folder, front, events)."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, *go(out)


def files(out):
    """The files that must not depend on time or place."""
    names = [out / "front.json", *sorted((out / "models").rglob("*"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in names if path.is_file()}


def files_below(folder):
    """Every file's bytes by name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_the_run_folder_has_what_the_contract_says(whole):
    out, front, _ = whole
    assert front == json.loads((out / "front.json").read_text())
    config = json.loads((out / "config.json").read_text())
    assert config["reproducible"] is True
    assert config["program"] == {
        "strategy": "map", "final_strategy": "map",
        "size_class": [f"{size}-{k}x{k}" for size in ("small", "medium", "large") for k in (3, 5)],
        "lanes": 1, "threads": 1, "device": "cpu",
    }  # fmt: skip
    assert config["data"]["fingerprint"] == DIGITS.fingerprint
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert [line["fidelity"]["name"] for line in lines].count("search") == 12
    assert not (out / "checkpoints").exists()
    for member in front["members"]:
        bundle = out / member["bundle"]
        assert sorted(path.name for path in bundle.iterdir()) == [
            "manifest.json", "model.jax_export", "model.onnx", "model.stablehlo.mlirbc",
            "model_dynamic.tflite", "model_f16.tflite", "model_f32.tflite", "model_int8.tflite",
            "reference.npz", "weights.safetensors",
        ]  # fmt: skip


def test_the_front_is_sorted_and_its_numbers_are_the_ledgers_and_the_manifests(whole):
    out, front, _ = whole
    assert front["objectives"] == [
        {"name": "error", "unit": "share", "scale": "linear"},
        {"name": "params", "unit": "parameters", "scale": "log2"},
    ]
    members = front["members"]
    assert 1 <= len(members) <= 2
    keys = [(m["objectives"]["error"], m["objectives"]["params"], m["id"]) for m in members]
    assert keys == sorted(keys)
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    found = {line["id"]: line for line in lines if line["fidelity"]["name"] == "search"}
    for member in members:
        assert member["objectives"] == found[member["id"]]["objectives"]
        assert member["val_accuracy"] == found[member["id"]]["measured"]["val_accuracy"]
        manifest = read_bundle(out / member["bundle"])
        assert member["test_accuracy"] == manifest["files"]["weights.safetensors"]["accuracy"]
        assert member["int8_bytes"] == manifest["files"]["model_int8.tflite"]["bytes"]
    assert members[0]["test_accuracy"] > 0.5


def test_events_tell_the_whole_story_in_order(whole):
    _, front, events = whole
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert [e.num_candidates for e in of_kind(events, GenerationDone)] == [4, 8, 12]
    assert len(of_kind(events, Measured)) == 12 + len(front["members"])
    (final,) = of_kind(events, FinalStarted)
    assert final.ids == [member["id"] for member in front["members"]]
    assert len(of_kind(events, Exported)) == len(front["members"])


def test_a_bundle_rebuilds_the_network_that_was_measured(whole):
    out, front, _ = whole
    member = front["members"][0]
    model = load(out / member["bundle"])
    logits = model.logits(DIGITS.test_images)
    accuracy = float((logits.argmax(-1) == DIGITS.test_labels).mean())
    assert accuracy == member["test_accuracy"]


def test_the_same_seed_in_another_folder_and_other_processes_gives_the_same_bytes(whole, tmp_path):
    out, _, _ = whole
    go(tmp_path / "other", executor="processes")
    assert files(tmp_path / "other") == files(out)


@pytest.mark.parametrize("moment", ["search", "final", "export"])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(whole, tmp_path, moment):
    out, _, _ = whole

    def stop(event):
        if moment == "search":
            return isinstance(event, Measured) and event.num_done == 2
        if moment == "final":
            return isinstance(event, Measured) and event.stage == "final"
        return isinstance(event, Exported)

    with pytest.raises(Stopped):
        go(tmp_path / "run", stop=stop)
    _, events = go(tmp_path / "run")
    assert files(tmp_path / "run") == files(out)
    assert of_kind(events, Started)[0].num_known > 0
    lines = (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    measured = [(json.loads(line)["id"], str(json.loads(line)["fidelity"])) for line in lines]
    assert len(measured) == len(set(measured))


def test_a_finished_run_does_nothing_again(whole):
    out, front, _ = whole
    before = files(out), (out / "ledger.jsonl").read_bytes()
    again, events = go(out)
    assert again == front
    assert not of_kind(events, Measured)
    assert (files(out), (out / "ledger.jsonl").read_bytes()) == before


def test_lost_weights_are_trained_again_to_the_same_bytes(tmp_path):
    front, _ = go(tmp_path / "run")
    before = files(tmp_path / "run")
    (tmp_path / "run" / front["members"][0]["bundle"] / "weights.safetensors").unlink()
    go(tmp_path / "run")
    assert files(tmp_path / "run") == before


def test_another_setting_on_the_same_folder_is_refused(whole):
    out, _, _ = whole
    with pytest.raises(InputError, match=r"holds another run: seed \(was 0, now 1\)"):
        go(out, config=dataclasses.replace(TINY, seed=1))


def test_a_finished_run_goes_on_with_more_generations(whole, tmp_path):
    _, front, _ = whole
    search = dataclasses.replace(TINY.search, generations=2)
    shorter, _ = go(tmp_path / "run", config=dataclasses.replace(TINY, search=search))
    grown, events = go(tmp_path / "run")
    assert grown == front
    assert of_kind(events, Started)[0].num_known >= 8
    assert json.loads((tmp_path / "run" / "front.1.json").read_text()) == shorter


def test_two_runs_on_one_folder_are_refused(tmp_path):
    def second(event):
        if isinstance(event, Measured):
            with pytest.raises(InputError, match="is in use by another"):
                go(tmp_path / "run")
            return True
        return False

    with pytest.raises(Stopped):
        go(tmp_path / "run", stop=second)


def test_a_run_in_which_everything_fails_ends_with_an_empty_front(tmp_path):
    train = dataclasses.replace(TINY.train, sgd_learning_rate=1e30)
    front, events = go(tmp_path / "run", config=dataclasses.replace(TINY, train=train))
    assert front["members"] == []
    assert {e.record["status"] for e in of_kind(events, Measured)} == {"diverged"}
    assert "no candidate could be trained" in of_kind(events, Note)[0].text
    assert main(["report", str(tmp_path / "run")]) == 0


def test_a_run_that_lost_candidates_says_so_and_goes_on_as_if_it_had_not(
    whole, tmp_path, monkeypatch
):
    class Dying(StandIn):
        def results(self):
            self._failing = {unit.id for unit in self.units}
            yield from super().results()

    failure = ("failed", "its worker died (signal 9)")
    with monkeypatch.context() as patched:
        patched.setattr("deepmaker_jax.job._executor", lambda *_: Dying(failure=failure))
        _, events = go(tmp_path / "run")
    notes = [event.text for event in of_kind(events, Note)]
    assert "12 measurements were lost with their workers: run it again to make them" in notes
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["reproducible"], config["reason"]) == (False, notes[-1])
    (tmp_path / "run" / "front.json").unlink()
    go(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["reproducible"], config["reason"]) == (True, None)
    assert files(tmp_path / "run") == files(whole[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"measure": lambda m: m["speed"]}, "objective mine raises KeyError"),
        ({"measure": lambda m: float("nan")}, r"objective mine \(=nan\) must be a finite number"),
        ({"scale": "log10"}, "must have scale linear or log2"),
        ({"ideal": 5.0}, "an ideal below its reference"),
        ({"reference": float("inf")}, "an ideal below its reference"),
        ({"scale": "log2"}, "must be above 0 on a log2 scale"),
    ],
)
def test_an_objective_that_cannot_work_is_refused_before_training(tmp_path, changed, message):
    mine = Objective("mine", "s", "linear", 0.0, 1.0, lambda m: 0.5)._replace(**changed)
    error = Objective("error", "share", "linear", 0.0, 1.0, lambda m: m["val_error"])
    with pytest.raises(InputError, match=message):
        go(tmp_path / "run", objectives=(error, mine))
    assert not (tmp_path / "run").exists()


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


def test_without_export_the_front_has_accuracies_and_no_bundles(tmp_path):
    config = dataclasses.replace(TINY, final=dataclasses.replace(TINY.final, export=False))
    front, _ = go(tmp_path / "run", config=config)
    assert all(member["bundle"] is None for member in front["members"])
    assert front["members"][0]["test_accuracy"] > 0.5


def test_test_images_decide_nothing(whole, tmp_path):
    """Another test set: same genomes, same weights, same int8 file; other accuracies."""
    out, front, _ = whole
    other = make_dataset(
        "digits",
        train_images=DIGITS.train_images,
        train_labels=DIGITS.train_labels,
        test_images=DIGITS.test_images[::-1] // 2,
        test_labels=DIGITS.test_labels,
        class_names=DIGITS.class_names,
        source="spoiled",
    )
    spoiled, _ = go(tmp_path / "run", data=other)
    for a, b in zip(front["members"], spoiled["members"], strict=True):
        assert (a["id"], a["val_accuracy"]) == (b["id"], b["val_accuracy"])
        assert b["test_accuracy"] < a["test_accuracy"]
        for name in ("weights.safetensors", "model_int8.tflite"):
            first = (out / a["bundle"] / name).read_bytes()
            assert first == (tmp_path / "run" / b["bundle"] / name).read_bytes()


def test_the_command_line_runs_shows_reports_and_trains_longer(tmp_path, capsys):
    out = tmp_path / "run"
    assert digits.main([*ARGS, "--out", str(out), "--executor", "inline"]) == 0
    said = capsys.readouterr()
    front = json.loads((out / "front.json").read_text())
    for member in front["members"]:
        assert f" {member['id']} mcu: ok, 3 of 4 files" in said.out
    assert "generation 2 done: 12 candidates" in said.err
    assert (out / "report.html").stat().st_size > 20_000
    assert (out / "front.png").exists()
    assert main(["show", str(out)]) == 0
    assert front["members"][0]["id"] in capsys.readouterr().out
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == page
    best = front["members"][0]["id"]
    capsys.readouterr()
    assert main(["train", str(out), best, "--epochs", "2"]) == 0
    said = capsys.readouterr()
    assert "epoch 2/2: loss " in said.out
    assert "model_int8.tflite" in said.out
    added = out / "longer" / f"{best}-2"
    longer = load(added / "models" / best)
    assert longer.logits(DIGITS.test_images).shape == (len(DIGITS.test_labels), 10)
    before = files_below(added)
    assert main(["train", str(out), best, "--epochs", "2"]) == 0
    assert "epoch" not in capsys.readouterr().out  # it was there: nothing is paid again
    assert files_below(added) == before
    assert main(["train", str(out), best, "--epochs", "3", "--out", str(added)]) == 2
    assert "holds another training" in capsys.readouterr().err
    assert main(["train", str(out), "0" * 12]) == 2
    assert "must be one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "moment", "executor"),
    [
        (signal.SIGINT, 130, "generation 0: ", "processes"),  # workers are still importing
        (signal.SIGTERM, 143, "1/4 ", "inline"),
        (signal.SIGINT, 130, "final training: ", "processes"),
    ],
)
def test_a_signal_to_the_whole_group_ends_it_cleanly_with_the_command_that_resumes(
    tmp_path, number, code, moment, executor
):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.digits", *ARGS, "--out", str(out)]
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, "--executor", executor],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said, sent = [], False
    for line in process.stderr:
        said.append(line)
        if line.startswith(moment) and not sent:
            os.killpg(process.pid, number)  # as a terminal does
            sent = True
    assert process.wait() == code
    process.stdout.close()
    process.stderr.close()
    assert "python -m experiments.digits demo" in said[-1]
    assert str(out) in said[-1]
    assert "Traceback" not in "".join(said)
    assert len(said) == len(set(said))
    assert not (out / "checkpoints" / "shared").exists()
    deadline = time.monotonic() + 20  # Python's own resource tracker takes a moment
    while _of_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _of_session(process.pid) == []


def _of_session(pid):
    """Processes of the session that `pid` began: none may be left."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == pid:
            found.append(entry.parent.name)
    return found


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
    """Their space, objectives and recipe; 4 genomes (the least), 2 generations, 1 epoch."""
    config = cifar10.PRESETS[preset]()
    config = dataclasses.replace(
        config,
        space=dataclasses.replace(config.space, only=only),
        search=dataclasses.replace(config.search, population=4, generations=2, epochs=1),
        final=dataclasses.replace(config.final, members=1, epochs=1),
        train=dataclasses.replace(config.train, batch_size=50),
    )
    front, events = go(tmp_path / "run", config=config, data=pictures)
    assert len(of_kind(events, Measured)) == 8 + 1
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
