"""Microcontrollers: TensorFlow Lite Micro, and Arm's Ethos-U beside it."""

import csv
import pathlib
import platform
import re
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.backends import tool
from deepmaker_jax.backends.backend import (
    Artifact,
    Backend,
    Entry,
    Member,
    Tool,
    attempt,
    entry,
    measure_each,
    measured,
)  # fmt: skip
from deepmaker_jax.backends.boards import BOARDS, excess
from deepmaker_jax.backends.firmware import (
    read_model,
    scratch_bytes,
    write_header,
    write_model,
    write_program,
)  # fmt: skip
from deepmaker_jax.backends.tflm import arena_bytes
from deepmaker_jax.export.operators import allowed_operators

EXTRA = "pip install 'deepmaker-jax[mcu]'"
MODEL, HEADER, PROGRAM = "mcu/model.cc", "mcu/model.h", "mcu/main.cc"
INT8 = "model_int8.tflite"
ACCELERATOR = "ethos-u55-128"
ETHOS = f"mcu/model_{ACCELERATOR.replace('-', '_')}.tflite"
NO_KERNEL = {"SELECT", "EXP"}
CONFIGURATION = ("Ethos_U55_High_End_Embedded", "Shared_Sram")  # Vela's own, for this core
# TFLM's kernels and TFLite's reference differ by one step in 4 of 100 images of the deepest network
# of a CIFAR-10 front; TFLite's fast kernels differ from either by 3, in nearly all.
ROUNDING_STEPS = 2
ARENA_HOW = "allocated by tflite-micro on this 64-bit machine; pointers are half as long on the MCU"


def supports(arch: ArchSpec) -> list[str]:
    """Returns every reason why TensorFlow Lite Micro cannot do a network."""
    lacking = sorted(allowed_operators(arch, "int8") & NO_KERNEL)
    if not lacking:
        return []
    return [
        f"activation {arch.activation} needs {' and '.join(lacking)}, for which TensorFlow Lite "
        "Micro has no int8 kernel"
    ]


def probe() -> list[Tool]:
    """Returns TensorFlow Lite Micro's interpreter, Vela, and what reads and runs int8 files."""
    return [_micro(), _vela(), *_readers()]


def _micro() -> Tool:
    found = tool.package("tflite-micro", install=EXTRA)
    has_wheel = (sys.platform, platform.machine()) == ("linux", "x86_64")
    return found if has_wheel else found._replace(install="it is for Linux on x86-64: deploy there")


def _vela() -> Tool:
    return tool.package("ethos-u-vela", install=EXTRA)


def _readers() -> list[Tool]:
    return [tool.litert(), tool.package("tflite", install=EXTRA)]


def build(member: Member) -> list[Artifact]:
    """Writes the C++ sources, and the file that an Ethos-U runs."""
    micro, vela, scratch = _micro(), _vela(), scratch_bytes(layers(member.arch))
    model, header, program = (member.bundle / path for path in (MODEL, HEADER, PROGRAM))

    def int8() -> pathlib.Path:
        tool.need(micro, *_readers())  # without the arena's size the sources are of no use
        return member.file(INT8)

    def arena() -> int:
        return run_tflm(int8().read_bytes(), member.images[:1])[1]

    def ethos() -> None:
        tool.need(vela)
        with tempfile.TemporaryDirectory() as folder:
            run_vela(member.file(INT8), pathlib.Path(folder))
            (made,) = pathlib.Path(folder).glob("*_vela.tflite")
            (member.bundle / ETHOS).write_bytes(made.read_bytes())

    made = (
        (MODEL, micro, lambda: write_model(model, int8().read_bytes())),
        (HEADER, micro, lambda: write_header(header, arena(), scratch=scratch)),
        (PROGRAM, micro, lambda: write_program(program, int8().read_bytes())),
        (ETHOS, vela, ethos),
    )
    return [attempt(member.bundle, path, tool.label(by), make) for path, by, make in made]


def measure(member: Member, artifacts: Sequence[Artifact]) -> dict[str, Entry]:
    """Runs the model as a microcontroller does, and asks Vela what an Ethos-U would take."""

    def run(artifact: Artifact) -> Entry:
        if artifact.path == MODEL:
            return _measure_model(member, artifact)
        if artifact.path == ETHOS:
            return _measure_ethos(member, artifact)
        return entry(member, artifact)

    return measure_each(member, artifacts, run)


def _run(member: Member) -> np.ndarray:
    """Returns the logits of the model in the C++ source."""
    from deepmaker_jax.export import litert

    tool.need(_micro(), tool.litert())
    model = read_model(member.bundle / MODEL)
    steps, _, _ = run_tflm(model, member.images)
    return litert.dequantize(litert.open_tflite(model), steps)


def _measure_model(member: Member, artifact: Artifact) -> Entry:
    from deepmaker_jax.export import litert

    model = read_model(member.bundle / MODEL)
    steps, arena, activations = run_tflm(model, member.images)
    tflite = litert.open_tflite(model, reference=True)
    logits = litert.dequantize(tflite, steps)
    flash = len(model)
    boards = [name for name in BOARDS if not excess(name, flash_bytes=flash, arena_bytes=arena)]
    unlike = np.abs(steps.astype(int) - litert.run(tflite, member.images))
    cost = {
        "flash_bytes": measured(flash, "bytes", "the model; the runtime's code comes on top"),
        "arena_bytes": measured(arena, "bytes", ARENA_HOW),
        "arena_activation_bytes": measured(activations, "bytes", ARENA_HOW),
        "boards": measured(len(boards), "boards", f"it fits {', '.join(boards) or 'none'}"),
        "images_unlike_tflite": measured(
            int(np.sum(np.any(unlike > 0, axis=1))), "images",
            f"of {len(steps)}, by at most {unlike.max()} int8 steps from TFLite's reference",
        ),
    }  # fmt: skip
    found = entry(member, artifact, logits=logits, cost=cost)
    if unlike.max() > ROUNDING_STEPS:
        found["status"] = "failed"
        found["reason"] = f"tflite-micro and TFLite differ by {unlike.max()} int8 steps"
    return found


def _measure_ethos(member: Member, artifact: Artifact) -> Entry:
    with tempfile.TemporaryDirectory() as folder:
        said, summary = run_vela(member.file(INT8), pathlib.Path(folder))
    how = f"Vela's estimate for {ACCELERATOR}, {', '.join(CONFIGURATION)}; not run"
    clock, cycles = float(summary["core_clock"]), int(float(summary["cycles_total"]))
    number, fallen = cpu_operators(said)
    names = f": {', '.join(fallen)}" if fallen else ""
    cost = {
        "sram_bytes": measured(round(1024 * float(summary["sram_memory_used"])), "bytes", how),
        "cycles": measured(cycles, "cycles", how),
        "latency": measured(1000 * cycles / clock, "ms", f"{how}; at {clock / 1e6:.0f} MHz"),
        "cpu_operators": measured(number, "operators", f"left to the CPU by Vela{names}"),
    }
    found = entry(member, artifact, cost=cost)
    return found | {"status": "unsupported", "reason": "built; running it needs an Ethos-U"}


def cpu_operators(said: str) -> tuple[int, list[str]]:
    """Returns (operators that Vela left to the CPU, their names) from its words.

    Raises:
      RuntimeError: it did not say how many.
    """
    counted = re.search(r"CPU operators = (\d+)", said)
    if counted is None:
        raise RuntimeError("Vela did not say how many operators it left to the CPU")
    names = re.findall(
        r"^(?:Info|Warning): (\S+) .*(?:is a CPU only op|is not supported on the NPU)", said,
        re.MULTILINE,
    )  # fmt: skip
    return int(counted[1]), sorted(set(names))


def run_tflm(model: bytes, images: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Returns (int8 logits, arena bytes, those of activations) of a model under tflite-micro."""
    with tempfile.TemporaryDirectory() as place:
        files = [
            pathlib.Path(place) / name for name in ("model.tflite", "images.npy", "logits.npy")
        ]
        files[0].write_bytes(model)
        np.save(files[1], (images ^ 0x80).view(np.int8))  # scale 1, zero point -128
        _, said = tool.run([sys.executable, "-m", "deepmaker_jax.backends.tflm", *files])
        return np.load(files[2]), *arena_bytes(said)


def run_vela(int8: pathlib.Path, folder: pathlib.Path) -> tuple[str, dict[str, str]]:
    """Compiles for the Ethos-U; returns (what Vela printed, its summary's row)."""
    system, memory = CONFIGURATION
    said, _ = tool.run([
        tool.find_program("vela") or "vela", int8.absolute(), "--output-dir", folder,
        "--accelerator-config", ACCELERATOR, "--system-config", system, "--memory-mode", memory,
        "--config", "Arm/vela.ini", "--show-cpu-operations",
    ])  # fmt: skip
    (summary,) = folder.glob("*_summary_*.csv")
    with open(summary, newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return said, row


BACKEND = Backend(
    "mcu", "TensorFlow Lite Micro in C++, and Ethos-U by Vela", probe, build, measure,
    supports=supports, light=True, runs={MODEL: _run},
)  # fmt: skip
