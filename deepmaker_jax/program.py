"""Which program trains candidates here: chosen once, before the first of them."""

import os
import platform
from importlib import metadata
from typing import Any

import jax

from deepmaker_jax.execute import runtime

PACKAGES = ("deepmaker-jax", "jax", "jaxlib", "flax", "optax", "evosax", "numpy")


def choose() -> dict[str, Any]:
    """Returns the program as it stands in config.json.

    One plain network at a time is the only strategy so far. On a CPU a program
    has one XLA thread: see `runtime.one_thread`.
    """
    device = jax.default_backend()
    return {
        "strategy": "plain",
        "size_class": None,
        "lanes": 1,
        "threads": 1 if device == "cpu" else None,
        "device": device,
    }


def versions() -> dict[str, str]:
    """Returns the versions that results depend on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        return "not installed"


def describe_platform() -> dict[str, Any]:
    """Returns the machine, as far as results depend on it."""
    device = jax.devices()[0]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "device": device.device_kind,
    }


def _processor() -> str:
    """Returns the processor's name; Linux hides it in a file."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def num_cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reproducible(executor: str) -> tuple[bool, str | None]:
    """Returns whether a run again gives the same bits, and if not, why."""
    if jax.default_backend() == "cpu" and executor == "inline" and not runtime.is_one_thread():
        return False, (
            "XLA had several CPU threads: call deepmaker_jax.one_thread() before JAX computes"
        )
    return True, None
