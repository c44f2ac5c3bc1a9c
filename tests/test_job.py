"""The main job, end to end on real digits, small enough for a test."""

import dataclasses
import json
import re
import shutil

import pytest

from deepmaker_jax import (
    load,
    make_dataset,
    program,
)
from deepmaker_jax.cli import main
from deepmaker_jax.errors import InputError, StorageError
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
from tests.execute.ray_workers import num_ray_processes
from tests.standin import StandIn
from tests.tiny import DIGITS, TINY, Stopped, go, of_kind

WITHOUT_EXPORT = dataclasses.replace(TINY.final, export=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run: (folder, front, events)."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, *go(out)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The same without the export: (settings, folder, front)."""
    config = dataclasses.replace(TINY, final=WITHOUT_EXPORT)
    out = tmp_path_factory.mktemp("bare") / "run"
    return config, out, go(out, config=config)[0]


def files(out):
    """The files that must not depend on time or place."""
    names = [out / "front.json", *sorted((out / "models").rglob("*"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in names if path.is_file()}


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


def test_a_run_that_was_stopped_twice_ends_with_the_same_bytes(whole, tmp_path):
    """In the search, and while its members are exported."""
    out, _, _ = whole

    def early(event):
        return isinstance(event, Measured) and event.num_done == 2

    for stop in (early, lambda event: isinstance(event, Exported)):
        with pytest.raises(Stopped):
            go(tmp_path / "run", stop=stop)
    _, events = go(tmp_path / "run")
    assert files(tmp_path / "run") == files(out)
    assert of_kind(events, Started)[0].num_known > 0
    lines = (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    measured = [(json.loads(line)["id"], str(json.loads(line)["fidelity"])) for line in lines]
    assert len(measured) == len(set(measured))


def test_a_run_on_a_cluster_ends_with_the_bytes_of_an_inline_one(bare, tmp_path, capfd):
    """Without a word of Ray's, and no process of it is left."""
    config, out, _ = bare
    config = dataclasses.replace(config, workers=2)
    _, events = go(tmp_path / "run", config=config, executor="ray")
    assert of_kind(events, Started)[0].num_workers == 2
    assert files(tmp_path / "run") == files(out)
    assert not re.search("ray", "".join(capfd.readouterr()), re.IGNORECASE)
    assert num_ray_processes() == 0


def test_a_finished_run_does_nothing_again(whole):
    out, front, _ = whole
    before = files(out), (out / "ledger.jsonl").read_bytes()
    again, events = go(out)
    assert again == front
    assert not of_kind(events, Measured)
    assert (files(out), (out / "ledger.jsonl").read_bytes()) == before


def test_another_setting_on_the_same_folder_is_refused(whole):
    out, _, _ = whole
    with pytest.raises(InputError, match=r"holds another run: seed \(was 0, now 1\)"):
        go(out, config=dataclasses.replace(TINY, seed=1))


def test_a_finished_run_goes_on_with_more_generations(bare, tmp_path):
    config, _, front = bare
    search = dataclasses.replace(TINY.search, generations=2)
    shorter, _ = go(tmp_path / "run", config=dataclasses.replace(config, search=search))
    grown, events = go(tmp_path / "run", config=config)
    assert grown == front
    assert of_kind(events, Started)[0].num_known >= 8
    assert json.loads((tmp_path / "run" / "front.1.json").read_text()) == shorter


def test_a_finished_run_takes_in_more_members_and_says_who_is_none_any_more(bare, tmp_path):
    config, _, front = bare
    assert len(front["members"]) == 2
    fewer = dataclasses.replace(config, final=dataclasses.replace(config.final, members=1))
    one, _ = go(tmp_path / "run", config=fewer)
    two, events = go(tmp_path / "run", config=config)
    assert two == front
    assert not [e for e in of_kind(events, Note) if "no members any more" in e.text]
    again, events = go(tmp_path / "run", config=fewer)
    assert again == one
    (left,) = {m["id"] for m in two["members"]} - {m["id"] for m in one["members"]}
    (note,) = of_kind(events, Note)
    assert note.text.startswith(f"no members any more, though trained in full before: {left}; ")
    assert (tmp_path / "run" / "models" / left / "weights.safetensors").exists()


def test_two_runs_on_one_folder_are_refused(tmp_path):
    def second(event):
        if isinstance(event, Measured):
            with pytest.raises(InputError, match="is in use by another"):
                go(tmp_path / "run")
            return True
        return False

    with pytest.raises(Stopped):
        go(tmp_path / "run", stop=second)


def test_a_run_whose_folder_is_removed_stops_and_brings_nothing_back(tmp_path):
    def remove(event):
        # Between generations: else the next candidate, in a thread of its own, may be done by then.
        if isinstance(event, GenerationStarted) and event.generation == 1:
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(StorageError, match=r"msgpack cannot be written \(its folder is gone"):
        go(tmp_path / "run", stop=remove)
    assert not (tmp_path / "run").exists()


def test_an_asynchronous_run_says_what_it_is_and_a_finished_one_does_nothing_again(tmp_path):
    search = dataclasses.replace(TINY.search, mode="asynchronous")
    config = dataclasses.replace(TINY, search=search, final=WITHOUT_EXPORT)
    front, events = go(tmp_path / "run", config=config)
    assert [e.num_candidates for e in of_kind(events, GenerationDone)] == [4, 8, 12]
    assert len(of_kind(events, Measured)) == 12 + len(front["members"])
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    assert document["reproducible"] is False
    assert document["reason"] == "an asynchronous search depends on what ends first"
    before = files(tmp_path / "run")
    again, events = go(tmp_path / "run", config=config)
    assert again == front
    assert of_kind(events, Measured) == []
    assert files(tmp_path / "run") == before


def test_the_version_of_what_preselects_is_that_of_a_run_that_preselects(halved, bare):
    named = [
        json.loads((out / "config.json").read_text())["versions"] for out in (halved[1], bare[1])
    ]
    assert [sorted(program.versions().keys() - names) for names in named] == [[], ["scikit-learn"]]


@pytest.mark.parametrize("checkpoints", ["kept", "lost"])
def test_with_rungs_and_preselection_a_run_ends_with_the_same_bytes_wherever_it_trains(
    halved, tmp_path, checkpoints
):
    """Stopped at the second rung, in workers, with and without what its candidates go on from."""
    config, out = halved

    def stop(event):
        return isinstance(event, Measured) and event.record["fidelity"].get("rungs") == [1, 2]

    with pytest.raises(Stopped):
        go(tmp_path / "run", config=config, stop=stop)
    begun = tmp_path / "run" / "checkpoints" / "search"
    assert list(begun.iterdir())
    if checkpoints == "lost":
        shutil.rmtree(begun)
    _, events = go(tmp_path / "run", config=config, executor="processes")
    assert files(tmp_path / "run") == files(out)
    assert len(of_kind(events, Measured)) == 4 * (4 + 2) - 5 + 2
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """Settings with rungs, and the folder of a run with them that nobody stopped."""
    search = dataclasses.replace(
        TINY.search, epochs=2, rungs=2, reduction=2, oversample=2, generations=4,
        strategy="nsga3", mutation="step",
    )  # fmt: skip
    final = dataclasses.replace(TINY.final, export=False)
    config = dataclasses.replace(TINY, search=search, final=final)
    out = tmp_path_factory.mktemp("halved") / "run"
    front, _ = go(out, config=config)
    epochs = [
        record["fidelity"]["epochs"]
        for record in map(json.loads, (out / "ledger.jsonl").read_text().splitlines())
        if record["fidelity"]["name"] == "search"
    ]
    assert epochs == [1, 1, 1, 1, 2, 2] * 4
    final_fidelity = json.loads((out / "ledger.jsonl").read_text().splitlines()[-1])["fidelity"]
    assert "rungs" not in final_fidelity
    assert front["members"]
    return config, out


def test_a_time_limit_for_candidates_is_recorded_as_what_is_not_repeatable(tmp_path):
    search = dataclasses.replace(TINY.search, time_limit_seconds=60.0)
    with pytest.raises(Stopped):
        go(
            tmp_path / "run",
            config=dataclasses.replace(TINY, search=search),
            stop=lambda event: isinstance(event, Started),
        )
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    assert document["reason"] == "search.time-limit-seconds is measured by a clock"


def test_a_run_in_which_everything_fails_ends_with_an_empty_front(tmp_path):
    train = dataclasses.replace(TINY.train, sgd_learning_rate=1e30)
    front, events = go(tmp_path / "run", config=dataclasses.replace(TINY, train=train))
    assert front["members"] == []
    assert {e.record["status"] for e in of_kind(events, Measured)} == {"diverged"}
    assert "no candidate could be trained in full: see" in of_kind(events, Note)[0].text
    assert main(["report", str(tmp_path / "run")]) == 0


def test_a_run_in_which_nobody_comes_through_the_last_rung_says_how_far_its_front_came(
    tmp_path, monkeypatch
):
    class Failing(StandIn):
        def submit(self, unit):
            super().submit(unit)
            self._failing = {u.id for u in self.units if (u.stage, u.num_epochs) == ("search", 2)}

    search = dataclasses.replace(TINY.search, epochs=2, rungs=2, reduction=2, generations=1)
    config = dataclasses.replace(TINY, search=search, final=WITHOUT_EXPORT)
    with monkeypatch.context() as patched:
        patched.setattr("deepmaker_jax.job._executor", lambda *_: Failing())
        with pytest.raises(Stopped):
            go(tmp_path / "run", config=config, stop=lambda e: isinstance(e, FinalStarted))
    front, events = go(tmp_path / "run", config=config)
    assert of_kind(events, Note)[0].text == (
        "no candidate came through all 2 epochs (see the reasons in the ledger): the front is of "
        "those measured after 1"
    )
    assert front["members"]
    text = (tmp_path / "run" / "ledger.jsonl").read_text()
    lines = list(map(json.loads, text.splitlines()))
    found = {r["id"]: r for r in lines if r["fidelity"].get("rungs") == [1]}
    for member in front["members"]:
        assert member["status"] == "ok"
        assert member["val_accuracy"] == found[member["id"]]["measured"]["val_accuracy"]
    assert main(["show", str(tmp_path / "run")]) == 0


def test_a_run_that_lost_candidates_says_so_and_goes_on_as_if_it_had_not(
    bare, tmp_path, monkeypatch
):
    class Dying(StandIn):
        def results(self):
            self._failing = {unit.id for unit in self.units}
            yield from super().results()

    settings, out, _ = bare
    failure = ("failed", "its worker died (signal 9)")
    with monkeypatch.context() as patched:
        patched.setattr("deepmaker_jax.job._executor", lambda *_: Dying(failure=failure))
        _, events = go(tmp_path / "run", config=settings)
    notes = [event.text for event in of_kind(events, Note)]
    assert "12 measurements were lost with their workers: run it again to make them" in notes
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["reproducible"], config["reason"]) == (False, notes[-1])
    (tmp_path / "run" / "front.json").unlink()
    go(tmp_path / "run", config=settings)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["reproducible"], config["reason"]) == (True, None)
    assert files(tmp_path / "run") == files(out)


def test_one_worker_process_without_export_comes_to_the_same_weights_and_accuracies(
    whole, tmp_path
):
    out, front, _ = whole
    config = dataclasses.replace(TINY, final=WITHOUT_EXPORT, workers=1)
    same, _ = go(tmp_path / "run", config=config, executor="processes")
    unexported = {"bundle": None, "int8_bytes": None, "int8_accuracy": None}
    expected = [
        member | unexported | {"robustness": member["robustness"] | {"int8": None}}
        for member in front["members"]
    ]
    assert same["members"] == expected
    found = {name: data for name, data in files(out).items() if name.endswith(".safetensors")}
    assert found
    assert {n: d for n, d in files(tmp_path / "run").items() if n != "front.json"} == found


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
