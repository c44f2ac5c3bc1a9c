"""From a trained network to StableHLO: a portable artifact, and JAX's own export.

Both are stripped of debug locations, which name source files and lines, so that
equal networks give equal bytes wherever they are exported.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend import mlir
from jax.extend.mlir.dialects import stablehlo
from jax.extend.mlir.passmanager import PassManager
from jax.interpreters.mlir import make_ir_context

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.models import folded_network

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # that `model.jax_export` can be called on
BATCH = 250  # images a call, where the file takes any number


def to_stablehlo(arch: ArchSpec, variables: dict[str, Any]) -> bytes:
    """Returns the network as a StableHLO portable artifact for one image.

    Args:
      arch: its architecture.
      variables: of the plain `Network(layers(arch))`; folded here.

    Returns:
      A module with `main` from float32[1, h, w, c], raw pixels 0..255, to
      logits, float32[1, classes], which StableHLO tools of the last twelve weeks
      before this JAX read.
    """
    return export_network(arch, variables, batch=1, platforms=("cpu",)).mlir_module_serialized


def to_jax_export(arch: ArchSpec, variables: dict[str, Any]) -> bytes:
    """Returns the network as `jax.export` writes it, for any number of images.

    Example:
      network = jax.export.deserialize(bytearray(file))
      network.call(images)  # images: float32[b, h, w, c], raw pixels 0..255
    """
    (batch,) = export.symbolic_shape("b")
    return bytes(export_network(arch, variables, batch=batch, platforms=PLATFORMS).serialize())


def run_stablehlo(model: bytes, images: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the logits that a portable artifact gives in JAX, one image a call.

    Args:
      model: what `to_stablehlo` returns.
      images: uint8[n, h, w, c].
      num_classes: of the network.

    Returns:
      Float32[n, classes].
    """
    # An artifact has no more than its module: the frame is that of a network of these shapes.
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), np.float32)
    frame = export.export(
        jax.jit(lambda image: jnp.zeros((1, num_classes)) + image.sum()), platforms=("cpu",)
    )(image)
    call = jax.jit(dataclasses.replace(frame, mlir_module_serialized=model).call)
    rows = [np.asarray(call(image[None].astype(np.float32))) for image in images]
    return np.concatenate([np.zeros((0, num_classes), np.float32), *rows])


def run_jax_export(model: bytes, images: np.ndarray) -> np.ndarray:
    """Returns the logits, Float32[n, classes], that JAX's own file gives for uint8[n, h, w, c]."""
    call = jax.jit(export.deserialize(bytearray(model)).call)
    size = min(BATCH, len(images))
    rows = []
    for start in range(0, len(images), size):
        part = images[start : start + size].astype(np.float32)
        filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
        rows.append(np.asarray(call(filled))[: len(part)])
    return np.concatenate(rows)


def tool_version() -> str:
    """Returns what the manifest calls the exporter, e.g. "jax 0.10.2"."""
    return f"jax {jax.__version__}"


def export_network(
    arch: ArchSpec, variables: dict[str, Any], *, batch: Any, platforms: tuple[str, ...]
) -> export.Exported:
    """Returns `jax.export`'s form of the folded network, without debug locations.

    Args:
      arch: its architecture.
      variables: of the plain `Network(layers(arch))`; folded here.
      batch: images a call; a dimension of `jax.export.symbolic_shape` for any number.
      platforms: that it can be called on.
    """
    network, weights = folded_network(arch, variables)

    def logits(image):
        return network.apply(weights, image)

    image = jax.ShapeDtypeStruct((batch, *arch.input_shape), np.float32)
    # Accelerators round the operands of float32 products unless they are told not to.
    with jax.default_matmul_precision("highest"):
        exported = export.export(jax.jit(logits), platforms=platforms)(image)
    module = _stripped(exported.mlir_module_serialized)
    return dataclasses.replace(exported, mlir_module_serialized=module)


def _stripped(module: bytes) -> bytes:
    """Returns a portable artifact without debug locations."""
    needed = stablehlo.StablehloCompatibilityRequirement.WEEK_12
    with make_ir_context():
        tree = mlir.deserialize_portable_artifact(module)
        PassManager.parse("builtin.module(strip-debuginfo)").run(tree.operation)
        version = stablehlo.get_version_from_compatibility_requirement(needed)
        return mlir.serialize_portable_artifact(tree, version)
