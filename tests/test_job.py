"""The main job, end to end on real digits, small enough for a test."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from configs import cifar10
from deepmaker_jax import Config, load, load_data, make_dataset, run
from deepmaker_jax.cli import main
from deepmaker_jax.config import FinalConfig, LimitConfig, SearchConfig, SpaceConfig, TrainConfig
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Exported, FinalStarted, Finished, GenerationDone, Measured, Started
from deepmaker_jax.export import read_bundle
from experiments import digits

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


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_the_run_folder_has_what_the_contract_says(whole):
    out, front, _ = whole
    assert front == json.loads((out / "front.json").read_text())
    config = json.loads((out / "config.json").read_text())
    assert config["reproducible"] is True
    assert config["program"] == {
        "strategy": "plain", "size_class": None, "lanes": 1, "threads": 1, "device": "cpu",
    }  # fmt: skip
    assert config["data"]["fingerprint"] == DIGITS.fingerprint
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert [line["fidelity"]["name"] for line in lines].count("search") == 12
    assert not (out / "checkpoints").exists()
    for member in front["members"]:
        bundle = out / member["bundle"]
        assert sorted(path.name for path in bundle.iterdir()) == [
            "manifest.json", "model_f32.tflite", "model_int8.tflite", "reference.npz",
            "weights.safetensors",
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
        assert member["test_accuracy"] > 0.5


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


def test_without_export_the_front_has_accuracies_and_no_bundles(tmp_path):
    config = dataclasses.replace(TINY, final=dataclasses.replace(TINY.final, export=False))
    front, _ = go(tmp_path / "run", config=config)
    assert all(member["bundle"] is None for member in front["members"])
    assert all(member["test_accuracy"] > 0.5 for member in front["members"])


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
        assert member["id"] in said.out
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
    longer = load(out / "longer" / f"{best}-2")
    assert longer.logits(DIGITS.test_images).shape == (len(DIGITS.test_labels), 10)
    assert main(["train", str(out), best, "--epochs", "2"]) == 2
    assert "holds a finished bundle" in capsys.readouterr().err
    assert main(["train", str(out), "0" * 12]) == 2
    assert "must be one of" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly_with_the_command_that_resumes(tmp_path, number, code):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.digits", *ARGS, "--out", str(out)]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("1/4 "):
            process.send_signal(number)
    assert process.wait() == code
    process.stdout.close()
    process.stderr.close()
    assert "python -m experiments.digits demo" in said[-1]
    assert str(out) in said[-1]
    assert "Traceback" not in "".join(said)
    assert len((out / "ledger.jsonl").read_text().splitlines()) >= 1
    assert not (out / "checkpoints" / "shared").exists()
    assert _children_of(process.pid) == []


def _children_of(pid):
    """Processes whose parent is or was `pid`'s group: none may be left."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
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
    """Their space, objectives and recipe; 4 genomes, 2 generations, 1 epoch."""
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
    assert os.path.getsize(tmp_path / "run" / front["members"][0]["bundle"] / "model_int8.tflite")
