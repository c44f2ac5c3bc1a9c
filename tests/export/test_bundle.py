"""Bundles: whole, true to JAX, the same every time."""

import copy
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import deepmaker_jax
from deepmaker_jax import arch as architecture
from deepmaker_jax.errors import InputError
from deepmaker_jax.export import Model, digest, export_bundle, onnx, read_bundle, stablehlo, tflite
from deepmaker_jax.export import bundle as bundling
from deepmaker_jax.export import run as runtime
from deepmaker_jax.export.bundle import FILES
from deepmaker_jax.export.formats import FORMATS
from deepmaker_jax.export.manifest import write_manifest
from deepmaker_jax.export.operators import operators
from deepmaker_jax.files import sha256, write_json
from tests.export.networks import CASES, random_images, random_variables

NAME = "hard_swish, harmonic, stem pool, 28 to 3"
ARCH = CASES[NAME]
ID = "0123456789ab"
NUM_TEST = 120
TFLITE = ("model_f32.tflite", "model_f16.tflite", "model_dynamic.tflite", "model_int8.tflite")
ENTRY_KEYS = {"status", "reason", "bytes", "sha256", "tool", "parity", "accuracy", "cost"}


def arguments():
    rng = np.random.default_rng(2)
    return {
        "id": ID,
        "arch": ARCH,
        "variables": random_variables(ARCH),
        "calibration_images": random_images(ARCH, num=8, seed=1),
        "test_images": random_images(ARCH, num=NUM_TEST, seed=2),
        "test_labels": rng.integers(0, 10, NUM_TEST).astype(np.int32),
        "calibration_seed": 5,
    }


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Returns (path, manifest) of a bundle; not to be changed."""
    path = tmp_path_factory.mktemp("first") / ID
    return path, export_bundle(path, **arguments())


@pytest.fixture
def copied(made, tmp_path):
    return pathlib.Path(shutil.copytree(made[0], tmp_path / "run" / ID))


def no_conversion(*args):
    raise AssertionError("converted again")


def test_manifest_holds_what_the_contract_says(made):
    path, manifest = made
    assert manifest == json.loads((path / "manifest.json").read_text())
    assert manifest["id"] == ID
    assert architecture.from_json(manifest["arch"]) == ARCH
    assert manifest["input"] == {
        "shape": [1, 28, 28, 1], "dtype": "float32", "layout": "NHWC", "classes": 10,
    }  # fmt: skip
    listed = set(manifest["files"])
    assert listed == {p.name for p in path.iterdir()} - {"manifest.json"}
    assert listed == {
        "weights.safetensors", *TFLITE, "model.stablehlo.mlirbc", "model.jax_export",
        "model.onnx", "reference.npz",
    }  # fmt: skip
    for name, entry in manifest["files"].items():
        data = (path / name).read_bytes()
        more = {"operators"} if name in TFLITE else set()
        few_bits = ("model_f16.tflite", "model_dynamic.tflite", "model_int8.tflite")
        more |= {"calibration"} if name in few_bits else set()
        assert set(entry) == ENTRY_KEYS | more
        assert (entry["status"], entry["reason"]) == ("ok", None)
        assert entry["bytes"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        for cost in (entry["cost"] or {}).values():
            assert set(cost) == {"value", "unit", "how", "sum"}


def run_again(path, images):
    file = path.read_bytes()
    if path.suffix == ".tflite":
        return runtime.run_tflite(path, images)
    if path.suffix == ".onnx":
        return runtime.run_onnx(path, images)
    if path.name == "model.jax_export":
        return stablehlo.run_jax_export(file, images)
    if path.name == "model.stablehlo.mlirbc":
        return stablehlo.run_stablehlo(file, images, 10)
    return deepmaker_jax.load(path.parent).logits(images)


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.path)
def test_parity_and_accuracy_are_of_all_test_images(made, format):
    path, manifest = made
    entry, given = manifest["files"][format.path], arguments()
    logits = Model.of(ID, ARCH, given["variables"]).logits(given["test_images"])
    found = run_again(path / format.path, given["test_images"])
    best = np.sort(logits)[:, -2:]
    assert entry["parity"] == {
        "max_abs_error": float(abs(found - logits).max()),
        "top1_agreement": float(np.mean(found.argmax(1) == logits.argmax(1))),
        "images": NUM_TEST,
        "close_images": np.sum(best[:, 1] - best[:, 0] <= 1e-4 * np.ptp(logits)),
        "logit_range": float(np.ptp(logits)),
        "rule": {"max_error": format.rule.max_error, "min_agreement": format.rule.min_agreement},
    }
    assert entry["parity"]["max_abs_error"] <= 0.2 * np.ptp(logits)
    assert entry["accuracy"] == np.mean(found.argmax(1) == given["test_labels"])


def test_rules_are_those_that_are_documented():
    rules = {format.path: tuple(format.rule) for format in FORMATS}
    float32 = ("model_f32.tflite", "model.stablehlo.mlirbc", "model.jax_export", "model.onnx")
    assert {rules.pop(name) for name in float32} == {(1e-4, None)}
    assert rules == {
        "weights.safetensors": (0.0, None),
        "model_f16.tflite": (None, 0.995),
        "model_dynamic.tflite": (None, 0.5),
        "model_int8.tflite": (None, 0.5),
    }


def test_manifest_lists_operators_and_calibration(made):
    path, manifest = made
    for name in TFLITE:
        names = operators((path / name).read_bytes())
        found = manifest["files"][name]["operators"]
        assert found == {operator: names.count(operator) for operator in names}
    entry = manifest["files"]["model_int8.tflite"]
    assert entry["calibration"]["images"] == 8
    assert entry["calibration"]["seed"] == 5
    count = entry["cost"]["quantize_operators"]["value"]
    assert count == entry["operators"].get("QUANTIZE", 0)


def test_reference_holds_100_test_images_and_jax_logits(made):
    given = arguments()
    with np.load(made[0] / "reference.npz") as reference:
        assert set(reference) == {"images", "labels", "logits"}
        assert reference["images"].dtype == np.uint8
        np.testing.assert_array_equal(reference["images"], given["test_images"][:100])
        np.testing.assert_array_equal(reference["labels"], given["test_labels"][:100])
        logits = Model.of(ID, ARCH, given["variables"]).logits(given["test_images"])
        np.testing.assert_array_equal(reference["logits"], logits[:100])


def test_another_process_writes_the_same_bytes_in_another_folder(made, tmp_path):
    path = tmp_path / "elsewhere" / "run" / ID
    code = (
        "import pathlib, tests.conftest\n"
        "from deepmaker_jax.export import to_jax_export, to_onnx, to_tflite\n"
        "from tests.export.test_bundle import *\n"
        "other = CASES['relu, stem stride']\n"
        "[to(other, random_variables(other)) for to in (to_tflite, to_jax_export, to_onnx)]\n"
        f"export_bundle(pathlib.Path({str(path)!r}), **arguments())\n"
    )
    root = pathlib.Path(__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, check=True)
    first = {p.name: p.read_bytes() for p in made[0].iterdir()}
    second = {p.name: p.read_bytes() for p in path.iterdir()}
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_loaded_model_gives_the_same_bits(made):
    given = arguments()
    model = deepmaker_jax.load(str(made[0]))
    assert (model.id, model.arch) == (ID, ARCH)
    logits = Model.of(ID, ARCH, given["variables"]).logits(given["test_images"])
    np.testing.assert_array_equal(model.logits(given["test_images"]), logits)
    np.testing.assert_array_equal(model(given["test_images"].astype(np.float32)), logits)
    np.testing.assert_array_equal(model.logits(given["test_images"][:3]), logits[:3])


def test_loaded_model_refuses_images_of_another_shape(made):
    with pytest.raises(InputError, match=r"images \[2, 28, 28, 3\] must be \[n, 28, 28, 1\]"):
        deepmaker_jax.load(made[0]).logits(np.zeros((2, 28, 28, 3)))


def test_finished_bundle_is_not_made_again(copied, made, monkeypatch):
    monkeypatch.setattr(tflite, "to_tflite", no_conversion)
    monkeypatch.setattr(tflite, "to_tflite_int8", no_conversion)
    monkeypatch.setattr(stablehlo, "to_stablehlo", no_conversion)
    monkeypatch.setattr(onnx, "to_onnx", no_conversion)
    before = {p: p.stat().st_mtime_ns for p in copied.iterdir()}
    (copied / ".model_int8.tflite.w2_x9abc").write_bytes(b"half")  # its writer was killed
    assert export_bundle(copied, **arguments()) == made[1]
    assert before == {p: p.stat().st_mtime_ns for p in copied.iterdir()}


@pytest.mark.parametrize("name", ["model_int8.tflite", "manifest.json", "reference.npz"])
@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"PK{")])
def test_damaged_bundle_is_made_whole_again(copied, made, name, damage):
    damage(copied / name)
    assert export_bundle(copied, **arguments()) == made[1]
    assert (copied / name).read_bytes() == (made[0] / name).read_bytes()


def test_bundle_of_other_weights_is_replaced(copied, made):
    other = arguments() | {"variables": random_variables(ARCH, seed=1)}
    manifest = export_bundle(copied, **other)
    for name in manifest["files"]:
        assert manifest["files"][name]["sha256"] != made[1]["files"][name]["sha256"]


@pytest.mark.parametrize(
    "change",
    [
        {"test_images": lambda images: np.concatenate([images[:-1], images[:1]])},
        {"test_labels": lambda labels: np.concatenate([labels[:-1], labels[-1:] ^ 1])},
        {"calibration_images": lambda images: images[::-1]},
        {"calibration_seed": lambda seed: 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_bundle_is_made_again_of_whatever_else_it_was_made_from(copied, monkeypatch, change):
    monkeypatch.setattr(bundling, "_make", no_conversion)
    given, (name, alter) = arguments(), next(iter(change.items()))
    files = export_bundle(copied, **(given | {name: alter(given[name])}))["files"]
    assert "converted again" in files["model_int8.tflite"]["reason"]


def test_bundle_is_made_again_by_other_versions(copied, monkeypatch):
    monkeypatch.setattr(bundling, "_make", no_conversion)
    monkeypatch.setattr(digest, "version_of", lambda name: "99")
    files = export_bundle(copied, **arguments())["files"]
    assert "converted again" in files["model_int8.tflite"]["reason"]


def test_the_folder_of_a_backend_that_failed_as_a_whole_goes_with_the_weights(copied, monkeypatch):
    monkeypatch.setattr(bundling, "_make", no_conversion)
    add_file(copied, "mcu/model.h")
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"]["mcu"] = manifest["files"].pop("mcu/model.h") | {"sha256": None}
    write_manifest(copied, manifest)
    other = arguments() | {"variables": random_variables(ARCH, seed=5)}
    assert "mcu" not in export_bundle(copied, **other)["files"]
    assert not (copied / "mcu").exists()


def test_failed_conversion_is_recorded_and_loses_no_other_file(copied, monkeypatch):
    def fail(*args):
        raise RuntimeError("no such operator\n  at /some/where/deep.py:3")

    monkeypatch.setattr(tflite, "to_tflite_int8", fail)
    (copied / "manifest.json").unlink()
    files = export_bundle(copied, **arguments())["files"]
    assert files["model_int8.tflite"] == dict.fromkeys(ENTRY_KEYS) | {
        "status": "failed", "reason": "RuntimeError: no such operator at PATH:3",
    }  # fmt: skip
    assert not (copied / "model_int8.tflite").exists()
    sound = {name for name, entry in files.items() if entry["status"] == "ok"}
    assert sound == set(FILES) - {"model_int8.tflite"}
    assert read_bundle(copied)["files"] == files


def test_float32_file_that_disagrees_with_jax_is_failed(copied, monkeypatch):
    convert = tflite.to_tflite
    other = random_variables(ARCH, seed=1)
    monkeypatch.setattr(tflite, "to_tflite", lambda arch, _, *form: convert(arch, other, *form))
    (copied / "manifest.json").unlink()
    files = export_bundle(copied, **arguments())["files"]
    entry = files["model_f32.tflite"]
    assert entry["status"] == files["model_f16.tflite"]["status"] == "failed"
    assert entry["reason"].startswith("logits differ from JAX's by ")
    assert entry["parity"]["images"] == NUM_TEST
    assert "images have the class that JAX gives" in files["model_f16.tflite"]["reason"]


def test_operators_that_the_network_does_not_need_fail_the_file(copied, monkeypatch):
    relu = CASES["relu, stem stride"]
    monkeypatch.setattr(
        "deepmaker_jax.export.operators.layers", lambda arch: architecture.layers(relu)
    )
    (copied / "manifest.json").unlink()
    entry = export_bundle(copied, **arguments())["files"]["model_f32.tflite"]
    assert entry["status"] == "failed"
    assert "the converter used DEPTHWISE_CONV_2D, HARD_SWISH, MAX_POOL_2D: " in entry["reason"]


def add_file(bundle, name):
    """Writes a file as a backend does, and lists it."""
    path = bundle / name
    path.parent.mkdir()
    path.write_bytes(b"for a device")
    manifest = json.loads((bundle / "manifest.json").read_text())
    entry = dict.fromkeys(ENTRY_KEYS) | {"status": "ok", "bytes": 12, "sha256": sha256(path)}
    manifest["files"][name] = entry
    write_manifest(bundle, manifest)
    return entry


def test_what_backends_added_stays_while_the_weights_do(copied):
    entry = add_file(copied, "mcu/model.h")
    (copied / "model.onnx").unlink()
    assert export_bundle(copied, **arguments())["files"]["mcu/model.h"] == entry
    other = arguments() | {"variables": random_variables(ARCH, seed=1)}
    assert "mcu/model.h" not in export_bundle(copied, **other)["files"]
    assert not (copied / "mcu/model.h").exists()


def test_what_backends_added_and_is_damaged_is_dropped(copied):
    add_file(copied, "mcu/model.h")
    (copied / "mcu/model.h").write_bytes(b"")
    assert set(export_bundle(copied, **arguments())["files"]) == set(FILES)


def test_without_converters_files_are_unsupported_and_made_when_they_are_there(
    copied, made, monkeypatch
):
    (copied / "manifest.json").unlink()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow", None)
        patch.setitem(sys.modules, "jax2onnx", None)
        files = export_bundle(copied, **arguments())["files"]
        with pytest.raises(InputError, match="TFLite export needs TensorFlow"):
            tflite.to_tflite(ARCH, arguments()["variables"])
    for name in (*TFLITE, "model.onnx"):
        assert files[name]["status"] == "unsupported"
        assert files[name]["reason"].endswith("pip install 'deepmaker-jax[export]'")
    assert export_bundle(copied, **arguments()) == made[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_images": np.zeros((3, 28, 28, 3), np.uint8)}, "test_images"),
        ({"test_images": np.zeros((0, 28, 28, 1), np.uint8)}, "n >= 1"),
        ({"calibration_images": np.zeros((3, 28, 28, 1))}, "calibration_images"),
        ({"test_labels": np.zeros(3, np.int32)}, "test_labels"),
        ({"variables": random_variables(CASES["silu"])}, "variables"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        export_bundle(tmp_path / ID, **(arguments() | change))
    assert not (tmp_path / ID).exists()


def edited(change):
    def damage(path):
        manifest = json.loads((path / "manifest.json").read_text())
        again = copy.deepcopy(manifest)
        del again["sum"]
        change(again)
        write_json(path / "manifest.json", again)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: shutil.rmtree(p), "is missing"),
        (lambda p: (p / "manifest.json").write_text("{"), "cannot be read as JSON"),
        (lambda p: (p / "manifest.json").write_text("[]"), "is not a bundle's manifest"),
        (lambda p: (p / "model_f32.tflite").unlink(), "cannot be read"),
        (lambda p: (p / "model_f32.tflite").write_bytes(b"TFL3"), "does not match its sum"),
        (lambda p: (p / "weights.safetensors").write_bytes(b""), "does not match its sum"),
        (edited(lambda m: m.pop("files")), "is not a bundle's manifest"),
        (edited(lambda m: m.pop("arch")), "not an architecture"),
        (edited(lambda m: m["arch"].update(stem_width=16)), "different architectures"),
        (edited(lambda m: m["arch"].update(activation=3)), "not an architecture"),
        (edited(lambda m: m["files"].update({"../x": {"status": "ok"}})), "outside of the bundle"),
        (edited(lambda m: m["files"].update({"x": {"status": "fine"}})), "x has no status"),
        (edited(lambda m: m["files"].update({"x": {"status": "ok"}})), "cannot be read"),
        (edited(lambda m: m["files"].pop("weights.safetensors")), "lists no sound"),
    ],
)
def test_damaged_bundle_is_refused_with_one_line(copied, damage, message):
    damage(copied)
    with pytest.raises(InputError, match=message) as caught:
        deepmaker_jax.load(copied)
    assert "\n" not in str(caught.value)
