"""Arm processors: IREE for 64 and 32 bits, and TFLite on a Raspberry Pi."""

import pathlib
import re
import sys
from collections.abc import Sequence

import numpy as np

from deepmaker_jax.backends import aarch64, instructions, iree, tool
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
from deepmaker_jax.backends.raspberry import SCRIPT
from deepmaker_jax.errors import MissingToolError, one_line
from deepmaker_jax.export.parity import FLOAT32, Expected, compare

NUM_IMAGES = 20  # under emulation
# name -> what `iree-compile` is told of the processor
TARGETS = {
    "arm/model_aarch64.vmfb": (
        "--iree-llvmcpu-target-triple=aarch64-linux-gnu", "--iree-llvmcpu-target-cpu=cortex-a53",
    ),
    "arm/model_armv7a.vmfb": (
        "--iree-llvmcpu-target-triple=armv7a-linux-gnueabihf",
        "--iree-llvmcpu-target-cpu-features=+neon,+vfp4",
    ),
}  # fmt: skip
AARCH64, ARMV7A = TARGETS
PI = "arm/raspberry_pi.py"
FLOAT, EMULATOR = "model_f32.tflite", "qemu-aarch64"
LIBRARIES = pathlib.Path("/usr/aarch64-linux-gnu")
PACKAGES = "apt-get install qemu-user libc6-arm64-cross libstdc++6-arm64-cross"


def probe() -> list[Tool]:
    """Returns what compiles, what emulates, and what the Raspberry Pi's script needs."""
    return [iree.compiler(), *_emulation(), instructions.compiler(), tool.litert()]


def _emulation() -> list[Tool]:
    """Returns the emulator and what runs in it."""
    libraries = LIBRARIES / "lib" / "libstdc++.so.6"
    return [
        tool.program(EMULATOR, install=PACKAGES),
        Tool("aarch64 libraries", "installed" if libraries.exists() else None, PACKAGES),
        aarch64.runtime(),
    ]


def build(member: Member) -> list[Artifact]:
    """Compiles for each kind of processor, and writes what a Raspberry Pi runs."""
    made = [
        attempt(
            member.bundle, path, tool.label(iree.compiler()),
            lambda path=path, flags=flags: iree.compile_module(
                iree.stablehlo(member), member.bundle / path, (*iree.LOCAL, *flags)
            ),
        )
        for path, flags in TARGETS.items()
    ]  # fmt: skip
    script = member.bundle / PI
    made.append(attempt(member.bundle, PI, "deepmaker-jax", lambda: _write(script, SCRIPT)))
    return made


def measure(member: Member, artifacts: Sequence[Artifact]) -> dict[str, Entry]:
    """Runs the 64-bit program under emulation, and the Raspberry Pi's script here."""

    def run(artifact: Artifact) -> Entry:
        if artifact.path == AARCH64:
            return _emulate(member, artifact)
        if artifact.path == PI:
            return _run_script(member, artifact)
        found = entry(member, artifact)
        return found | {
            "status": "unsupported",
            "reason": "built; running it needs a 32-bit Arm, for which IREE has no runtime package",
        }

    return measure_each(member, artifacts, run)


def _emulator() -> str:
    return tool.find_program(EMULATOR) or EMULATOR


def _run(member: Member, num_images: int = NUM_IMAGES, options: Sequence[str] = ()) -> np.ndarray:
    """Returns the logits of the 64-bit program, the emulator started with these options."""
    tool.need(*_emulation())
    command = [_emulator(), *options, "-L", LIBRARIES, aarch64.runner(), "--device=local-sync"]
    return iree.run_module(command, member.bundle / AARCH64, member.images[:num_images])


def _emulate(member: Member, artifact: Artifact) -> Entry:
    logits = _run(member)
    how = "of the file; run under qemu-user, whose clock says nothing of a processor's"
    num_bytes = (member.bundle / artifact.path).stat().st_size
    cost = {"flash_bytes": measured(num_bytes, "bytes", how)}
    not_counted = {}
    try:
        executed = instructions.count(_emulator(), lambda options: _run(member, 1, options))
        how = "counted by a plugin in qemu-user: the network's own, one image, float32"
        cost["instructions"] = measured(executed, "instructions", how)
    except MissingToolError as problem:
        not_counted = {"not_counted": str(problem)}
    except RuntimeError as problem:  # the file ran and agrees all the same
        not_counted = {"not_counted": one_line(problem)}
    return entry(member, artifact, logits=logits, rule=FLOAT32, cost=cost) | not_counted


def _run_script(member: Member, artifact: Artifact) -> Entry:
    """Runs the script as the Raspberry Pi would, on this machine's processor."""
    tool.need(tool.litert())
    said, _ = tool.run([sys.executable, (member.bundle / artifact.path).absolute(), "--calls", "5"])
    _check_script(member, said)
    return entry(member, artifact) | {"command": f"python3 models/{member.id}/{PI}"}


def _check_script(member: Member, said: str) -> None:
    """Raises RuntimeError unless the script ran every TFLite file, the float one as JAX does."""
    line = r"^(model_\w+\.tflite): (\d+) of \d+ right, [\d.]+ ms$"
    found = dict(re.findall(line, said, re.MULTILINE))
    files = {path.name for path in member.bundle.glob("model_*.tflite")}
    if set(found) != files:
        raise RuntimeError(f"the script ran {sorted(found)}, not {sorted(files)}")
    member.file(FLOAT)
    expected = Expected(member.images, member.labels, member.logits)
    parity, accuracy, _ = compare(member.logits, expected, FLOAT32)
    right = round(accuracy * len(member.images))
    # Where the two best logits are as good as equal, rounding may choose the other.
    if abs(int(found[FLOAT]) - right) > parity["close_images"]:
        raise RuntimeError(f"the script has {found[FLOAT]} images right with {FLOAT}, JAX {right}")


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


BACKEND = Backend(
    "arm", "IREE for aarch64 and armv7-a, TFLite for a Raspberry Pi", probe, build, measure,
    runs={AARCH64: _run},
)  # fmt: skip
