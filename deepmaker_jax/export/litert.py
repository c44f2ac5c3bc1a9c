"""TFLite files under LiteRT: XNNPACK's kernels or the reference, float or int8 values."""

import pathlib
from typing import Any

import numpy as np

from deepmaker_jax.errors import MissingToolError
from deepmaker_jax.export.quiet import quiet

Interpreter = Any


def open_tflite(
    model: bytes | pathlib.Path, *, num_threads: int = 1, reference: bool = False
) -> Interpreter:
    """Returns an interpreter of a file, from [1, h, w, c] to [1, classes], ready to run.

    Args:
      model: the file or its bytes.
      num_threads: that its kernels may use.
      reference: run with the reference kernels, which TensorFlow Lite Micro's are
        made of; False for the fast ones, XNNPACK's, whose int8 products round otherwise.

    Raises:
      MissingToolError: LiteRT is not installed.
    """
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError as error:
        raise MissingToolError(
            f"running a TFLite file needs LiteRT ({error}): pip install 'deepmaker-jax[export]'"
        ) from None
    source: dict[str, Any] = (
        {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    )
    kinds = litert.OpResolverType
    kernels = kinds.BUILTIN_REF if reference else kinds.AUTO
    with quiet():
        interpreter = litert.Interpreter(
            **source, num_threads=num_threads, experimental_op_resolver_type=kernels
        )
        interpreter.allocate_tensors()
    return interpreter


def run(interpreter: Interpreter, images: np.ndarray) -> np.ndarray:
    """Returns what a file gives, [n, classes] in its own type, one image a call as on a device.

    Larger batches are not faster: 0.25 ms an image at any size for 31 MMACs in
    int8 on one x86-64 core, 0.7 ms in float32, with equal results.

    Args:
      interpreter: of the file.
      images: uint8[n, h, w, c].
    """
    (entry,), (leave,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = np.zeros((len(images), int(leave["shape"][-1])), leave["dtype"])
    with quiet():
        for i, image in enumerate(images):
            interpreter.set_tensor(entry["index"], quantize(interpreter, image[None]))
            interpreter.invoke()
            found[i] = interpreter.get_tensor(leave["index"])[0]
    return found


def quantize(interpreter: Interpreter, images: np.ndarray) -> np.ndarray:
    """Returns camera bytes, uint8, as a file takes them: by its own scale and zero point."""
    (entry,) = interpreter.get_input_details()
    if entry["dtype"] == np.float32:
        return images.astype(np.float32)
    scale, zero_point = entry["quantization"]
    limits = np.iinfo(entry["dtype"])
    steps = np.rint(images / np.float32(scale)) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(entry["dtype"])


def dequantize(interpreter: Interpreter, values: np.ndarray) -> np.ndarray:
    """Returns what a file gave as Float32[n, classes], by its own scale and zero point."""
    (leave,) = interpreter.get_output_details()
    if leave["dtype"] == np.float32:
        return values
    scale, zero_point = leave["quantization"]
    return (values.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)
