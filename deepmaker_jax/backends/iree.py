"""IREE: a member's StableHLO compiled for a target, and run by `iree-run-module`."""

import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from deepmaker_jax.backends import tool
from deepmaker_jax.backends.backend import Member, Tool

LOCAL = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-debug-symbols=false",  # a sixth of the file, and other bytes every time
)


def compiler() -> Tool:
    """Returns IREE's compiler."""
    return tool.package("iree-base-compiler")


def runtime() -> Tool:
    """Returns IREE's runtime for this machine."""
    return tool.package("iree-base-runtime")


def stablehlo(member: Member, *, batch: int = 1) -> bytes:
    """Returns the network as a portable StableHLO artifact for one batch size.

    Larger batches are not taken from `model.jax_export`: the gathers of its
    symbolic batch stay dynamic, which IREE does not compile.
    """
    if batch == 1:
        return member.file("model.stablehlo.mlirbc").read_bytes()
    from deepmaker_jax.export.stablehlo import export_network

    exported = export_network(*member.weights(), batch=batch, platforms=("cpu",))
    return exported.mlir_module_serialized


def compile_module(source: bytes, out: pathlib.Path, flags: Sequence[str]) -> None:
    """Writes an IREE module.

    Args:
      source: a StableHLO artifact.
      out: the file.
      flags: what to compile for.

    Raises:
      MissingToolError: IREE's compiler is not here.
      RuntimeError: it failed.
    """
    tool.need(compiler())
    with tempfile.TemporaryDirectory() as folder:
        place, name = pathlib.Path(folder), "model.mlirbc"  # the module keeps the name
        (place / name).write_bytes(source)
        program = tool.find_program("iree-compile") or "iree-compile"
        tool.run([program, name, *flags, "-o", out.absolute()], folder=place)


def run_module(
    command: Sequence[str | pathlib.Path],
    module: pathlib.Path,
    images: np.ndarray,
) -> np.ndarray:
    """Returns the logits, Float32[n, classes], of a module of batch 1, one process an image.

    Args:
      command: what starts `iree-run-module`, with the device.
      module: the compiled file.
      images: uint8[n, h, w, c].
    """
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        for image in images:
            (folder / "logits.npy").unlink(missing_ok=True)  # not the last image's
            np.save(folder / "image.npy", image[None].astype(np.float32))
            tool.run([
                *command, f"--module={module.absolute()}", "--function=main",
                f"--input=@{folder / 'image.npy'}", f"--output=@{folder / 'logits.npy'}",
            ])  # fmt: skip
            found.append(np.load(folder / "logits.npy")[0])
    return np.stack(found)
