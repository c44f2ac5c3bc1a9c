"""What a Raspberry Pi is given: one script beside the TFLite files."""

SCRIPT = '''\
"""Runs and times this bundle's TFLite files: `python3 arm/raspberry_pi.py`.

Needs the bundle's folder, and on the board: pip install ai-edge-litert numpy
"""

import argparse
import pathlib
import statistics
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--calls", type=int, default=200, help="timed calls of each file")
parser.add_argument("--threads", type=int, default=1, help="threads of the interpreter")
arguments = parser.parse_args()

bundle = pathlib.Path(__file__).resolve().parent.parent
reference = np.load(bundle / "reference.npz")
images, labels = reference["images"], reference["labels"]
print(f"{len(images)} images, median of {arguments.calls} calls")
for path in sorted(bundle.glob("model_*.tflite")):
    interpreter = Interpreter(model_path=str(path), num_threads=arguments.threads)
    interpreter.allocate_tensors()
    (entry,), (leave,) = interpreter.get_input_details(), interpreter.get_output_details()
    int8 = entry["dtype"] == np.int8
    pixels = (images ^ 0x80).view(np.int8) if int8 else images.astype(np.float32)
    right = 0
    for image, label in zip(pixels, labels):
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        right += int(interpreter.get_tensor(leave["index"])[0].argmax() == label)
    seconds = []
    for _ in range(arguments.calls):
        began = time.perf_counter()
        interpreter.invoke()
        seconds.append(time.perf_counter() - began)
    median = 1000 * statistics.median(seconds)
    print(f"{path.name}: {right} of {len(images)} right, {median:.3f} ms")
'''
