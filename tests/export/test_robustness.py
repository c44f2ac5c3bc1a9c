"""Accuracies under corruptions against a plain count, and figures that are measured once."""

import json

import numpy as np
import pytest

from deepmaker_jax.data.corruption import KINDS, SEVERITIES, corrupt
from deepmaker_jax.export import robustness
from deepmaker_jax.export.check_run import check_run
from deepmaker_jax.export.model import Model
from deepmaker_jax.export.robustness import accuracies, measure
from deepmaker_jax.export.weights import load_weights, save_weights
from deepmaker_jax.files import write_document
from deepmaker_jax.train.init import random_variables
from tests.examples import SMALL

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 8, 8, 1)).astype(np.uint8)
LABELS = RNG.integers(0, 10, 50).astype(np.int32)


def by_brightness(images):
    """Ten classes, by the mean of a picture's first column."""
    means = images[:, :, 0].mean((1, 2))
    return -np.abs(means[:, None] - np.linspace(60, 200, 10)).astype(np.float32)


def classes(images):
    return by_brightness(images).argmax(-1)


def test_they_are_shares_of_all_corruptions_of_all_images():
    labels = classes(IMAGES)
    num, found = accuracies({"a": by_brightness}, IMAGES, labels)
    assert num == 50 * len(KINDS) * len(SEVERITIES)
    wanted = {
        kind: {
            str(s): np.mean(classes(corrupt(IMAGES, kind, severity=s, seed=0)) == labels)
            for s in SEVERITIES
        }
        for kind in KINDS
    }
    assert found["a"]["accuracy"] == 1
    assert found["a"]["kinds"] == wanted
    mean = np.mean([list(severities.values()) for severities in wanted.values()])
    assert found["a"]["corrupted_accuracy"] == pytest.approx(mean)
    assert 0 < mean < 1


def test_of_many_images_each_meets_a_few_and_the_share_is_of_these(monkeypatch):
    monkeypatch.setattr(robustness, "AT_LEAST", 70)
    seen = []

    def run(images):
        seen.append(len(images))
        return by_brightness(images)

    num, found = accuracies({"a": run}, IMAGES, LABELS)
    assert (num, sum(seen)) == (100, 50 + 100)
    shares = [share for kind in found["a"]["kinds"].values() for share in kind.values()]
    right = np.dot(shares, np.array(seen[1:]).reshape(3, 5).T.ravel())
    assert found["a"]["corrupted_accuracy"] == pytest.approx(right / 100)


def test_fewer_images_than_corruptions_still_meet_all_of_them():
    num, found = accuracies({"a": by_brightness}, IMAGES[:2], LABELS[:2])
    assert num == 2 * 15
    assert all(len(kind) == 3 for kind in found["a"]["kinds"].values())


@pytest.fixture
def weights(tmp_path):
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("0", "1")}
    for seed, path in paths.items():
        save_weights(path, SMALL, random_variables(SMALL, seed=int(seed)))
    return paths


def test_a_members_figures_are_its_networks_own(tmp_path, weights):
    found = measure(tmp_path / "figures.json", weights, None, IMAGES, LABELS)
    assert found["networks"].keys() == {"0", "1"}
    for seed, path in weights.items():
        logits = Model.of(seed, *load_weights(path)).logits
        assert found["networks"][seed] == accuracies({"": logits}, IMAGES, LABELS)[1][""]
    assert json.loads((tmp_path / "figures.json").read_text()) == found


def test_what_was_measured_is_kept_until_something_else_is_asked(tmp_path, weights, monkeypatch):
    out = tmp_path / "figures.json"
    first = measure(out, weights, None, IMAGES, LABELS)
    before = out.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(robustness, "accuracies", None)  # not called again
        assert measure(out, weights, None, IMAGES, LABELS) == first
    out.write_bytes(before[:-20])  # damaged
    assert measure(out, weights, None, IMAGES, LABELS) == first
    assert out.read_bytes() == before
    other = measure(out, weights, None, IMAGES, 9 - LABELS)
    assert other["made_from"] != first["made_from"]
    fewer = measure(out, {"0": weights["0"]}, None, IMAGES, LABELS)
    assert fewer["networks"] == {"0": first["networks"]["0"]}


def test_check_finds_figures_and_weights_that_are_damaged(tmp_path):
    """Of the seeds whose weights lie beside the figures; a bundle's are its manifest's."""
    run, variables = tmp_path / "run", random_variables(SMALL)
    own, further = (run / place / "a.safetensors" for place in ("models", "robustness"))
    for path in (own, further):
        path.parent.mkdir(parents=True)
        save_weights(path, SMALL, variables)
    figures = run / "robustness" / "a.json"
    measure(figures, {"0": own, "1": further}, None, IMAGES, LABELS)

    def findings():
        return [found for found in check_run(run) if found.path.parent == figures.parent]

    assert {f.path: f.verdict for f in findings()} == {figures: "whole", further: "whole"}
    data = further.read_bytes()
    further.write_bytes(data[:-1])
    _, found = findings()
    assert (found.path, found.verdict) == (further, "damaged")
    assert found.text == "does not match its sum in a.json: run its experiment again"
    further.unlink()
    assert [f.verdict for f in findings()] == ["whole", "missing"]
    further.write_bytes(data)
    document = json.loads(figures.read_text())
    for wrong in ({"../a": {}}, {"a.safetensors": 1}, [], None):
        write_document(figures, document | {"files": wrong})
        (found,) = findings()
        assert (found.path, found.verdict) == (figures, "damaged")
        assert "does not list its weights" in found.text
    write_document(figures, document | {"id": "b"})
    (found,) = findings()
    assert (found.verdict, found.text) == ("damaged", "is that of 'b': run its experiment again")
