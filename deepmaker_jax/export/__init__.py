"""Export: a trained network as files that run elsewhere, each compared with JAX.

The names below are loaded when they are first used: reading and checking a
bundle needs no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepmaker_jax.export.bundle import export_bundle, load
    from deepmaker_jax.export.manifest import read_bundle
    from deepmaker_jax.export.model import Model
    from deepmaker_jax.export.onnx import to_onnx
    from deepmaker_jax.export.run import run_onnx, run_tflite
    from deepmaker_jax.export.stablehlo import to_jax_export, to_stablehlo
    from deepmaker_jax.export.tflite import to_tflite, to_tflite_int8
    from deepmaker_jax.export.weights import load_weights, save_weights

_PLACES = {
    "Model": "model",
    "export_bundle": "bundle",
    "load": "bundle",
    "load_weights": "weights",
    "read_bundle": "manifest",
    "run_onnx": "run",
    "run_tflite": "run",
    "save_weights": "weights",
    "to_jax_export": "stablehlo",
    "to_onnx": "onnx",
    "to_stablehlo": "stablehlo",
    "to_tflite": "tflite",
    "to_tflite_int8": "tflite",
}
__all__ = [
    "Model", "export_bundle", "load", "load_weights", "read_bundle", "run_onnx", "run_tflite",
    "save_weights", "to_jax_export", "to_onnx", "to_stablehlo", "to_tflite", "to_tflite_int8",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
