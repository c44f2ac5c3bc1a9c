"""Which program trains candidates here: chosen once, before the first of them."""

import os
import platform
from typing import Any

import jax

from deepmaker_jax.config import Config
from deepmaker_jax.errors import InputError
from deepmaker_jax.execute import runtime
from deepmaker_jax.machine import num_cores, processor, version_of

TRAINING_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")  # that a worker computes with
PACKAGES = (
    "deepmaker-jax", *TRAINING_PACKAGES, "evosax", "moocore", "tensorflow", "ai-edge-litert",
    "jax2onnx", "onnxruntime", "pillow", "scipy", "scikit-learn",
)  # fmt: skip
PRESELECTION_PACKAGES = ("scikit-learn",)  # that decide nothing without it


# From benchmarks/results/programs.json: what a network's own program costs to compile, and what it
# does a second in training; a size class's program is compiled once and is slower by this share.
COMPILE_SECONDS, FLOPS_A_SECOND, CLASS_SLOWER = 2.7, 70.5e9, 0.56

DETERMINISTIC = "xla_gpu_deterministic_ops=true"


def choose(
    executor: str, wanted: str, *, search_flops: float, final_flops: float
) -> dict[str, Any]:
    """Returns the program as it stands in config.json.

    "map" trains the networks that fit a size class in that class's one program,
    "vmap" many of them side by side in it, "plain" each in a program of its own.
    "auto" takes "vmap" on an accelerator, and on a CPU, for each stage, what is
    faster for a candidate of its length: compiling once is worth more the
    shorter a training is. That a class's own program takes three to five times
    as long to compile as a candidate's, in each worker, is not counted: it is
    for searches of dozens of candidates. On a CPU a worker process has one XLA
    thread; this process has as many as it started JAX with: see
    `runtime.one_thread`.

    Args:
      executor: "inline", "lanes", "processes" or "ray".
      wanted: "auto", "plain", "map" or "vmap".
      search_flops: of a typical candidate's training in the search, on average over the rungs.
      final_flops: of one in the final stage.
    """
    device = jax.default_backend()
    single = executor in ("processes", "ray") or runtime.is_one_thread()

    def strategy(flops: float) -> str:
        if wanted != "auto":
            return wanted
        if device != "cpu":
            return "vmap" if executor == "lanes" else "plain"
        lost = CLASS_SLOWER * flops / FLOPS_A_SECOND
        return "map" if lost < COMPILE_SECONDS else "plain"

    return {
        "strategy": strategy(search_flops),
        "final_strategy": strategy(final_flops),
        "size_class": None,
        "lanes": 1,
        "threads": None if device != "cpu" else 1 if single else num_cores(),
        "device": device,
    }


def executor(config: Config) -> str:
    """Returns where candidates train: "inline", "processes", "ray", or "lanes" side by side.

    `auto` means processes on a CPU, lanes on an accelerator.

    Raises:
      InputError: candidates side by side, and each in a process of its own; a
        cluster's processors, and an accelerator here.
    """
    if config.program == "vmap":
        if config.executor in ("processes", "ray"):
            raise InputError(
                "program (=vmap) trains candidates side by side in this process: leave "
                f"--executor {config.executor} out, or take --program map"
            )
        return "lanes"
    on_cpu = jax.default_backend() == "cpu"
    if config.executor == "ray" and not on_cpu:
        raise InputError("executor (=ray) trains on CPUs: set JAX_PLATFORMS=cpu")
    if config.executor != "auto":
        return config.executor
    if on_cpu:
        return "processes"
    return "lanes" if config.program == "auto" else "inline"


def versions(*, preselects: bool = True) -> dict[str, str]:
    """Returns the versions that results depend on, with preselection or without."""
    names = [name for name in PACKAGES if preselects or name not in PRESELECTION_PACKAGES]
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def training_conditions() -> dict[str, Any]:
    """Returns what the bits of a training depend on beside its unit: versions and the machine."""
    return {name: _version(name) for name in TRAINING_PACKAGES} | describe_platform()


def _version(name: str) -> str:
    return version_of(name) or "not installed"  # but run from its folder


def describe_platform() -> dict[str, Any]:
    """Returns the machine, as far as results depend on it."""
    device = jax.devices()[0]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": processor(),
        "device": device.device_kind,
    }


def reproducible(program: dict[str, Any]) -> tuple[bool, str | None]:
    """Returns whether a run again gives the same bits, and if not, why."""
    threads = program["threads"]
    if program["device"] == "cpu" and threads != 1:
        return False, (
            f"XLA had {threads} CPU threads: take --executor processes, or call "
            "deepmaker_jax.one_thread() before JAX starts"
        )
    if program["device"] == "gpu" and DETERMINISTIC not in os.environ.get("XLA_FLAGS", ""):
        return False, (
            "XLA chooses a GPU's kernels by timing them: set XLA_FLAGS=--" + DETERMINISTIC
        )
    return True, None
