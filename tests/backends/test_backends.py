"""Every backend: the same three functions, whole entries, one file's failure its own."""

import dataclasses
import hashlib
import itertools
import json
import re
import shutil

import jax
import numpy as np
import pytest

from deepmaker_jax.arch import layers
from deepmaker_jax.backends import (
    BACKENDS,
    arm,
    backend,
    cpu,
    fixed,
    fpga,
    gpu,
    iree,
    mcu,
    resource,
    tool,
)
from deepmaker_jax.backends.firmware import REGISTER
from deepmaker_jax.backends.worker import read_member
from deepmaker_jax.cost import cost as cost_of
from deepmaker_jax.deploy import deploy
from deepmaker_jax.export.check import check_bundle
from deepmaker_jax.export.manifest import ENTRY_KEYS, own_entries, write_manifest
from deepmaker_jax.export.operators import ACTIVATIONS, allowed_operators
from deepmaker_jax.export.parity import EXACT, FLOAT32
from deepmaker_jax.machine import num_cores
from deepmaker_jax.sram import peak_activation_bytes
from tests.backends.conftest import ARCH, ID
from tests.export.networks import make

# What is compared with JAX, and on how many images at least; None where nothing here runs it.
PARITY = {
    "arm/model_aarch64.vmfb": 20,
    "arm/model_armv7a.vmfb": None,
    "mcu/model.cc": 100,
    "mcu/model_ethos_u55_128.tflite": None,
    "cpu/model_host.vmfb": 100,
    "cpu/model_host_batch64.vmfb": 64,
    "cpu/model_batch64.onnx": 64,
    "cpu/openvino.xml": 100,
    "gpu/model_vulkan.vmfb": 20,
    "fpga/hls/firmware/network.cpp": 100,
}
TIMED = {"cpu/engines.json"}
COSTS = {
    "arm/model_aarch64.vmfb": ("instructions", "instructions"),
    "mcu/model.cc": ("arena_bytes", "bytes"),
    "cpu/engines.json": ("fastest_latency_1_thread", "ms"),
    "fpga/hls/firmware/network.cpp": ("interval", "ms"),
}
AGREEMENT = {"mcu": 0.9, "fpga": 0.9}  # int8 and fixed point of a network that was not trained


@pytest.fixture(scope="module", params=BACKENDS)
def deployed(request, exported_run, tmp_path_factory):
    """Returns (bundle, name of the backend, its event, the manifest)."""
    run = shutil.copytree(exported_run, tmp_path_factory.mktemp(request.param) / "run")
    (event,) = deploy(run, targets=[request.param])
    bundle = run / "models" / ID
    return bundle, request.param, event, json.loads((bundle / "manifest.json").read_text())


def test_every_file_is_listed_whole_and_truly(deployed):
    bundle, name, event, manifest = deployed
    entries = own_entries(manifest, name)
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
            assert set(value) == {"value", "unit", "how", "sum"}
    assert manifest["targets"][name]["tools"]


def test_what_runs_agrees_with_jax(deployed):
    _, name, _, manifest = deployed
    entries = own_entries(manifest, name)
    compared = {path for path in PARITY if path.split("/")[0] == name}
    assert compared
    for path in compared:
        parity = entries[path]["parity"]
        if PARITY[path] is None:
            assert parity is None
            continue
        assert parity["images"] >= PARITY[path]
        assert parity["top1_agreement"] >= AGREEMENT.get(name, 1.0), path


def test_check_runs_again_what_ran_and_nothing_else(deployed):
    bundle, name, _, _ = deployed
    ran = {path for path, images in PARITY.items() if images and path.split("/")[0] == name}
    found = {f.path.relative_to(bundle).as_posix(): f for f in check_bundle(bundle)}
    own = {path: f for path, f in found.items() if path.startswith(f"{name}/")}
    assert {path for path, f in own.items() if f.verdict == "agrees"} == ran, own
    assert {f.verdict for f in found.values()} == {"agrees", "whole"}
    assert not any(f.not_run for f in found.values())


def test_costs_are_stated_with_their_unit(deployed):
    _, name, _, manifest = deployed
    for path, (cost, unit) in COSTS.items():
        if path in own_entries(manifest, name):
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


def test_what_is_stale_is_made_again_elsewhere_with_the_same_manifest_but_for_costs(
    deployed, tmp_path
):
    bundle, name, event, manifest = deployed
    other = shutil.copytree(bundle.parents[1], tmp_path / "elsewhere")
    path = other / "models" / ID / "manifest.json"
    stale = json.loads(path.read_text())
    stale["targets"][name]["made_from"] = "another version"
    write_manifest(path.parent, stale)
    (again,) = deploy(other, targets=[name])
    assert again == event._replace(seconds=again.seconds)
    assert again.seconds > 0
    assert without_costs(json.loads(path.read_text())) == without_costs(manifest)


def without_costs(manifest):
    """Returns a manifest without what clocks said; other costs are the same each time."""
    files = manifest["files"]
    return manifest | {"files": files | {n: files[n] | {"cost": None} for n in TIMED & set(files)}}


def check_arm(bundle, entries):
    assert "raspberry_pi.py" in entries["arm/raspberry_pi.py"]["command"]
    assert entries["arm/model_aarch64.vmfb"]["cost"]["flash_bytes"]["value"] > 0


def check_mcu(bundle, entries):
    words = re.findall(r"0x([0-9a-f]{2}),", (bundle / "mcu/model.cc").read_text())
    assert bytes.fromhex("".join(words)) == (bundle / "model_int8.tflite").read_bytes()
    cost = {name: entry["value"] for name, entry in entries["mcu/model.cc"]["cost"].items()}
    assert cost["flash_bytes"] == (bundle / "model_int8.tflite").stat().st_size
    room = int(re.search(r"kArenaBytes = (\d+)", (bundle / "mcu/model.h").read_text())[1])
    assert 0 < cost["arena_activation_bytes"] < cost["arena_bytes"] <= room
    assert cost["arena_activation_bytes"] >= peak_activation_bytes(layers(ARCH), ARCH.input_shape)
    assert 0 <= cost["images_unlike_tflite"] <= 100
    ethos = entries["mcu/model_ethos_u55_128.tflite"]["cost"]
    assert (ethos["cpu_operators"]["value"], ethos["cycles"]["value"] > 0) == (0, True)


def check_cpu(bundle, entries):
    cost = {name: entry["value"] for name, entry in entries["cpu/engines.json"]["cost"].items()}
    names = {"iree", "onnxruntime", "openvino", "tflite_f32", "tflite_int8"}
    document = json.loads((bundle / "cpu/engines.json").read_text())
    assert (set(document["engines"]), document["left_out"]) == (names, {})
    threads = ["1_thread", "all_cores"][: 1 + (num_cores() > 1)]
    for words in threads:
        latencies = [cost[f"{name}_latency_{words}"] for name in names]
        assert cost[f"fastest_latency_{words}"] == min(latencies) > 0
        assert all(cost[f"{name}_throughput_{words}"] > 0 for name in names)
    assert len(cost) == (2 * len(names) + 1) * len(threads)
    # IREE's own memory is free for others once the module is gone.
    call = cpu.BY_FILE["cpu/model_host.vmfb"].open(bundle, 1, 1)
    assert call(np.zeros((1, *ARCH.input_shape), np.float32)).flags.owndata


def check_gpu(bundle, entries):
    exported = jax.export.deserialize(
        bytearray((bundle / "gpu/model_cuda.jax_export").read_bytes())
    )
    assert exported.platforms == ("cuda",)
    assert "HIGHEST" in exported.mlir_module()
    assert b"deepmaker_jax" not in exported.mlir_module_serialized


def check_fpga(bundle, entries):
    """The streams that are estimated are those of the project."""
    network, weights = fpga._folded(read_member(bundle))
    limits = fixed.calibrated(bundle / "model_int8.tflite", network)
    estimated = resource.streams(network, fixed.choose_types(network, weights, limits))
    source, types = (
        (bundle / fpga.TOP).with_name(n).read_text() for n in ("network.cpp", "defines.h")
    )
    widths = {
        name: int(bits) * int(channels)
        for bits, channels, name in re.findall(
            r"array<ap_u?fixed<(\d+),[^>]*>, (\d+)\*1> (\w+);", types
        )
    }
    written = re.findall(r"stream<(\w+)> \w+\(.*\);\s+#pragma HLS STREAM .* depth=(\d+)", source)
    assert len(written) == source.count("#pragma HLS STREAM") > 20
    assert sorted(estimated) == sorted((int(depth), widths[name]) for name, depth in written)
    cost = entries[fpga.TOP]["cost"]
    assert cost["interval_cycles"]["value"] < cost["latency_cycles"]["value"]


def test_every_backend_brings_what_it_is_for(deployed):
    bundle, name, _, manifest = deployed
    checks = {
        "arm": check_arm,
        "mcu": check_mcu,
        "cpu": check_cpu,
        "gpu": check_gpu,
        "fpga": check_fpga,
    }
    checks[name](bundle, own_entries(manifest, name))


@pytest.mark.parametrize("name", ["mcu", "fpga"])
def test_images_of_one_channel_go_everywhere(name, grey_run, tmp_path):
    run = shutil.copytree(grey_run, tmp_path / "run")
    (event,) = deploy(run, targets=[name])
    assert event.status == "ok", event
    files = json.loads((run / "models" / ID / "manifest.json").read_text())["files"]
    (compared,) = (path for path, images in PARITY.items() if images and path.startswith(name))
    assert files[compared]["parity"]["top1_agreement"] >= AGREEMENT[name]


def test_mcu_registers_the_operators_of_what_it_supports():
    unsupported = set()
    for activation, channels in itertools.product(ACTIVATIONS, (1, 3)):
        arch = make(activation, shape=(16, 16, channels), stem="pool")
        if mcu.supports(arch):
            unsupported.add(activation)
        else:
            assert allowed_operators(arch, "int8") <= set(REGISTER), activation
    assert unsupported == {"elu", "selu"}


def test_vela_is_believed_only_when_it_says_how_much_it_left_out():
    said = (
        "Info: RESHAPE 'a' is a CPU only op\nWarning: CONV_2D 'b' is not supported on the NPU. "
        "Placing on CPU instead\n - its kernel\nCPU operators = 2 (20.0%)\nNPU operators = 8\n"
    )
    assert mcu.cpu_operators(said) == (2, ["CONV_2D", "RESHAPE"])
    assert mcu.cpu_operators("CPU operators = 0 (0.0%)") == (0, [])
    with pytest.raises(RuntimeError, match="did not say how many"):
        mcu.cpu_operators("NPU operators = 8")


def test_the_raspberry_pis_script_is_not_believed_blindly(member):
    right = int(np.sum(member.logits.argmax(1) == member.labels))
    names = sorted(path.name for path in member.bundle.glob("model_*.tflite"))
    lines = [f"{name}: {right} of 100 right, 0.012 ms" for name in names]
    arm._check_script(member, "\n".join(["100 images, median of 5 calls", *lines]))
    with pytest.raises(RuntimeError, match="the script ran "):
        arm._check_script(member, "\n".join(lines[1:]))
    wrong = lines[names.index(arm.FLOAT)].replace(f"{right} of", f"{right - 9} of")
    with pytest.raises(RuntimeError, match=f"{right - 9} images right with model_f32.tflite"):
        arm._check_script(member, "\n".join(wrong if arm.FLOAT in x else x for x in lines))


def test_jax_needs_its_own_support_of_a_gpu_to_run_there(member, monkeypatch):
    monkeypatch.setattr(gpu, "_driver", lambda name: tool.Tool(name, "1", ""))
    (member.bundle / "gpu").mkdir()
    (member.bundle / gpu.JAX).write_bytes(b"not to be run")
    (entry,) = gpu.measure(member, [backend.Artifact(gpu.JAX, "jax")]).values()
    assert entry["status"] == "unsupported"
    assert entry["reason"] == "built; running it needs: pip install 'jax[cuda13]'"


@pytest.mark.parametrize("name", ["mcu", "fpga", "arm"])
def test_a_portable_file_that_is_missing_says_why(name, member):
    needed = {"mcu": "model_int8.tflite", "fpga": "weights.safetensors"}
    file = needed.get(name, "model.stablehlo.mlirbc")
    entry = {"status": "failed", "reason": "the converter used DIV"}
    lame = dataclasses.replace(member, portable=member.portable | {file: entry})
    made = BACKENDS[name].build(lame)
    reasons = {str(artifact.problem) for artifact in made if artifact.problem}
    assert f"{file} is failed: the converter used DIV" in reasons
    entries = BACKENDS[name].measure(lame, [artifact for artifact in made if artifact.problem])
    assert {entry["status"] for entry in entries.values()} == {"unsupported"}


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


@pytest.mark.parametrize("deployed", ["arm"], indirect=True)
def test_without_a_compiler_an_emulated_arm_runs_and_only_its_instructions_are_not_counted(
    deployed, monkeypatch
):
    find, member = tool.find_program, read_member(deployed[0])
    monkeypatch.setattr(tool, "find_program", lambda name: None if name == "g++" else find(name))
    monkeypatch.setattr(arm, "_run", lambda member: member.logits[: arm.NUM_IMAGES])  # it has run
    artifact = backend.Artifact(arm.AARCH64, "iree")
    (entry,) = arm.measure(member, [artifact]).values()
    assert (entry["status"], entry["parity"]["images"]) == ("ok", arm.NUM_IMAGES)
    assert entry["not_counted"] == "g++ is not installed: apt-get install g++"
    assert "instructions" not in entry["cost"]


def test_a_program_that_is_not_here_is_one_line():
    with pytest.raises(RuntimeError, match=r"^no-such-program cannot be started: No such file"):
        tool.run(["no-such-program"])


def test_a_module_that_writes_nothing_has_no_logits_of_the_image_before(monkeypatch, tmp_path):
    calls = []

    def run(command, **settings):
        if not calls:
            (path,) = (word.partition("@")[2] for word in command if word.startswith("--output"))
            np.save(path, np.ones((1, 10), np.float32))
        calls.append(command)
        return "", ""

    monkeypatch.setattr(tool, "run", run)
    with pytest.raises(FileNotFoundError):
        iree.run_module(["iree-run-module"], tmp_path / "m", np.zeros((2, 4, 4, 3), np.uint8))
    assert len(calls) == 2


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
