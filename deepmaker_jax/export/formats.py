"""The portable files of a bundle: how each is made, run and judged."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax import cost
from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.export import onnx, stablehlo, tflite, weights
from deepmaker_jax.export.bias import Variables, correct_bias
from deepmaker_jax.export.manifest import WEIGHTS
from deepmaker_jax.export.model import Model
from deepmaker_jax.export.operators import operators
from deepmaker_jax.export.parity import RULES, Rule
from deepmaker_jax.export.run import run_onnx, run_tflite


class Material(NamedTuple):
    """What the files of a bundle are made from.

    Attributes:
      arch: the architecture.
      variables: trained, of `Network(layers(arch))`.
      calibration: uint8[k, h, w, c], training images for int8 ranges.
      seed: that drew them; None where nothing did.
    """

    arch: ArchSpec
    variables: dict[str, Any]
    calibration: np.ndarray
    seed: int | None


class Format(NamedTuple):
    """One file of a bundle.

    Attributes:
      path: in the bundle.
      make: from the material to the file.
      run: from the file, the images (uint8[n, h, w, c]) and the architecture to
        logits, Float32[n, classes].
      tool: returns the maker's name and version.
      describe: from the file and the material to further keys of its entry.
    """

    path: str
    make: Callable[[Material], bytes]
    run: Callable[[bytes, np.ndarray, ArchSpec], np.ndarray]
    tool: Callable[[], str]
    describe: Callable[[bytes, Material], dict[str, Any]] = lambda file, material: {}

    @property
    def rule(self) -> Rule:
        """What the logits must keep to."""
        return RULES[self.path]


def _weights(m: Material) -> bytes:
    return weights.to_bytes(m.arch, m.variables)


def _corrected(make: Callable[[Variables], bytes], m: Material) -> bytes:
    return correct_bias(make, m.arch, m.variables, m.calibration)


def _float16(m: Material) -> bytes:
    return _corrected(lambda variables: tflite.to_tflite(m.arch, variables, "float16"), m)


def _dynamic(m: Material) -> bytes:
    return _corrected(lambda variables: tflite.to_tflite(m.arch, variables, "dynamic"), m)


def _int8(m: Material) -> bytes:
    return _corrected(lambda variables: tflite.to_tflite_int8(m.arch, variables, m.calibration), m)


def _run_weights(file: bytes, images: np.ndarray, arch: ArchSpec) -> np.ndarray:
    return Model.of("", *weights.from_bytes(file)).logits(images)


def _run_tflite(file: bytes, images: np.ndarray, arch: ArchSpec) -> np.ndarray:
    return run_tflite(file, images)


def _describe_tflite(file: bytes, m: Material) -> dict[str, Any]:
    """Returns the operators, by name and number, and what they and the file cost."""
    names = operators(file)
    return {
        "operators": {name: names.count(name) for name in sorted(set(names))},
        "cost": {
            "flash_bytes": {"value": len(file), "unit": "bytes", "how": "size of the file"},
            "operators": {"value": len(names), "unit": "operators", "how": "counted in the file"},
        },
    }


def _describe_corrected(file: bytes, m: Material) -> dict[str, Any]:
    """Adds which images corrected the bias."""
    calibration = {"images": len(m.calibration), "seed": m.seed, "how": "training images"}
    return _describe_tflite(file, m) | {"calibration": calibration}


def _describe_int8(file: bytes, m: Material) -> dict[str, Any]:
    found = _describe_corrected(file, m)
    estimate = cost.flash_bytes(layers(m.arch))
    peak, arena = (cost.cost_of(m.arch, name) for name in ("peak_activation_bytes", "arena_bytes"))
    found["cost"] |= {
        "flash_bytes_estimate": {"value": estimate, "unit": "bytes", "how": "cost model"},
        "peak_activation_bytes": {"value": peak, "unit": "bytes", "how": "cost model"},
        "arena_bytes_estimate": {"value": arena, "unit": "bytes", "how": "cost model"},
        "quantize_operators": {
            "value": found["operators"].get("QUANTIZE", 0),
            "unit": "operators",
            "how": "counted in the file",
        },
    }
    found["calibration"]["how"] += "; for the ranges, also an all-0 and an all-255 image"
    return found


# The weights first: they cost a training. jax2onnx last: it takes the longest to import.
FORMATS = (
    Format(WEIGHTS, _weights, _run_weights, lambda: weights.FORMAT),
    Format(
        "model_f32.tflite", lambda m: tflite.to_tflite(m.arch, m.variables), _run_tflite,
        tflite.tool_version, _describe_tflite,
    ),
    Format(
        "model_f16.tflite", _float16, _run_tflite, tflite.tool_version, _describe_corrected,
    ),
    Format(
        "model_dynamic.tflite", _dynamic, _run_tflite, tflite.tool_version, _describe_corrected,
    ),
    Format(
        "model_int8.tflite", _int8, _run_tflite, tflite.tool_version, _describe_int8,
    ),
    Format(
        "model.stablehlo.mlirbc", lambda m: stablehlo.to_stablehlo(m.arch, m.variables),
        lambda file, images, arch: stablehlo.run_stablehlo(file, images, arch.num_classes),
        stablehlo.tool_version,
    ),
    Format(
        "model.jax_export", lambda m: stablehlo.to_jax_export(m.arch, m.variables),
        lambda file, images, arch: stablehlo.run_jax_export(file, images),
        stablehlo.tool_version,
    ),
    Format(
        "model.onnx", lambda m: onnx.to_onnx(m.arch, m.variables),
        lambda file, images, arch: run_onnx(file, images), onnx.tool_version,
    ),
)  # fmt: skip
