"""Every backend: the same three functions, whole entries, one file's failure its own."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from deepmaker_jax.backends import BACKENDS, backend, tool
from deepmaker_jax.backends.worker import read_member
from deepmaker_jax.cost import cost as cost_of
from deepmaker_jax.deploy import deploy
from deepmaker_jax.export.manifest import ENTRY_KEYS
from deepmaker_jax.export.parity import EXACT, FLOAT32
from tests.backends.conftest import ARCH, ID
from tests.export.networks import make

# What is compared with JAX, and on how many images at least; None where nothing here runs it.
PARITY = {
    "arm/model_aarch64.vmfb": 20,
    "arm/model_armv7a.vmfb": None,
    "mcu/model.cc": 100,
    "mcu/model_ethos_u55_128.tflite": None,
    "cpu/model_x86_64.vmfb": 100,
    "cpu/model_x86_64_batch64.vmfb": 64,
    "cpu/openvino.xml": 100,
    "gpu/model_vulkan.vmfb": 20,
    "fpga/hls/firmware/network.cpp": 100,
}
COSTS = {
    "arm/model_aarch64.vmfb": ("instructions", "instructions"),
    "mcu/model.cc": ("arena_bytes", "bytes"),
    "cpu/timings.json": ("fastest_latency_1_thread", "ms"),
    "fpga/hls/firmware/network.cpp": ("interval", "ms"),
}
AGREEMENT = {"mcu": 0.9, "fpga": 0.95}  # int8 and fixed point of a network that was not trained


@pytest.fixture(scope="module", params=BACKENDS)
def deployed(request, exported_run, tmp_path_factory):
    """Returns (bundle, name of the backend, its event, the manifest)."""
    run = shutil.copytree(exported_run, tmp_path_factory.mktemp(request.param) / "run")
    (event,) = deploy(run, targets=[request.param])
    bundle = run / "models" / ID
    return bundle, request.param, event, json.loads((bundle / "manifest.json").read_text())


def own(manifest, name):
    return {n: e for n, e in manifest["files"].items() if n.split("/")[0] == name}


def test_every_file_is_listed_whole_and_truly(deployed):
    bundle, name, event, manifest = deployed
    entries = own(manifest, name)
    assert event.status == "ok", event
    assert (event.id, event.target, event.num_files) == (ID, name, len(entries))
    there = {p.relative_to(bundle).as_posix() for p in (bundle / name).rglob("*") if p.is_file()}
    assert {n for n, e in entries.items() if e["sha256"]} == there
    for path, entry in entries.items():
        assert set(ENTRY_KEYS) <= set(entry), path
        assert entry["status"] in ("ok", "unsupported"), (path, entry["reason"])
        assert (entry["reason"] is None) == (entry["status"] == "ok"), path
        data = (bundle / path).read_bytes()
        assert entry["bytes"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        for value in (entry["cost"] or {}).values():
            assert set(value) == {"value", "unit", "how"}
    assert manifest["targets"][name]["tools"]


def test_what_runs_agrees_with_jax(deployed):
    _, name, _, manifest = deployed
    entries = own(manifest, name)
    compared = {path for path in PARITY if path.split("/")[0] == name}
    assert compared
    for path in compared:
        parity = entries[path]["parity"]
        if PARITY[path] is None:
            assert parity is None
            continue
        assert parity["images"] >= PARITY[path]
        assert parity["top1_agreement"] >= AGREEMENT.get(name, 1.0), path


def test_costs_are_stated_with_their_unit(deployed):
    _, name, _, manifest = deployed
    for path, (cost, unit) in COSTS.items():
        if path in own(manifest, name):
            found = manifest["files"][path]["cost"][cost]
            assert found["unit"] == unit
            assert found["value"] > 0
            if cost == "instructions":  # four products in one, and what moves the data
                macs = cost_of(ARCH).macs
                assert macs / 4 < found["value"] < 4 * macs
                assert "not_counted" not in manifest["files"][path]


@pytest.mark.parametrize("deployed", ["mcu"], indirect=True)
def test_the_cost_model_foresees_the_memory_of_a_microcontroller(deployed):
    bundle, _, _, manifest = deployed
    foreseen = cost_of(read_member(bundle).arch)
    arena = manifest["files"]["mcu/model.cc"]["cost"]["arena_bytes"]["value"]
    sram = manifest["files"]["mcu/model_ethos_u55_128.tflite"]["cost"]["sram_bytes"]["value"]
    assert foreseen.arena_bytes == pytest.approx(arena, rel=0.1)
    assert foreseen.ethos_u_sram_bytes == pytest.approx(sram, rel=0.1)


@pytest.mark.parametrize(
    ("name", "arch", "words"),
    [
        ("mcu", make("elu"), ["activation elu needs EXP and SELECT"]),
        ("mcu", make("tanh/swish", order="pre"), ["activation tanh/swish needs SELECT"]),
        ("mcu", make("silu"), []),
        ("cpu", make("elu"), []),
        ("fpga", make("silu"), ["activation silu"]),
    ],
)
def test_what_cannot_be_done_is_known_before_the_build(name, arch, words):
    found = BACKENDS[name].supports(arch)
    assert len(found) == len(words)
    assert all(word in reason for word, reason in zip(words, found, strict=True))


def test_again_makes_nothing_anew(deployed):
    bundle, name, event, manifest = deployed
    before = {p: p.stat().st_mtime_ns for p in (bundle / name).rglob("*")}
    (again,) = deploy(bundle.parent.parent, targets=[name])
    assert again == event._replace(seconds=0.0)
    assert before == {p: p.stat().st_mtime_ns for p in (bundle / name).rglob("*")}
    assert manifest == json.loads((bundle / "manifest.json").read_text())


def test_another_folder_gets_the_same_bytes(deployed, exported_run, tmp_path):
    _, name, _, manifest = deployed
    other = shutil.copytree(exported_run, tmp_path / "elsewhere")
    list(deploy(other, targets=[name]))
    again = json.loads((other / "models" / ID / "manifest.json").read_text())
    sums = {path: entry["sha256"] for path, entry in own(manifest, name).items()}
    same = {path: entry["sha256"] for path, entry in own(again, name).items()}
    sums.pop("cpu/timings.json", None)
    same.pop("cpu/timings.json", None)
    assert same == sums


@pytest.mark.parametrize("name", BACKENDS)
def test_without_its_tools_everything_is_unsupported_and_says_what_to_install(
    name, member, monkeypatch
):
    monkeypatch.setattr(
        tool, "package", lambda name, install="pip install x": tool.Tool(name, None, install)
    )
    monkeypatch.setattr(tool, "find_program", lambda name: None)
    made = BACKENDS[name].build(member)
    entries = BACKENDS[name].measure(member, made)
    assert set(entries) == {artifact.path for artifact in made}
    for path, entry in entries.items():
        assert entry["status"] == "unsupported", (path, entry["reason"])
        assert (entry["sha256"] is not None) == (member.bundle / path).is_file(), path
        assert "install" in entry["reason"] or "NVIDIA" in entry["reason"], path
    assert any(found.version is None for found in BACKENDS[name].probe())


def test_entry_compares_with_jax(member):
    path = "mine/file"
    (member.bundle / "mine").mkdir()
    (member.bundle / path).write_bytes(b"x")
    artifact = backend.Artifact(path, "mine 1")
    shifted = member.logits[:30] + np.float32(0.5)
    good = backend.entry(member, artifact, logits=member.logits[:20], rule=EXACT)
    bad = backend.entry(member, artifact, logits=shifted, rule=FLOAT32)
    assert (good["status"], good["parity"]["max_abs_error"]) == ("ok", 0.0)
    assert good["parity"]["images"] == 20
    assert bad["status"] == "failed"
    assert bad["reason"].startswith("logits differ from JAX's by 0.5")
    right = np.mean(member.logits[:20].argmax(1) == member.labels[:20])
    assert good["cost"]["reference_accuracy"]["value"] == right
    assert good["accuracy"] is None
