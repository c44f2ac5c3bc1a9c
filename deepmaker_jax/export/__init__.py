"""Export: a trained network as files that run elsewhere, each compared with JAX."""

from deepmaker_jax.export.bundle import export_bundle, load, read_bundle
from deepmaker_jax.export.model import Model
from deepmaker_jax.export.run import run_tflite
from deepmaker_jax.export.tflite import to_tflite, to_tflite_int8
from deepmaker_jax.export.weights import load_weights, save_weights

__all__ = [
    "Model", "export_bundle", "load", "load_weights", "read_bundle", "run_tflite", "save_weights",
    "to_tflite", "to_tflite_int8",
]  # fmt: skip
