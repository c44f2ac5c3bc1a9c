"""Running exported files as others would: TFLite with LiteRT, ONNX with ONNX Runtime."""

import pathlib
from typing import Any

import numpy as np

from deepmaker_jax.errors import InputError, MissingToolError
from deepmaker_jax.export import litert
from deepmaker_jax.export.quiet import quiet


def run_tflite(model: bytes | pathlib.Path, images: np.ndarray) -> np.ndarray:
    """Returns the logits that a TFLite file gives, one image a call, on one thread.

    A quantised file's input is quantised, and its output made float again, by the
    file's own scales and zero points.

    Args:
      model: the file or its bytes, from [1, h, w, c] to [1, classes].
      images: uint8[n, h, w, c].

    Returns:
      Float32[n, classes].

    Raises:
      MissingToolError: LiteRT is not installed.
      InputError: the images are not of the file's shape.
    """
    interpreter = litert.open_tflite(model)
    _check(images, interpreter.get_input_details()[0]["shape"], "TFLite")
    return litert.dequantize(interpreter, litert.run(interpreter, images))


def run_onnx(model: bytes | pathlib.Path, images: np.ndarray) -> np.ndarray:
    """Returns the logits that ONNX Runtime computes on the CPU, one image a call.

    Args:
      model: the file or its bytes, from float32[1, h, w, c] to [1, classes].
      images: uint8[n, h, w, c].

    Returns:
      Float32[n, classes].

    Raises:
      MissingToolError: ONNX Runtime is not installed.
      InputError: the images are not of the file's shape.
    """
    try:
        with quiet():
            import onnxruntime
    except ImportError as error:
        raise MissingToolError(
            f"running an ONNX file needs ONNX Runtime ({error}): "
            "pip install 'deepmaker-jax[export]'"
        ) from None
    with quiet():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
        )
        (entry,), (leave,) = session.get_inputs(), session.get_outputs()
        _check(images, entry.shape, "ONNX")
        logits = [np.zeros((0, leave.shape[-1]), np.float32)]
        for image in images:
            pixels = image[None].astype(np.float32)
            logits.append(np.asarray(session.run([leave.name], {entry.name: pixels})[0]))
    return np.concatenate(logits)


def _check(images: np.ndarray, shape: Any, kind: str) -> None:
    """Raises InputError unless the images fit a file's input, [1, h, w, c]."""
    wanted = tuple(int(n) for n in shape[1:])
    if images.dtype != np.uint8 or images.shape[1:] != wanted:
        raise InputError(
            f"images ({images.dtype}{list(images.shape)}) must be uint8[n, "
            f"{', '.join(map(str, wanted))}], what the {kind} file takes"
        )
