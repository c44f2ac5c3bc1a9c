"""Runs an int8 file with TensorFlow Lite Micro: `python -m deepmaker_jax.backends.tflm`.

In a process of its own: the interpreter writes what it allocated to file
descriptor 2, and ends the process when a model does not fit the arena.
"""

import re
import sys

import numpy as np

ROOM_BYTES = 32 << 20  # for any network that a microcontroller could hold
TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
HEAD = re.compile(r"Arena allocation head (\d+) bytes")


def arena_bytes(said: str) -> tuple[int, int]:
    """Returns (all of the arena, what of it activations take) from the interpreter's words.

    Raises:
      RuntimeError: it did not say.
    """
    total, head = TOTAL.search(said), HEAD.search(said)
    if not total or not head:
        raise RuntimeError("tflite-micro did not report its arena")
    return int(total[1]), int(head[1])


def main(model: str, images: str, logits: str) -> None:
    """Writes the int8 logits [n, classes] of int8 images [n, h, w, c], both .npy files."""
    from tflite_micro.python.tflite_micro import runtime

    with open(model, "rb") as file:
        interpreter = runtime.Interpreter.from_bytes(file.read(), arena_size=ROOM_BYTES)
    found = []
    for image in np.load(images):
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0)[0])
    np.save(logits, np.stack(found))
    interpreter.print_allocations()


if __name__ == "__main__":
    main(*sys.argv[1:])
