"""Measures TFLite classifiers side by side on CIFAR-10's test set: bytes, MACs, accuracy, latency.

    python -m benchmarks.measure_tflite --data DIR RUN/models/*/model_int8.tflite OTHER.tflite

One thread, batch 1. Accuracy is over all test images. Latency is the median over
whole `invoke` calls; the files take turns image by image, so that a change of
the machine's speed hits all alike.
"""

import argparse
import math
import pathlib
import statistics
import time
from typing import Any

import numpy as np
import tflite

from benchmarks.record import publish
from deepmaker_jax import load_data
from deepmaker_jax.export import run_tflite

TIMED_IMAGES = 1_000
# Each weight is used once for every output pixel.
PRODUCTS = (
    tflite.BuiltinOperator.CONV_2D,
    tflite.BuiltinOperator.DEPTHWISE_CONV_2D,
    tflite.BuiltinOperator.FULLY_CONNECTED,
)


def macs(model: bytes) -> int:
    """Returns the multiply-accumulates of one image in a TFLite file."""
    root: Any = tflite.Model.GetRootAsModel(model, 0)
    graph, total = root.Subgraphs(0), 0
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = root.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if kind not in PRODUCTS:
            continue
        weights = graph.Tensors(operator.Inputs(1)).ShapeAsNumpy()
        pixels = graph.Tensors(operator.Outputs(0)).ShapeAsNumpy()[1:-1]
        total += math.prod(map(int, (*weights, *pixels)))
    return total


def median_milliseconds(paths: list[pathlib.Path], images: np.ndarray) -> list[float]:
    """Returns each file's median time of one image, the files in turn."""
    from ai_edge_litert.interpreter import Interpreter

    models = [Interpreter(str(path), num_threads=1) for path in paths]
    times: list[list[float]] = [[] for _ in models]
    for model in models:
        model.allocate_tensors()
    for image in images:
        for model, spent in zip(models, times, strict=True):
            source = model.get_input_details()[0]
            shift = source["quantization"][1] if source["dtype"] == np.int8 else 0
            model.set_tensor(source["index"], (image[None] + float(shift)).astype(source["dtype"]))
            start = time.perf_counter()
            model.invoke()
            spent.append(time.perf_counter() - start)
    return [1e3 * statistics.median(spent) for spent in times]


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--data", required=True, help="the CIFAR-10 folder")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    for path in args.files:
        if not path.is_file():
            parser.error(f"{path} is no file")
    data = load_data("cifar10", path=args.data)
    medians = median_milliseconds(args.files, data.test_images[:TIMED_IMAGES])
    rows = []
    for path, median in zip(args.files, medians, strict=True):
        right = run_tflite(path, data.test_images).argmax(-1) == data.test_labels
        name = (
            path.name if path.parent.parent.name != "models" else f"{path.parent.name}/{path.name}"
        )
        rows.append(
            {
                "file": name,
                "bytes": path.stat().st_size,
                "macs": macs(path.read_bytes()),
                "test_accuracy": round(float(right.mean()), 4),
                "median_ms": round(median, 4),
            }
        )
    publish({"images": len(data.test_labels), "files": rows}, args.out)


if __name__ == "__main__":
    main()
