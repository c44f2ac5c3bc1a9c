"""What int8 costs a run's front, with one scale a dense block and with one a layer.

    python -m benchmarks.quantization RUN --data DIR [--out benchmarks/results/quantization.json]

The inputs of an int8 concatenation have one scale. TFLite's converter gives it
to all that a chain of concatenations ties together, a dense block ("block");
its former quantiser left each layer its own scale and put a QUANTIZE operator
before the concatenation where that differs ("layer"). "corrected" is "block"
after `export.bias.correct_bias`: what bundles have. All get the same weights and the same
calibration images. The float16 file is made with the correction and without.

Schemes are compared on the validation split. The members' final training saw it,
so its accuracies are not those of new images; what int8 loses is. The test split is
read once, for the files that bundles have, and decides nothing.
Latency is LiteRT's with XNNPACK, one thread, batch 1, all files in turn.
"""

import argparse
import functools
import pathlib
import statistics
import tempfile
from typing import Any

import numpy as np

from benchmarks.measure_tflite import TIMED_IMAGES, median_milliseconds
from benchmarks.record import publish
from deepmaker_jax import load_data
from deepmaker_jax.bundles import deployable
from deepmaker_jax.cost import cost
from deepmaker_jax.data import Dataset
from deepmaker_jax.export import Model, load, run_tflite
from deepmaker_jax.export.bias import correct_bias
from deepmaker_jax.export.operators import operators
from deepmaker_jax.export.pack import pack
from deepmaker_jax.export.quiet import quiet
from deepmaker_jax.export.tflite import int8_converter, to_tflite, to_tflite_int8, tool_version
from deepmaker_jax.final import calibration_rows
from deepmaker_jax.run_folder import read_config
from deepmaker_jax.task import make_task

SCHEMES = ("block", "layer", "corrected")
Split = tuple[np.ndarray, np.ndarray]  # images uint8[n, h, w, c], labels int[n]


def layer_scales(model: Model, calibration: np.ndarray) -> bytes:
    """Returns the int8 file whose layers each have their own scale."""
    with quiet():
        converter = int8_converter(model.arch, model.variables, calibration)
        converter.experimental_new_quantizer = False
        return pack(converter.convert())


def judge(files: dict[str, bytes], expected: np.ndarray, split: Split) -> dict[str, Any]:
    """Returns the float accuracy, and for each file its own, points lost and agreement.

    Args:
      files: TFLite files by name.
      expected: Float32[n, classes], JAX's logits.
      split: what to run them on.
    """
    images, labels = split
    share = float(np.mean(expected.argmax(1) == labels))
    found: dict[str, Any] = {"float32": round(share, 4)}
    for name, file in files.items():
        logits = run_tflite(file, images)
        chosen = logits.argmax(1)
        error = np.sqrt(np.mean((logits - expected) ** 2)) / np.ptp(expected)
        right = float(np.mean(chosen == labels))
        found[name] = {
            "accuracy": round(right, 4),
            "points_lost": round(100 * (share - right), 2),
            "agreement": round(float(np.mean(chosen == expected.argmax(1))), 4),
            "rms_error_of_range": round(float(error), 6),
        }
    return found


def measure(bundle: pathlib.Path, calibration: np.ndarray, validation: Split, test: Split):
    """Returns (a member's figures, its int8 files by scheme)."""
    model = load(bundle)
    arch = model.arch
    int8 = functools.partial(to_tflite_int8, arch, calibration=calibration)
    half = functools.partial(to_tflite, arch, form="float16")
    files = {
        "block": int8(model.variables),
        "layer": layer_scales(model, calibration),
        "corrected": correct_bias(int8, arch, model.variables, calibration),
    }
    halves = {
        "float16": half(model.variables),
        "float16_corrected": correct_bias(half, arch, model.variables, calibration),
    }
    published = {"int8": files["corrected"], "float16": halves["float16_corrected"]}
    row = {
        "id": model.id,
        "params": cost(arch).params,
        "activation": arch.activation,
        "size": {
            name: {"bytes": len(file), "quantize_operators": operators(file).count("QUANTIZE")}
            for name, file in files.items()
        },
        "validation": judge(files | halves, model.logits(validation[0]), validation),
        "test": judge(published, model.logits(test[0]), test),
    }
    return row, files


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the median and the worst loss over the front, by split and file."""

    def over(split: str, name: str) -> dict[str, float]:
        found = [row[split][name] for row in rows]
        losses = [file["points_lost"] for file in found]
        return {
            "median_points_lost": round(statistics.median(losses), 2),
            "worst_points_lost": max(losses),
            "lowest_agreement": min(file["agreement"] for file in found),
        }

    return {
        split: {name: over(split, name) for name in rows[0][split] if name != "float32"}
        for split in ("validation", "test")
    }


def splits(run: pathlib.Path, data: Dataset) -> tuple[np.ndarray, Split, Split]:
    """Returns the run's own calibration images, its validation split and the test split."""
    config = read_config(run)
    rows = calibration_rows(
        data.train_labels, num=config.final.calibration_images, seed=config.seed
    )
    held = make_task(config, data).validation_rows
    validation = (data.train_images[held], data.train_labels[held])
    return data.train_images[rows], validation, (data.test_images, data.test_labels)


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--data", required=True, help="the run's data set")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    data = load_data(read_config(args.run).experiment, path=args.data)
    calibration, validation, test = splits(args.run, data)
    rows, paths = [], []
    with tempfile.TemporaryDirectory() as folder:
        for bundle in deployable(args.run, None):
            row, files = measure(bundle, calibration, validation, test)
            rows.append(row)
            print(row, flush=True)
            for scheme, file in files.items():
                paths.append(pathlib.Path(folder) / f"{row['id']}_{scheme}.tflite")
                paths[-1].write_bytes(file)
        medians = iter(median_milliseconds(paths, data.test_images[:TIMED_IMAGES]))
    for row in rows:
        row["median_ms"] = {scheme: round(next(medians), 4) for scheme in SCHEMES}
    ratio = [row["median_ms"]["layer"] / row["median_ms"]["block"] for row in rows]
    publish(
        {
            "tool": tool_version(),
            "validation_images": len(validation[1]),
            "test_images": len(test[1]),
            "summary": summary(rows),
            "layer_over_block_latency_mean": round(statistics.geometric_mean(ratio), 3),
            "members": rows,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
