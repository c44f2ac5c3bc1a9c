"""`deepmaker check`: what is damaged or disagrees, where JAX is not even there."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from deepmaker_jax import cli
from deepmaker_jax.errors import MissingToolError
from deepmaker_jax.export import check as checking
from deepmaker_jax.export import export_bundle
from deepmaker_jax.export.manifest import made_entry, write_manifest
from deepmaker_jax.files import sha256, write_document
from deepmaker_jax.ledger import Ledger
from tests.export.networks import CASES, random_images, random_variables

ID = "0123456789ab"
OWN = {"config.json", "front.json", "ledger.jsonl"}
FINAL = {
    "id": ID, "generation": 0, "genome": [], "arch": {}, "parents": [], "objectives": {},
    "fidelity": {"name": "final"}, "seconds": {}, "status": "ok", "reason": None,
}  # fmt: skip
RUN_AGAIN = 5  # four TFLite files and one ONNX file
WITHOUT_JAX = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "evosax", "optax", "tensorflow"):
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
import deepmaker_jax.backends.again  # what runs devices' files, in a process of its own
from deepmaker_jax.cli import main
sys.exit(main(["check", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a run folder with one bundle; not to be changed."""
    run = tmp_path_factory.mktemp("check") / "run"
    arch = CASES["relu, stem stride"]
    bundle = run / "models" / ID
    images = random_images(arch, num=30, seed=2)
    manifest = export_bundle(
        bundle, id=ID, arch=arch, variables=random_variables(arch),
        calibration_images=random_images(arch, num=8, seed=1), test_images=images,
        test_labels=np.arange(30) % 10,
    )  # fmt: skip
    assert {entry["status"] for entry in manifest["files"].values()} == {"ok"}
    write_document(run / "config.json", {"config": {}, "objectives": []})
    member = {"id": ID, "bundle": f"models/{ID}", "robustness": None}
    write_document(run / "front.json", {"members": [member]})
    with contextlib.closing(Ledger(run / "ledger.jsonl")) as ledger:
        ledger.append(FINAL | {"fidelity": {"name": "search"}})
        ledger.append(FINAL)
    return run


@pytest.fixture
def run(made, tmp_path):
    return pathlib.Path(shutil.copytree(made, tmp_path / "run"))


def resum(bundle, name):
    """Makes a changed file look whole."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    path = bundle / name
    manifest["files"][name] |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_manifest(bundle, manifest)


def check(path, capsys):
    """Returns (exit code, {file's name: verdict}, what stderr says)."""
    code = cli.main(["check", str(path)])
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    found = {pathlib.Path(line[1]).name: line[0] for line in lines if "/" in line[1]}
    return code, found, said.err


@pytest.mark.parametrize("part", ["", f"models/{ID}"])
def test_whole_files_agree(run, capsys, part):
    code, found, said = check(run / part, capsys)
    assert (code, said) == (0, "")
    assert {name for name, verdict in found.items() if verdict == "agrees"} == {
        "model_f32.tflite", "model_f16.tflite", "model_dynamic.tflite", "model_int8.tflite",
        "model.onnx",
    }  # fmt: skip
    whole = {name for name, verdict in found.items() if verdict == "whole"}
    assert whole == (set() if part else OWN) | {
        "weights.safetensors", "reference.npz", "model.stablehlo.mlirbc", "model.jax_export",
    }  # fmt: skip


def test_it_needs_no_jax_and_no_tensorflow(run):
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    command = [sys.executable, "-c", WITHOUT_JAX, str(run)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout.splitlines()[-1] == "all 12 files are whole; 5 were run and agree"


@pytest.mark.parametrize(
    ("name", "damage", "verdict", "text"),
    [
        (
            "model_int8.tflite", lambda p: p.write_bytes(p.read_bytes() + b"\0"),
            "damaged", "does not match its sum in manifest.json",
        ),
        ("model.jax_export", lambda p: p.unlink(), "missing", "cannot be read (No such file"),
        ("reference.npz", lambda p: p.write_bytes(b""), "damaged", "does not match its sum"),
        ("manifest.json", lambda p: p.write_text("{"), "damaged", "cannot be read as JSON"),
        ("manifest.json", lambda p: p.unlink(), "missing", "is missing: run its experiment again"),
    ],
)  # fmt: skip
def test_damage_is_found_and_its_path_said_once(run, capsys, name, damage, verdict, text):
    damage(run / "models" / ID / name)
    assert cli.main(["check", str(run)]) == 1
    said = capsys.readouterr()
    (line,) = (line for line in said.out.splitlines() if line.startswith(("damaged", "missing")))
    assert line.startswith(f"{verdict:9} {run / 'models' / ID / name} {text}")
    assert said.err.startswith("error: 1 of ")
    assert said.err.count("\n") == 1


def test_a_damaged_file_of_a_device_is_to_be_deployed_again(run, capsys):
    bundle, path = run / "models" / ID, "gpu/model_vulkan.vmfb"
    deployed(bundle, path)
    (bundle / path).write_bytes(b"")
    assert cli.main(["check", str(bundle), "--sums-only"]) == 1
    said = capsys.readouterr().out
    assert f"{bundle / path} does not match its sum in manifest.json: deploy it again" in said


def test_a_manifest_that_lists_no_reference_is_damaged(run, capsys):
    bundle = run / "models" / ID
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["files"]["reference.npz"]
    write_manifest(bundle, manifest)
    code, found, said = check(bundle, capsys)
    assert (code, found["reference.npz"]) == (1, "damaged")
    assert said == "error: 1 of 9 files are missing, damaged or disagree\n"


@pytest.mark.parametrize(
    ("name", "text", "verdict"),
    [
        ("config.json", "{", "damaged"),
        ("config.json", "{}", "damaged"),
        ("config.json", "null", "damaged"),
        ("config.json", '{"config": {}}', "damaged"),
        ("config.json", None, "missing"),
        ("front.json", "{", "damaged"),
        ("front.json", '{"members": [{"id": "0", "bundle": "../elsewhere"}]}', "damaged"),
        ("front.json", None, "missing"),
        ("ledger.jsonl", "", "missing"),
        ("ledger.jsonl", None, "missing"),
    ],
)
def test_what_is_wrong_with_the_runs_own_files_is_found(run, capsys, name, text, verdict):
    (run / name).unlink() if text is None else (run / name).write_text(text)
    code, found, said = check(run, capsys)
    assert (code, found[name]) == (1, verdict)
    assert {found[other] for other in OWN - {name}} == {"whole"}
    assert said == "error: 1 of 12 files are missing, damaged or disagree\n"


def test_the_command_that_mends_a_run_is_said(run, capsys):
    command = "python -m experiments.cifar10 --out RUN"
    write_document(run / "config.json", {"config": {}, "objectives": [], "command": command})
    assert cli.main(["check", str(run)]) == 0
    assert command not in capsys.readouterr().out
    (run / "front.json").unlink()
    assert cli.main(["check", str(run)]) == 1
    said = capsys.readouterr().out
    assert f"its experiment, to be given --out {run}: {command}\n" in said


def test_figures_that_a_front_tells_of_must_be_there(run, capsys):
    front = json.loads((run / "front.json").read_text())
    front["members"][0]["robustness"] = {"int8": None}
    write_document(run / "front.json", front)
    code, found, _ = check(run, capsys)
    assert (code, found[f"{ID}.json"]) == (1, "missing")
    write_document(run / "robustness" / f"{ID}.json", {"files": {}})
    code, found, _ = check(run, capsys)
    assert (code, found[f"{ID}.json"]) == (0, "whole")


def test_a_longer_training_has_neither_front_nor_measurements(run, capsys):
    for name in OWN:
        (run / name).unlink()
    write_document(run / "config.json", {"config": {"run": "r", "member": ID, "epochs": 1}})
    code, found, _ = check(run, capsys)
    assert (code, found["config.json"]) == (0, "whole")


def test_a_line_of_the_ledger_that_was_changed_is_found(run, capsys):
    (run / "ledger.jsonl").write_text('{"id": "0", "sum": "0"}\n')
    code, found, _ = check(run, capsys)
    assert (code, found["ledger.jsonl"]) == (1, "damaged")


@pytest.mark.parametrize("name", ["model_f32.tflite", "model_int8.tflite", "model.onnx"])
def test_a_file_of_other_weights_disagrees(run, capsys, exported, name):
    other = exported("relu6, window, bottleneck, 5x5")
    kind = {"model_f32.tflite": "float32", "model_int8.tflite": "int8", "model.onnx": "onnx"}[name]
    bundle = run / "models" / ID
    (bundle / name).write_bytes(getattr(other, kind))
    resum(bundle, name)
    code, found, said = check(bundle, capsys)
    assert (code, found[name]) == (1, "disagrees")
    assert said == "error: 1 of 9 files are missing, damaged or disagree\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda parity: parity.pop("rule"),
        lambda parity: parity.pop("logit_range"),
        lambda parity: [parity.pop(n) for n in ("rule", "logit_range", "max_abs_error")],
        None,
    ],
)
def test_it_needs_no_more_of_a_manifest_than_the_contract_promises(run, capsys, change):
    bundle = run / "models" / ID
    manifest = json.loads((bundle / "manifest.json").read_text())
    for entry in manifest["files"].values():
        if change is None:
            entry["parity"] = None
        elif entry["parity"]:
            change(entry["parity"])
    write_manifest(bundle, manifest)
    code, found, said = check(bundle, capsys)
    assert (code, said) == (0, "")
    assert sum(verdict == "agrees" for verdict in found.values()) == RUN_AGAIN


def test_a_file_without_a_rule_is_judged_by_its_name(run, capsys, exported):
    bundle, name = run / "models" / ID, "model_f32.tflite"
    (bundle / name).write_bytes(exported("relu6, window, bottleneck, 5x5").float32)
    resum(bundle, name)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][name]["parity"] = None
    write_manifest(bundle, manifest)
    code, found, _ = check(bundle, capsys)
    assert (code, found[name]) == (1, "disagrees")


def test_a_file_that_cannot_be_run_disagrees(run, capsys):
    bundle = run / "models" / ID
    (bundle / "model_f16.tflite").write_bytes(b"not a model")
    resum(bundle, "model_f16.tflite")
    code, found, _ = check(bundle, capsys)
    assert (code, found["model_f16.tflite"]) == (1, "disagrees")


def test_what_is_not_installed_is_said_in_a_line_and_sums_still_count(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert cli.main(["check", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith(
        "4 files were not run again; in LiteRT: running a TFLite file needs"
    )
    assert lines[-2].endswith("pip install 'deepmaker-jax[export]'")
    assert lines[-1] == f"all 12 files are whole; {RUN_AGAIN - 4} were run and agree"


def test_sums_only_runs_nothing(run, capsys, monkeypatch):
    for name, runtime in checking.RUNTIMES.items():
        monkeypatch.setitem(checking.RUNTIMES, name, runtime._replace(run=None))
    assert cli.main(["check", str(run), "--sums-only"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "all 12 files are whole; 0 were run and agree"
    )


def deployed(bundle, path):
    """Lists a file of a device's folder as one that ran there on 20 images."""
    file = bundle / path
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"a module")
    manifest = json.loads((bundle / "manifest.json").read_text())
    parity = manifest["files"]["model_f32.tflite"]["parity"] | {"images": 20}
    manifest["files"][path] = made_entry(file, tool="tests") | {"parity": parity}
    write_manifest(bundle, manifest)


@pytest.mark.parametrize(
    ("answer", "verdict", "text"),
    [
        (lambda logits: logits[:20], "agrees", "on gpu: logits at most 0.0e+00 of their range"),
        (lambda logits: logits[:20] + 1, "disagrees", "on gpu logits differ from JAX's by 1"),
        (lambda logits: logits[:19], "disagrees", "logits [19, 10] must be [20, 10]"),
        (lambda logits: MissingToolError("no driver: get one"), "whole", ""),
        (lambda logits: RuntimeError("python ended with -4"), "disagrees", "python ended with -4"),
    ],
)
def test_a_devices_file_is_run_again_as_its_backend_runs_it(
    run, capsys, monkeypatch, answer, verdict, text
):
    bundle, path = run / "models" / ID, "gpu/model_vulkan.vmfb"
    deployed(bundle, path)
    deployed(bundle, "gpu/notes.txt")

    def again(where, name):
        assert (where, name) == (bundle, path)
        found = answer(np.load(bundle / "reference.npz")["logits"])
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("deepmaker_jax.backends.again.run", again)
    assert cli.main(["check", str(bundle)]) == (verdict == "disagrees")
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if path in line)
    assert line.split()[0] == verdict
    assert text in line
    assert any(line.startswith("whole") and "notes.txt" in line for line in lines)
    missing = "1 files were not run again; on gpu: no driver: get one"
    assert (missing in lines) == (verdict == "whole")


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda p: None, "is not a folder"),
        (lambda p: p.write_text(""), "is not a folder"),
        (lambda p: p.mkdir(), "is neither a run folder"),
    ],
)
def test_other_places_are_bad_input(tmp_path, capsys, prepare, text):
    prepare(tmp_path / "place")
    assert cli.main(["check", str(tmp_path / "place")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {tmp_path / 'place'} {text}")
    assert said.err.count("\n") == 1


def test_a_run_that_has_not_ended_lacks_its_front(tmp_path, capsys):
    run = tmp_path / "run"
    write_document(run / "config.json", {"config": {}, "objectives": [], "command": "it"})
    with contextlib.closing(Ledger(run / "ledger.jsonl")) as ledger:
        ledger.append(FINAL | {"fidelity": {"name": "search"}})
        assert cli.main(["check", str(run)]) == 1
        assert f"{run} has not ended: it still goes on\n" in capsys.readouterr().out
    assert cli.main(["check", str(run)]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"whole     {run / 'config.json'}",
        f"whole     {run / 'ledger.jsonl'}",
        f"missing   {run / 'front.json'} is missing: the run has not ended, or lost it: run its "
        "experiment again",
        f"{run} has not ended, or lost its end",
        "2 files are whole; 0 were run and agree",
        f"its experiment, to be given --out {run}: it",
    ]
    assert said.err == "error: 1 of 3 files are missing, damaged or disagree\n"
    (run / "ledger.jsonl").write_text("{}\n")
    code, found, _ = check(run, capsys)
    assert (code, found["ledger.jsonl"]) == (1, "damaged")


def test_a_run_without_the_export_is_whole_without_bundles(tmp_path, capsys):
    run = tmp_path / "run"
    write_document(run / "config.json", {"config": {}, "objectives": []})
    write_document(run / "front.json", {"members": []})
    assert cli.main(["check", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith(f"{run} has no bundles: its experiment makes them")
    assert lines[-1] == "all 3 files are whole; 0 were run and agree"


@pytest.mark.parametrize("part", ["", f"longer/{ID}-9"])
@pytest.mark.parametrize("begun", ["weights.safetensors", "model_int8.tflite", None])
def test_a_longer_training_that_has_not_ended_lacks_its_bundle(run, capsys, part, begun):
    folder = run / "longer" / f"{ID}-9"
    (folder / "models" / ID).mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    write_document(folder / "config.json", {"config": {"member": ID, "epochs": 9}})
    if begun is not None:
        shutil.copy(run / "models" / ID / begun, folder / "models" / ID)
    assert cli.main(["check", str(run / part), "--sums-only"]) == 1
    said = capsys.readouterr()
    lacks = folder / "models" / ID / "manifest.json"
    command = f"deepmaker train {run} {ID} --epochs 9"
    text = f"is missing: the training has not ended, or lost it: {command}"
    assert f"missing   {lacks} {text}" in said.out
    assert f"{folder} has not ended, or lost its end\n" in said.out
    assert "its experiment" not in said.out
    assert said.err.startswith("error: 1 of ")


def test_a_longer_training_without_the_export_has_ended_with_its_weights(run, capsys):
    folder = run / "longer" / f"{ID}-9"
    (folder / "models" / ID).mkdir(parents=True)
    write_document(folder / "config.json", {"config": {"member": ID, "epochs": 9}})
    shutil.copy(run / "models" / ID / "weights.safetensors", folder / "models" / ID)
    assert cli.main(["check", str(run), "--sums-only"]) == 0
    assert "has not ended" not in capsys.readouterr().out


def test_weights_must_be_those_that_the_ledger_tells_of(run, capsys):
    with contextlib.closing(Ledger(run / "ledger.jsonl")) as ledger:
        wrong = FINAL | {"fidelity": {"name": "final", "epochs": 2}, "weights": "0" * 64}
        ledger.append(wrong)
    code, found, said = check(run, capsys)
    assert (code, found["ledger.jsonl"]) == (1, "whole")
    assert said == "error: 1 of 13 files are missing, damaged or disagree\n"
    with contextlib.closing(Ledger(run / "ledger.jsonl")) as ledger:
        own = sha256(run / "models" / ID / "weights.safetensors")
        ledger.append(wrong | {"weights": own})
    assert check(run, capsys)[0] == 0


def test_a_bundle_must_be_that_of_its_folder(run, capsys):
    path = run / "models" / ID / "manifest.json"
    manifest = json.loads(path.read_text())
    write_manifest(path.parent, manifest | {"id": "another"})
    code, _, said = check(run, capsys)
    assert (code, said) == (1, "error: 1 of 13 files are missing, damaged or disagree\n")


def test_a_longer_training_is_checked_with_its_run(run, capsys):
    longer = run / "longer" / f"{ID}-9"
    shutil.copytree(run / "models", longer / "models")
    write_document(longer / "config.json", {"config": {"run": "r", "member": ID, "epochs": 9}})
    assert check(run, capsys)[0] == 0
    (longer / "models" / ID / "model_int8.tflite").write_bytes(b"")
    assert check(run, capsys)[0] == 1
