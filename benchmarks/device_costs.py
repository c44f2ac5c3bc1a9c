"""Compares the cost model with files, devices' memory and this machine's clock.

    python -m benchmarks.device_costs --work DIR [--out benchmarks/results/device_costs.json]

Random networks of space deepmaker for 32x32x3 images, drawn as the search draws
them, up to 96 KB of int8 file, with random weights. The constants of
`sram.arena_bytes` are fitted to one draw; another one, which the fit has not
seen, gives the errors. Interrupted, it goes on from what DIR holds: ten minutes
on one core. The picture goes beside the figures.
"""

import argparse
import collections
import pathlib
import tempfile
import time
from typing import Any

import matplotlib
import numpy as np

from benchmarks.flash_model import errors_percent
from benchmarks.record import publish
from deepmaker_jax import sram
from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.backends import mcu, tool
from deepmaker_jax.backends.timing import interleaved
from deepmaker_jax.config import LimitConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.export.litert import open_tflite
from deepmaker_jax.export.tflite import tool_version
from deepmaker_jax.feasible import make
from deepmaker_jax.files import load_json, write_json
from deepmaker_jax.latency import BUSY, int8_file
from deepmaker_jax.spaces import deepmaker

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

SHAPE, NUM_CLASSES = (32, 32, 3), 10
LIMITS = LimitConfig(flash_bytes=96 * 1024)
CONSTANTS = ("ARENA_MODEL_BYTES", "ARENA_WEIGHTED_LAYER_BYTES", "ARENA_OPERATOR_BYTES")
NUM_ROUNDS = 200
PREDICTIONS = {
    "arena_bytes": "TFLM's arena",
    "ethos_u_sram_bytes": "SRAM by Vela, Ethos-U55",
    "flash_bytes": "int8 TFLite file",
}


def draw(num: int, *, seed: int) -> dict[str, ArchSpec]:
    """Returns {id: architecture} of feasible genomes, drawn as a search's first generation is."""
    space = deepmaker(SHAPE, NUM_CLASSES)
    feasible = make(space, LIMITS, spread="flash_bytes")
    genomes = feasible.sample(np.random.default_rng(seed), num=num)
    return {space.id(genome): space.decode(genome) for genome in genomes}


def measure(arch: ArchSpec, model: pathlib.Path) -> dict[str, Any]:
    """Returns what the tools say of an architecture's int8 file, which is made if it is not there.

    `arena_bytes` is null where TensorFlow Lite Micro lacks an operator.
    """
    if not model.exists():
        model.write_bytes(int8_file(arch))
    total = head = None
    if not mcu.supports(arch):
        _, total, head = mcu.run_tflm(model.read_bytes(), np.zeros((1, *SHAPE), np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        _, summary = mcu.run_vela(model, pathlib.Path(folder))
    return {
        "flash_bytes": model.stat().st_size,
        "arena_bytes": total,
        "arena_activation_bytes": head,
        "ethos_u_sram_bytes": round(1024 * float(summary["sram_memory_used"])),
    }


def measure_all(archs: dict[str, ArchSpec], work: pathlib.Path) -> list[dict[str, Any]]:
    """Returns {"id", "predicted", "measured"} of each, with those that `work` holds."""
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for id, arch in archs.items():
        path = work / f"{id}.json"
        if not path.exists():
            write_json(path, measure(arch, work / f"{id}.tflite"))
            print(f"{len(rows) + 1}/{len(archs)} {id}", flush=True)
        rows.append({"id": id, "predicted": cost(arch)._asdict(), "measured": load_json(path)})
    return rows


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Spearman's coefficient; ties share their mean rank."""
    ranks = []
    for values in (a, b):
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[places])
    return round(float(np.corrcoef(*ranks)[0, 1]), 4)


def pairs(rows: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (predicted, measured), Float[n] each, of the networks that were measured."""
    there = [row for row in rows if row["measured"][name] is not None]
    return tuple(
        np.array([row[kind][name] for row in there], float) for kind in ("predicted", "measured")
    )


def fitted_constants(archs: dict[str, ArchSpec], rows: list[dict[str, Any]]) -> dict[str, int]:
    """Returns the constants that fit TFLM's own structures best, by the arena's relative error."""
    counts, rest, weights = [], [], []
    for row in rows:
        found = row["measured"]
        if found["arena_bytes"] is None:
            continue
        network = layers(archs[row["id"]])
        weighted = [layer for layer in network if layer.op in sram.WEIGHTED]
        counts.append([1, len(weighted), len(sram.steps(network)) - len(weighted)])
        channels = sum(layer.shape[-1] for layer in weighted)
        own = found["arena_bytes"] - found["arena_activation_bytes"]
        rest.append(own - sram.ARENA_CHANNEL_BYTES * channels)
        weights.append(1 / found["arena_bytes"])
    scale = np.array(weights)
    solution = np.linalg.lstsq(np.array(counts) * scale[:, None], np.array(rest) * scale)[0]
    return {name: round(float(v)) for name, v in zip(CONSTANTS, solution, strict=True)}


def latencies(models: list[pathlib.Path]) -> tuple[list[float], float]:
    """Returns (each file's median milliseconds, in turn with the others; the share of waiting).

    Raises:
      SystemExit: others took the processor: the figures would say nothing.
    """
    calls = {model.stem: open_tflite(model).invoke for model in models}
    began, ran = time.perf_counter(), time.thread_time()
    found = interleaved(calls, num_rounds=NUM_ROUNDS)
    waiting = 1 - (time.thread_time() - ran) / (time.perf_counter() - began)
    if waiting > BUSY:
        raise SystemExit(
            f"error: the timing thread waited for {waiting:.0%} of the time: keep other work "
            "away, and start again with the same --work"
        )
    return [found[model.stem].median_ms for model in models], waiting


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Draws measured against predicted values, and latency against MACs."""
    figure, axes = pyplot.subplots(2, 2, figsize=(7.2, 6.4), dpi=100, layout="constrained")
    for axis, (name, title) in zip(axes.flat, PREDICTIONS.items(), strict=False):
        predicted, found = pairs(rows, name)
        ends = [0.9 * min(*predicted, *found) / 1024, 1.1 * max(*predicted, *found) / 1024]
        axis.plot(ends, ends, color="0.7", linewidth=1)
        axis.plot(predicted / 1024, found / 1024, ".")
        axis.set(xscale="log", yscale="log", title=title)
        axis.set(xlabel="predicted, KB", ylabel="measured, KB")
    axes[1, 1].plot(
        [row["predicted"]["macs"] / 1e6 for row in rows],
        [row["measured"]["latency_ms"] for row in rows],
        ".",
    )
    axes[1, 1].set(xscale="log", yscale="log", title="TFLite, one thread")
    axes[1, 1].set(xlabel="million MACs", ylabel="median latency, ms")
    for axis in (a for both in axes.flat for a in (both.xaxis, both.yaxis)):
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(ticker.NullLocator())
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Measures, compares and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for files")
    parser.add_argument("--fit", type=int, default=48, help="networks of the fit")
    parser.add_argument("--genomes", type=int, default=48, help="networks of the comparison")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    fit = draw(args.fit, seed=1)
    fitted = fitted_constants(fit, measure_all(fit, args.work))
    test = {id: arch for id, arch in draw(args.genomes, seed=2).items() if id not in fit}
    rows = measure_all(test, args.work)
    medians, waiting = latencies([args.work / f"{id}.tflite" for id in test])
    for row, median in zip(rows, medians, strict=True):
        row["measured"]["latency_ms"] = round(median, 4)
    compared = {}
    for name in PREDICTIONS:
        predicted, found = pairs(rows, name)
        compared[name] = {
            "networks": len(found),
            "rank_correlation": rank_correlation(predicted, found),
            "error_percent": errors_percent(predicted, found),
        }
    peaks = np.array([row["predicted"]["peak_activation_bytes"] for row in rows], float)
    known = np.array([row["measured"]["arena_bytes"] is not None for row in rows])
    heads = np.array([row["measured"]["arena_activation_bytes"] or 0 for row in rows], float)
    compared["peak_activation_bytes"] = {
        "against": "the activations in TFLM's arena",
        "networks": int(known.sum()),
        "rank_correlation": rank_correlation(peaks[known], heads[known]),
        "error_percent": errors_percent(peaks[known], heads[known]),
    }
    clock = np.array(medians)
    result = {
        "tools": [tool_version(), *map(tool.label, mcu.probe())],
        "drawn": {"space": "deepmaker", "shape": SHAPE, "flash_bytes": LIMITS.flash_bytes},
        "fitted_constants": fitted,
        "constants_in_sram": {name: getattr(sram, name) for name in CONSTANTS},
        "predicted_against_measured": compared,
        "latency": {
            "how": f"XNNPACK, one thread, median of {NUM_ROUNDS} calls, files in turn",
            "waiting_share": round(waiting, 3),
            "rank_correlation": {
                name: rank_correlation(np.array([r["predicted"][name] for r in rows]), clock)
                for name in ("macs", "params", "flash_bytes", "peak_activation_bytes")
            },
        },
        "unsupported_by_tflm": dict(
            collections.Counter(
                test[row["id"]].activation for row in rows if mcu.supports(test[row["id"]])
            )
        ),
        "networks": rows,
    }
    publish(result, args.out)
    if args.out is not None:
        plot(rows, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
