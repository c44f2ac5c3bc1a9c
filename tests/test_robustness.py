"""Robustness from the settings to front.json: seeds, corruptions, int8, and the objective."""

import dataclasses
import json
import shutil
import statistics

import numpy as np
import pytest

from deepmaker_jax.config import Config, FinalConfig
from deepmaker_jax.events import Exported, FinalStarted, Measured
from deepmaker_jax.export import load_weights, run_tflite
from deepmaker_jax.export.model import Model
from deepmaker_jax.export.robustness import accuracies
from deepmaker_jax.robustness import document, further_seeds
from tests.tiny import DIGITS, TINY, Stopped, go, of_kind

SEARCH = dataclasses.replace(
    TINY.search, generations=1, objectives=("error", "params", "robust_error")
)
ONE = dataclasses.replace(TINY, search=SEARCH)
THREE = dataclasses.replace(ONE, final=dataclasses.replace(ONE.final, seeds=3))


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A finished run with the run's seed alone: (folder, front)."""
    out = tmp_path_factory.mktemp("once") / "run"
    return out, go(out, config=ONE)[0]


@pytest.fixture(scope="module")
def thrice(once, tmp_path_factory):
    """The same run, asked for three seeds when it was finished: (folder, front, events)."""
    out = tmp_path_factory.mktemp("thrice") / "run"
    shutil.copytree(once[0], out)
    return out, *go(out, config=THREE)


def files(out):
    paths = [out / "front.json", *(out / "robustness").iterdir(), *(out / "models").rglob("*")]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths if path.is_file()}


def of_seed(out, member, seed):
    """The weights of a member that was trained with a further seed."""
    return out / "robustness" / f"{member['id']}-seed{seed}.safetensors"


def test_further_seeds_follow_the_runs_and_begin_again_after_the_last():
    final = FinalConfig(seeds=3)
    assert further_seeds(Config(seed=5, final=final)) == [6, 7]
    assert further_seeds(Config(seed=2**31 - 1, final=final)) == [0, 1]
    assert further_seeds(Config()) == []


def test_the_objective_is_in_the_ledger_and_on_the_front(once):
    out, front = once
    assert [o["name"] for o in front["objectives"]] == ["error", "params", "robust_error"]
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    measured = [line for line in lines if line["fidelity"]["name"] == "search"]
    for line in measured:
        assert line["objectives"]["robust_error"] == 1 - line["measured"]["robust_accuracy"]
    assert len({line["objectives"]["robust_error"] for line in measured}) == 4
    (text,) = (o["how"] for o in json.loads((out / "config.json").read_text())["objectives"][2:])
    assert "corrupted validation images" in text


def test_with_one_seed_there_is_a_mean_and_no_spread(once):
    for member in once[1]["members"]:
        seeds = member["robustness"]["seeds"]
        assert seeds["test_accuracy"] == {"mean": member["test_accuracy"], "deviation": None}
        assert [each["seed"] for each in seeds["trained"]] == [0]


def test_further_seeds_leave_the_rest_of_a_finished_run_as_it_is(once, thrice):
    (before, front), (out, after, events) = once, thrice
    paths = [path for path in sorted((before / "models").rglob("*")) if path.is_file()]
    assert paths
    for path in paths:
        assert (out / path.relative_to(before)).read_bytes() == path.read_bytes()
    assert [m | {"robustness": 0} for m in after["members"]] == [
        m | {"robustness": 0} for m in front["members"]
    ]
    num = len(front["members"])
    assert of_kind(events, FinalStarted)[0].num_seeds == 3
    assert len(of_kind(events, Measured)) == 2 * num
    assert {e.name for e in of_kind(events, Measured)} == {
        f"{member['id']}-seed{seed}" for member in front["members"] for seed in (1, 2)
    }


def test_the_front_says_what_the_weights_and_the_int8_file_say(thrice):
    out, front, _ = thrice
    for member in front["members"]:
        found, bundle = member["robustness"], out / member["bundle"]
        paths = [bundle / "weights.safetensors", *(of_seed(out, member, i) for i in (1, 2))]
        runners = {str(i): Model.of("", *load_weights(path)).logits for i, path in enumerate(paths)}
        runners["int8"] = lambda x, bundle=bundle: run_tflite(bundle / "model_int8.tflite", x)
        num, wanted = accuracies(runners, DIGITS.test_images, DIGITS.test_labels)
        assert found["int8"] == wanted["int8"]
        assert found["int8"]["accuracy"] == member["int8_accuracy"]
        assert found["corruptions"] == {
            "accuracy": wanted["0"]["corrupted_accuracy"], "images": num,
            "kinds": wanted["0"]["kinds"],
        }  # fmt: skip
        trained = found["seeds"]["trained"]
        assert [each["seed"] for each in trained] == [0, 1, 2]
        assert trained[0]["test_accuracy"] == member["test_accuracy"]
        for i, each in enumerate(trained):
            assert each["test_accuracy"] == wanted[str(i)]["accuracy"]
            assert each["corrupted_accuracy"] == wanted[str(i)]["corrupted_accuracy"]
        for name in ("test_accuracy", "corrupted_accuracy"):
            values = [each[name] for each in trained]
            spread = found["seeds"][name]
            assert spread["mean"] == pytest.approx(np.mean(values))
            assert spread["deviation"] == pytest.approx(np.std(values, ddof=1))
        contents = {path.read_bytes() for path in paths}
        assert len(contents) == 3  # a seed makes a difference


@pytest.mark.parametrize("moment", ["seed", "export"])
def test_a_run_that_was_stopped_between_seeds_ends_with_the_same_bytes(
    once, thrice, tmp_path, moment
):
    out = tmp_path / "run"
    shutil.copytree(once[0], out)
    kind = Measured if moment == "seed" else Exported
    with pytest.raises(Stopped):
        go(out, config=THREE, stop=lambda event: isinstance(event, kind))
    _, events = go(out, config=THREE)
    assert files(out) == files(thrice[0])
    trained = 2 * len(thrice[1]["members"]) - 1 if moment == "seed" else 0
    assert len(of_kind(events, Measured)) == trained


def test_worker_processes_end_with_the_same_bytes_and_make_again_what_was_lost(thrice, tmp_path):
    out, front, _ = thrice
    other = tmp_path / "run"
    shutil.copytree(out, other)
    first, second = (of_seed(other, front["members"][0], seed) for seed in (1, 2))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    for path in (other / "robustness").glob("*.json"):
        path.unlink()
    _, events = go(other, config=dataclasses.replace(THREE, workers=1), executor="processes")
    assert len(of_kind(events, Measured)) == 2
    assert files(other) == files(out)


def test_a_training_that_diverged_leaves_no_spread_that_would_hide_it():
    config = Config(final=FinalConfig(seeds=3))
    finals = {
        "a": {"status": "ok"}, "a-seed1": {"status": "diverged"}, "a-seed2": {"status": "ok"},
    }  # fmt: skip
    figures = {"accuracy": 0.9, "corrupted_accuracy": 0.7, "kinds": {}}
    measured = {"images": 15, "networks": {"0": figures, "2": figures}}
    found = document("a", config, finals, measured)
    assert found["int8"] is None
    assert found["seeds"]["trained"][1] == {
        "seed": 1, "status": "diverged", "test_accuracy": None, "corrupted_accuracy": None,
    }  # fmt: skip
    assert found["seeds"]["test_accuracy"] == {"mean": None, "deviation": None}
    finals["a-seed1"] = finals["a"]
    measured["networks"]["1"] = figures | {"accuracy": 0.8}
    found = document("a", config, finals, measured)
    assert found["seeds"]["test_accuracy"] == {
        "mean": pytest.approx(statistics.fmean([0.9, 0.8, 0.9])),
        "deviation": pytest.approx(statistics.stdev([0.9, 0.8, 0.9])),
    }
