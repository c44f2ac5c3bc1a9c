"""Graphics processors: IREE for Vulkan and for CUDA, and JAX's own form for CUDA.

No machine with an NVIDIA GPU was at hand: CUDA's files were built, and what runs
them was never tried.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np

from deepmaker_jax.backends import iree, tool
from deepmaker_jax.backends.backend import (
    Artifact,
    Backend,
    Entry,
    Member,
    Tool,
    attempt,
    entry,
    measure_each,
)  # fmt: skip
from deepmaker_jax.errors import MissingToolError
from deepmaker_jax.export.parity import FLOAT32

NUM_IMAGES = 20
VULKAN, CUDA, JAX = "gpu/model_vulkan.vmfb", "gpu/model_cuda.vmfb", "gpu/model_cuda.jax_export"
DEVICES = {VULKAN: "vulkan", CUDA: "cuda"}
FLAGS = {
    VULKAN: ("--iree-hal-target-device=vulkan",),
    CUDA: ("--iree-hal-target-device=cuda",),
}
DRIVERS = {
    "vulkan": ("Vulkan driver", "apt-get install mesa-vulkan-drivers"),
    "cuda": ("CUDA driver", "an NVIDIA GPU and its driver"),
}


def probe() -> list[Tool]:
    """Returns IREE and the drivers that it can run on."""
    drivers = [_driver(name) for name in DRIVERS]
    return [iree.compiler(), iree.runtime(), *drivers, tool.package("jax"), _jax_cuda()]


def _driver(name: str) -> Tool:
    """Returns a driver as a tool; its version is the device that IREE finds."""
    title, install = DRIVERS[name]
    return Tool(title, _device(name), install)


def _jax_cuda() -> Tool:
    """Returns JAX's own support of CUDA, a package for each of its major versions."""
    here = (tool.package(f"jax-cuda{major}-plugin").version for major in (13, 12))
    return Tool("JAX for CUDA", next(filter(None, here), None), "pip install 'jax[cuda13]'")


def build(member: Member) -> list[Artifact]:
    """Compiles for both kinds of device, and exports from JAX."""
    made = [
        attempt(
            member.bundle, path, tool.label(iree.compiler()),
            lambda path=path, flags=flags: iree.compile_module(
                iree.stablehlo(member), member.bundle / path, flags
            ),
        )
        for path, flags in FLAGS.items()
    ]  # fmt: skip

    def export() -> None:
        from deepmaker_jax.export.stablehlo import export_network

        exported = export_network(*member.weights(), batch=1, platforms=("cuda",))
        (member.bundle / JAX).write_bytes(exported.serialize())

    made.append(attempt(member.bundle, JAX, tool.label(tool.package("jax")), export))
    return made


def measure(member: Member, artifacts: Sequence[Artifact]) -> dict[str, Entry]:
    """Runs each where its device is; a software driver is for parity, so nothing is timed."""

    def run(artifact: Artifact) -> Entry:
        return entry(member, artifact, logits=RUNS[artifact.path](member), rule=FLOAT32)

    return measure_each(member, artifacts, run)


def _need(*tools: Tool) -> None:
    """Raises MissingToolError for what a file needs to run and is not here."""
    missing = [found.install for found in tools if found.version is None]
    if missing:
        raise MissingToolError(f"built; running it needs: {missing[0]}")


def _run_iree(path: str, member: Member) -> np.ndarray:
    """Returns the logits of an IREE module on the first device of its kind."""
    _need(_driver(DEVICES[path]), iree.runtime())
    command = [_runner(), f"--device={DEVICES[path]}"]
    return iree.run_module(command, member.bundle / path, member.images[:NUM_IMAGES])


def _run_jax(member: Member) -> np.ndarray:
    """Returns the logits of JAX's own form, on the GPU that JAX has."""
    _need(_driver("cuda"), _jax_cuda())
    import jax

    function = jax.export.deserialize(bytearray((member.bundle / JAX).read_bytes()))
    gpu, images = jax.devices("cuda")[0], member.images[:NUM_IMAGES]
    pixels = [jax.device_put(image[None].astype(np.float32), gpu) for image in images]
    return np.concatenate([np.asarray(function.call(image)) for image in pixels])


def _runner() -> str:
    return tool.find_program("iree-run-module") or "iree-run-module"


def _device(driver: str) -> str | None:
    """Returns the name of the first device that IREE finds under a driver, or None."""
    if iree.runtime().version is None:
        return None
    try:
        said, _ = tool.run([_runner(), f"--dump_devices={driver}"], timeout_seconds=60)
    except RuntimeError:  # what iree-run-module says when the driver's library is not here
        return None
    names = re.findall(r"^# --device=\S+\n#\s+(.+)$", said, re.MULTILINE)
    return names[0] if names else None


RUNS = {path: functools.partial(_run_iree, path) for path in DEVICES} | {JAX: _run_jax}
BACKEND = Backend(
    "gpu", "IREE for Vulkan and CUDA, jax.export for CUDA", probe, build, measure, runs=RUNS
)
