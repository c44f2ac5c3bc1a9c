"""Lowers every size class's program for CUDA and TPU, and projects what a step costs on an H100.

    python -m benchmarks.lowering --out benchmarks/results/lowering.json

Nothing is compiled or run for those platforms here: the times are a PROJECTION. `lowered` is XLA's
cost analysis of the lowered program, which counts the body of a loop once, however often it runs.
So `flops`, `bytes` and `kernels` are counted instead over the loops of real networks: the mean of
those that the class has room for, of 32x32x3, batch 64, one training step of one lane. The times
take the shares of an H100's peaks below; with many lanes side by side the kernels' launches are
shared by all of them. About 2 minutes on one core.
"""

import argparse
import pathlib
from typing import Any

import jax
import jax.export
import numpy as np

from benchmarks.population import INPUT_SHAPE, NUM_CLASSES
from benchmarks.record import publish
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.lanes.size_class import BLOCK, WHOLE_BATCH, SizeClass, table
from deepmaker_jax.lanes.wiring import Lane, choose, fit, lane_macs
from deepmaker_jax.spaces import SPACES
from deepmaker_jax.train.lane import Call, idle, run_side_by_side, scratch
from deepmaker_jax.train.memory import MAX_LANES, SHARE, lane_bytes
from deepmaker_jax.train.step import Feed

BATCH, NUM_NETWORKS, LANES = 64, 300, 2
PLATFORMS = ("cuda", "tpu")
# NVIDIA's data sheet of the H100 SXM: float32 without tensor cores, memory, capacity.
PEAK_FLOPS, PEAK_BYTES, MEMORY = 67e12, 3.35e12, 80e9
EFFICIENCY, MEMORY_EFFICIENCY, LAUNCH_SECONDS = 0.3, 0.6, 4e-6  # assumed
# Kernels of a turn of each loop, forward and back; assumed: an edge is a slice, a product and an
# update.
KERNELS = {"num_groups": 30, "num_stem": 6, "num_pooled": 8, "num_conv_out": 9, "num_mix": 10}


def arguments(size_class: SizeClass, settings: TrainConfig, num_lanes: int) -> tuple[Any, ...]:
    """Returns the shapes of what a program side by side is called with."""

    def stacked(tree):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((num_lanes, *np.shape(x)), x.dtype), tree
        )

    state, feed = idle(size_class, settings)
    work = jax.eval_shape(lambda: scratch(size_class, settings))
    steps = 4
    call = Call(
        np.zeros((steps, settings.batch_size), np.int32), np.int32(0), np.int32(0),
        np.zeros(steps, np.int32),
    )  # fmt: skip
    images = jax.ShapeDtypeStruct((1024, *size_class.input_shape), np.uint8)
    labels = jax.ShapeDtypeStruct((1024,), np.int32)
    scale = np.ones(size_class.input_shape[-1], np.float32)
    common = Feed(images, labels, scale, jax.random.key(0), np.float32(0), np.int32(0))
    return common, stacked(state), stacked(work), stacked(feed), stacked(call)


def lower(size_class: SizeClass, settings: TrainConfig) -> jax.export.Exported:
    """Returns a class's program, LANES side by side, lowered for the accelerators."""
    run = jax.jit(run_side_by_side(size_class, settings))
    args = arguments(size_class, settings, LANES)
    return jax.export.export(run, platforms=PLATFORMS)(*args)


def traffic(size_class: SizeClass, lane: Lane) -> int:
    """Returns the bytes that a step moves between memory and the cores, counted over its loops.

    Every operand is read and every result written once. A kernel's neighbourhoods
    are written twice, as its columns and as its rows.
    """
    counts, k, total = lane.wiring.counts, size_class.kernel, 0
    blocks = BLOCK // size_class.group
    for level in range(len(size_class.num_rows)):
        h, w = size_class.side(level)
        a_group = 4 * size_class.group * h * w * BATCH
        groups, edges = int(counts.num_groups[level]), int(counts.num_conv_out[level].sum())
        mixes, pooled = int(counts.num_mix[level].sum()), int(counts.num_pooled[level])
        sources = int((counts.num_conv_out[level] > 0).sum())
        targets = int((counts.num_conv_in[level] > 0).sum())
        moved = groups * (4 + 7) + pooled * 4
        moved += (sources + targets) * (3 * k + k * k)
        moved += edges * ((k * k + 2) + (k * k + 2) + (k * k + 1))
        moved += mixes * blocks * (3 + 3 + 2)
        total += moved * a_group
    return total


def kernels(lane: Lane) -> int:
    """Returns the kernels of a step, one after the other."""
    counts = lane.wiring.counts
    return sum(each * int(getattr(counts, name).sum()) for name, each in KERNELS.items())


def projection(size_class: SizeClass, archs: list[Any], settings: TrainConfig) -> dict[str, Any]:
    """Returns the mean work of a step of these networks and the time it implies."""
    lanes = [fit(arch, size_class) for arch in archs]
    flops = float(np.mean([6 * BATCH * lane_macs(size_class, lane) for lane in lanes]))
    moved = float(np.mean([traffic(size_class, lane) for lane in lanes]))
    num = float(np.mean([kernels(lane) for lane in lanes]))
    room = min(MAX_LANES, int(SHARE * MEMORY / lane_bytes(size_class, settings)))
    arithmetic = flops / (EFFICIENCY * PEAK_FLOPS)
    memory = moved / (MEMORY_EFFICIENCY * PEAK_BYTES)
    launches = num * LAUNCH_SECONDS
    return {
        "networks": len(archs),
        "flops": round(flops),
        "bytes": round(moved),
        "kernels": round(num),
        "lanes": room,
        "projected_ms": {
            "arithmetic": round(1e3 * arithmetic, 3),
            "memory": round(1e3 * memory, 3),
            "launches_one_lane": round(1e3 * launches, 3),
            "a_lane_step_one_lane": round(1e3 * max(arithmetic + memory, launches), 3),
            "a_lane_step_all_lanes": round(1e3 * max(arithmetic + memory, launches / room), 3),
        },
    }


def networks(classes: tuple[SizeClass, ...]) -> dict[str, list[Any]]:
    """Returns random networks up to a million parameters by the class that they train in."""
    space, rng = SPACES["deepmaker"](INPUT_SHAPE, NUM_CLASSES), np.random.default_rng(0)
    found: dict[str, list[Any]] = {of.name: [] for of in classes}
    for _ in range(NUM_NETWORKS * 4):
        arch = space.decode(space.sample(rng, num=1)[0])
        of = choose(arch, classes) if cost(arch).params <= 1_000_000 else None
        if of is not None and len(found[of.name]) < NUM_NETWORKS // len(classes):
            found[of.name].append(arch)
    return found


def main() -> None:
    """Lowers, counts and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    settings = TrainConfig(batch_size=BATCH, crop=4, flip=True)
    classes, rows = table(INPUT_SHAPE, NUM_CLASSES, num_pixels=WHOLE_BATCH), []
    by_class = networks(classes)
    for of in classes:
        exported = lower(of, settings)
        run = jax.jit(run_side_by_side(of, settings))
        counted = run.lower(*arguments(of, settings, LANES)).cost_analysis() or {}
        rows.append({
            "size_class": of.name,
            "platforms": list(exported.platforms),
            "stablehlo_bytes": len(exported.mlir_module_serialized),
            "lowered": {
                "lanes": LANES, "flops": round(counted.get("flops", 0.0)),
                "bytes": round(counted.get("bytes accessed", 0.0)),
            },
        } | projection(of, by_class[of.name], settings))  # fmt: skip
        print(rows[-1], flush=True)
    publish(
        {
            "projection": "nothing of this was run on an accelerator",
            "assumed": {
                "device": "H100 SXM", "peak_flops": PEAK_FLOPS, "peak_bytes_a_second": PEAK_BYTES,
                "memory_bytes": MEMORY, "share_of_peak_flops": EFFICIENCY,
                "share_of_peak_bytes": MEMORY_EFFICIENCY, "launch_seconds": LAUNCH_SECONDS,
                "kernels_a_turn": KERNELS,
            },
            "input_shape": INPUT_SHAPE,
            "batch_size": BATCH,
            "classes": rows,
        },
        args.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
