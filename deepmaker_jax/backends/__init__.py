"""Backends: a front member on its devices, built, run or simulated, measured.

Each is one small module with the same three functions, `probe`, `build` and
`measure`, in a `Backend`. One of your own is passed to
`deepmaker_jax.deploy.deploy(run, backends={...})`.
"""

from deepmaker_jax.backends import arm, cpu, fpga, gpu, mcu
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
from deepmaker_jax.errors import MissingToolError, UnsupportedError

BACKENDS = {b.name: b for b in (arm.BACKEND, mcu.BACKEND, cpu.BACKEND, gpu.BACKEND, fpga.BACKEND)}
__all__ = [
    "BACKENDS", "Artifact", "Backend", "Entry", "Member", "MissingToolError", "Tool",
    "UnsupportedError", "attempt", "entry", "measure_each", "measured",
]  # fmt: skip
