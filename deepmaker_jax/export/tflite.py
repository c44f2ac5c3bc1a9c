"""From a trained network to TFLite files: float32, float16, dynamic range, and full int8."""

import contextlib
import os
import warnings
from types import ModuleType
from typing import Any

import numpy as np

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.errors import InputError, MissingToolError
from deepmaker_jax.export.operators import Form, check_operators
from deepmaker_jax.export.quiet import quiet
from deepmaker_jax.models import folded_network

INT8_INPUT = (1.0, -128)  # scale and zero point: a camera byte goes in with one XOR


def to_tflite(arch: ArchSpec, variables: dict[str, Any], form: Form = "float32") -> bytes:
    """Returns a TFLite file of a trained network; equal bytes for equal arguments.

    Args:
      arch: its architecture.
      variables: of the plain `Network(layers(arch))`; folded here.
      form: "float32"; "float16", weights of half the size that become float32 when
        the file is loaded; or "dynamic", int8 weights of the larger layers, whose
        inputs are quantised image by image.

    Returns:
      A file from "image", float32[1, h, w, c], raw pixels 0..255, to "logits",
      float32[1, classes], with built-in operators only.

    Raises:
      MissingToolError: TensorFlow is not installed.
      RuntimeError: the converter used an operator that is not allowed.
    """
    if form == "int8":
        raise InputError("form (=int8) needs calibration images: call to_tflite_int8")
    tf = _tensorflow()
    with _conversion():
        converter = _converter(tf, arch, variables)
        if form != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if form == "float16":
            converter.target_spec.supported_types = [tf.float16]
        model = converter.convert()
    model = _pack(model)
    check_operators(model, arch, form)
    return model


def to_tflite_int8(arch: ArchSpec, variables: dict[str, Any], calibration: np.ndarray) -> bytes:
    """Returns the full-integer TFLite file of a trained network; equal bytes for equal arguments.

    An all-0 and an all-255 image join the calibration images, so that the
    input's scale is 1.0 and its zero point -128 whatever the images hold.

    Args:
      arch: its architecture.
      variables: of the plain `Network(layers(arch))`; folded here.
      calibration: uint8[k, h, w, c], k >= 1, from the training split.

    Returns:
      A file from int8[1, h, w, c], pixel - 128, to int8[1, classes], quantised
      logits, with built-in int8 operators only.

    Raises:
      MissingToolError: TensorFlow is not installed.
      InputError: the calibration images are not of the network's shape.
      RuntimeError: the converter chose another scale for the input, or used an
        operator that is not allowed.
    """
    with _conversion():
        model = int8_converter(arch, variables, calibration).convert()
    model = _pack(model)
    check_operators(model, arch, "int8")
    if input_quantization(model) != INT8_INPUT:
        raise RuntimeError(
            f"int8 input has (scale, zero point) {input_quantization(model)}, not {INT8_INPUT}"
        )
    return model


def int8_converter(arch: ArchSpec, variables: dict[str, Any], calibration: np.ndarray) -> Any:
    """Returns the `TFLiteConverter` of `to_tflite_int8`, its arguments the same.

    The converter gives all inputs of a concatenation one scale, which thus holds
    for a whole dense block: on the front of a CIFAR-10 run as accurate as a scale for each
    layer, as fast, and smaller (benchmarks/results/quantization.json).

    Raises:
      InputError: as `to_tflite_int8`.
    """
    if calibration.dtype != np.uint8 or calibration.shape[1:] != arch.input_shape:
        raise InputError(
            f"calibration images ({calibration.dtype}{list(calibration.shape)}) must be "
            f"uint8[k, {', '.join(map(str, arch.input_shape))}]"
        )
    ends = np.stack([np.full(arch.input_shape, value, np.uint8) for value in (0, 255)])
    images = np.concatenate([ends, calibration]).astype(np.float32)
    tf = _tensorflow()
    with _conversion():
        converter = _converter(tf, arch, variables)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return converter


def input_quantization(model: bytes) -> tuple[float, int]:
    """Returns scale and zero point of a quantised file's input."""
    from ai_edge_litert import schema_py_generated as schema

    root: Any = schema.Model.GetRootAsModel(model, 0)
    graph = root.Subgraphs(0)
    quantization = graph.Tensors(graph.Inputs(0)).Quantization()
    return float(quantization.Scale(0)), int(quantization.ZeroPoint(0))


def tool_version() -> str:
    """Returns what the manifest calls the converter, e.g. "tensorflow 2.21.0"."""
    return f"tensorflow {_tensorflow().__version__}"


def _tensorflow() -> ModuleType:
    """Imports TensorFlow for the CPU: it must not take the accelerator's memory from JAX."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with quiet():
            import ai_edge_litert  # noqa: F401  the packer reads and writes with its schema
            import flatbuffers  # noqa: F401
            import tensorflow as tf
            import tflite  # noqa: F401
    except ImportError as error:
        raise MissingToolError(
            f"TFLite export needs TensorFlow, LiteRT and tflite ({error}): "
            "pip install 'deepmaker-jax[export]'"
        ) from None
    # Once TensorFlow has run, its devices are fixed; then it is too late, and harmless here.
    with quiet(), contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf


@contextlib.contextmanager
def _conversion():
    """Holds back the converter's chatter, among it a warning about the int8 input we ask for."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pack(model: bytes) -> bytes:
    from deepmaker_jax.export.pack import pack  # needs packages of the extra

    return pack(model)


def _converter(tf: ModuleType, arch: ArchSpec, variables: dict[str, Any]):
    """Returns a TFLiteConverter of the folded network, its weights as constants."""
    from jax.experimental import jax2tf

    network, weights = folded_network(arch, variables)
    # The platform is fixed, or an accelerator's default device would end up in the file.
    function = tf.function(
        jax2tf.convert(
            lambda image: network.apply(weights, image),
            with_gradient=False,
            native_serialization_platforms=("cpu",),
        ),
        input_signature=[tf.TensorSpec((1, *arch.input_shape), tf.float32)],
        autograph=False,
    )
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], function
    )
