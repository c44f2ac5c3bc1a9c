"""IREE: a member's StableHLO compiled for a target, and run by `iree-run-module`."""

import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

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
    """Returns the network as a portable StableHLO artifact for one batch size."""
    if batch > 1:
        return exported(member, batch=batch, platform="cpu").mlir_module_serialized
    path = member.bundle / "model.stablehlo.mlirbc"
    if not path.is_file():
        raise RuntimeError(f"{path.name} is not in the bundle: run the experiment again")
    return path.read_bytes()


def exported(member: Member, *, batch: int, platform: str) -> Any:
    """Returns `jax.export`'s form of the weights' network for one batch size and platform.

    Not made from `model.jax_export`: the gathers of its symbolic batch stay
    dynamic, which IREE does not compile.
    """
    import jax

    from deepmaker_jax.arch import layers
    from deepmaker_jax.export import load
    from deepmaker_jax.models import Network, fold

    model = load(member.bundle)
    folded, weights = fold(layers(model.arch), model.variables)
    network = Network(folded, folded=True)
    image = jax.ShapeDtypeStruct((batch, *model.arch.input_shape), np.float32)
    function = jax.jit(lambda pixels: network.apply(weights, pixels))
    return jax.export.export(function, platforms=(platform,))(image)


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
    *,
    environment: dict[str, str] | None = None,
) -> np.ndarray:
    """Returns the logits, Float32[n, classes], of a module of batch 1, one process an image.

    Args:
      command: what starts `iree-run-module`, with the device.
      module: the compiled file.
      images: uint8[n, h, w, c].
      environment: variables to add.
    """
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        for image in images:
            np.save(folder / "image.npy", image[None].astype(np.float32))
            tool.run(
                [
                    *command, f"--module={module.absolute()}", "--function=main",
                    f"--input=@{folder / 'image.npy'}", f"--output=@{folder / 'logits.npy'}",
                ],
                environment=environment,
            )  # fmt: skip
            found.append(np.load(folder / "logits.npy")[0])
    return np.stack(found)
