"""The TFLite interpreter, as backends use it: XNNPACK's kernels or the reference, any threads."""

import pathlib
from typing import Any

import numpy as np

from deepmaker_jax.export.quiet import quiet

Interpreter = Any


def open_tflite(
    model: pathlib.Path, *, num_threads: int = 1, reference: bool = False
) -> Interpreter:
    """Returns an interpreter of the file, ready to run.

    Args:
      model: a TFLite file.
      num_threads: that its kernels may use.
      reference: run with the reference kernels, which TensorFlow Lite Micro's are
        made of; False for the fast ones, XNNPACK's, whose int8 products round otherwise.
    """
    from ai_edge_litert import interpreter as litert

    kinds = litert.OpResolverType
    kernels = kinds.BUILTIN_REF if reference else kinds.AUTO
    with quiet():
        interpreter = litert.Interpreter(
            model_path=str(model), num_threads=num_threads, experimental_op_resolver_type=kernels
        )
        interpreter.allocate_tensors()
    return interpreter


def run_int8(model: pathlib.Path, images: np.ndarray) -> np.ndarray:
    """Returns the int8 logits, [n, classes], that TFLite's reference kernels give.

    Args:
      model: an int8 file of a bundle: one XOR with 0x80 makes its input.
      images: uint8[n, h, w, c].
    """
    interpreter = open_tflite(model, reference=True)
    (entry,), (leave,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in int8_pixels(images):
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(leave["index"])[0])
    return np.stack(found)


def int8_pixels(images: np.ndarray) -> np.ndarray:
    """Returns camera bytes, uint8, as an int8 file takes them."""
    return (images ^ 0x80).view(np.int8)


def logit_quantization(model: pathlib.Path) -> tuple[float, int]:
    """Returns scale and zero point of a quantised file's logits."""
    (leave,) = open_tflite(model, reference=True).get_output_details()
    scale, zero_point = leave["quantization"]
    return float(scale), int(zero_point)
