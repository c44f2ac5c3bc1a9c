"""Builds a bundle's C++ program against TensorFlow Lite Micro, runs it, compares its logits.

    python -m benchmarks.firmware BUNDLE... --tflm CHECKOUT --library libtensorflow-microlite.a \\
        [--out benchmarks/results/firmware.json]

With this machine's g++ the program reads frames from standard input. What it prints
for the reference images is compared with the interpreter of the tflite-micro package, which
measured the arena. Sections are of the linked program without the model's bytes: the
runtime and its kernels on x86-64, beside which a board's own have about the same weight.

CHECKOUT needs the libraries that its Makefile loads; BUILD.md has the commands.
"""

import argparse
import pathlib
import re
import tempfile
from typing import Any

import numpy as np

from benchmarks.record import publish
from deepmaker_jax.backends import firmware, mcu, tool
from deepmaker_jax.backends.worker import read_member
from deepmaker_jax.export.manifest import read_manifest

LOADED = "tensorflow/lite/micro/tools/make/downloads"


def compile_program(bundle: pathlib.Path, tflm: pathlib.Path, library: pathlib.Path) -> bytes:
    """Returns the program, stripped; the flags are those that it names itself."""
    folders = (tflm, tflm / LOADED / "flatbuffers/include", tflm / LOADED / "gemmlowp")
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "network"
        tool.run([
            "g++", *firmware.FLAGS.split(), *(f"-I{place}" for place in folders),
            *(bundle / name for name in (mcu.PROGRAM, mcu.MODEL)), library,
            "-Wl,--gc-sections", "-s", "-o", program,
        ])  # fmt: skip
        return program.read_bytes()


def run_program(program: bytes, images: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Returns (label and int8 logits of each image, int[n, 1 + classes]; section sizes)."""
    with tempfile.TemporaryDirectory() as folder:
        path, frames = pathlib.Path(folder) / "network", pathlib.Path(folder) / "frames"
        path.write_bytes(program)
        path.chmod(0o700)
        images.tofile(frames)
        said, _ = tool.run(["sh", "-c", '"$0" < "$1"', path, frames])
        sizes, _ = tool.run(["size", path])
    text, data, bss = map(int, re.findall(r"\d+", sizes.splitlines()[1])[:3])
    lines = [[int(word) for word in line.split()] for line in said.splitlines()]
    return np.array(lines), {"text": text, "data": data, "bss": bss}


def measure(bundle: pathlib.Path, tflm: pathlib.Path, library: pathlib.Path) -> dict[str, Any]:
    """Returns what the program says and takes, beside tflite-micro's interpreter."""
    member, entry = read_member(bundle), read_manifest(bundle)["files"][mcu.MODEL]
    found, sections = run_program(compile_program(bundle, tflm, library), member.images)
    expected, arena, _ = mcu.run_tflm((bundle / mcu.INT8).read_bytes(), member.images)
    model = (bundle / mcu.INT8).stat().st_size
    return {
        "id": member.id,
        "images": len(found),
        "images_unlike_the_interpreter": int(np.sum(np.any(found[:, 1:] != expected, axis=1))),
        "largest_difference_steps": int(np.abs(found[:, 1:] - expected.astype(int)).max()),
        "labels_are_the_largest_logits": bool(np.all(found[:, 0] == found[:, 1:].argmax(1))),
        "model_bytes": model,
        "arena_bytes": arena,
        "manifest_arena_bytes": entry["cost"]["arena_bytes"]["value"],
        "code_bytes": sections["text"] + sections["data"] - model,
        "sections": sections,
    }


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=pathlib.Path)
    parser.add_argument("--tflm", required=True, type=pathlib.Path, help="checkout of tflite-micro")
    parser.add_argument("--library", required=True, type=pathlib.Path, help="made from it")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    commit, _ = tool.run(["git", "-C", args.tflm, "rev-parse", "HEAD"])
    compiler, _ = tool.run(["g++", "-dumpfullversion"])
    rows = [measure(bundle, args.tflm, args.library) for bundle in args.bundles]
    publish(
        {
            "tflite_micro_commit": commit.strip(),
            "compiler": f"g++ {compiler.strip()}",
            "interpreter": tool.package("tflite-micro").version,
            "networks": rows,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
