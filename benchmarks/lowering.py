"""Lowers every size class's program for CUDA and TPU, and projects what a step costs on an H100.

    python -m benchmarks.lowering --out benchmarks/results/lowering.json

Nothing is compiled or run for those platforms here: the times are a PROJECTION. `lowered` is XLA's
cost analysis of the lowered program, which counts the body of a loop once, however often it runs.
So `flops`, `bytes` and `kernels` are counted instead over the loops of real networks of 32x32x3,
batch 64, one training step of one lane: `own` is the mean of a network's own loops. Side by side
each loop is as long as the longest among the lanes: `padded_work` is what each of 2 to 64 lanes
does then over its own, in groups as `execute.lanes` takes them, the longest first. The times take
the shares of an H100's peaks below; lanes side by side share the launches of kernels. `lanes` is
how many memory has room for. `of_small` are networks that preset `small` of CIFAR-10 draws, the
others random ones up to a million parameters. With `--no-lowering` only this is counted, in a
minute. About 2 minutes on one core.
"""

import argparse
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from benchmarks.population import INPUT_SHAPE, NUM_CLASSES, draws, of_small
from benchmarks.record import publish
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes.size_class import BLOCK, WHOLE_BATCH, SizeClass, table
from deepmaker_jax.lanes.wiring import Lane, choose, fit, lane_macs, turns
from deepmaker_jax.train.lane import Call, idle, run_on_devices, run_side_by_side, scratch
from deepmaker_jax.train.memory import SHARE, lane_bytes
from deepmaker_jax.train.step import Feed

BATCH, NUM_NETWORKS, LANES = 64, 300, 2
NUM_OF_SMALL, TOGETHER = 128, (1, 2, 4, 8, 16, 64)
PLATFORMS = ("cuda", "tpu")
# NVIDIA's data sheet of the H100 SXM: dense TF32, which is what XLA's default precision makes of
# float32 products there; memory, capacity.
PEAK_FLOPS, PEAK_BYTES, MEMORY = 495e12, 3.35e12, 80e9
# Assumed. Of a product a group's 8 channels fill an eighth of a tensor core's 64 rows.
EFFICIENCY, MEMORY_EFFICIENCY, LAUNCH_SECONDS = 0.3 / 8, 0.6, 4e-6
# Kernels of a turn of each loop, forward and back; assumed: an edge is a slice, a product and an
# update.
KERNELS = {"num_groups": 30, "num_stem": 6, "num_pooled": 8, "num_conv_out": 9, "num_pointwise": 10}


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
    common = Feed(images, labels, scale, jax.random.key(0), np.float32(0), np.zeros(2, np.int32))
    return common, stacked(state), stacked(work), stacked(feed), stacked(call)


def lower(size_class: SizeClass, settings: TrainConfig) -> jax.export.Exported:
    """Returns the program that a class's lanes train by, LANES of them on a device, lowered."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("lanes",))
    run = jax.jit(run_on_devices(size_class, settings, mesh))
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
        pointwise, pooled = int(counts.num_pointwise[level].sum()), int(counts.num_pooled[level])
        sources = int((counts.num_conv_out[level] > 0).sum())
        targets = int((counts.num_conv_in[level] > 0).sum())
        moved = groups * (4 + 7) + pooled * 4
        moved += (sources + targets) * (3 * k + k * k)
        moved += edges * ((k * k + 2) + (k * k + 2) + (k * k + 1))
        moved += pointwise * blocks * (3 + 3 + 2)
        total += moved * a_group
    return total


def kernels(lane: Lane) -> int:
    """Returns the kernels of a step, one after the other."""
    counts = lane.wiring.counts
    return sum(each * int(getattr(counts, name).sum()) for name, each in KERNELS.items())


class Work(NamedTuple):
    """What a lane does in a step."""

    flops: float
    bytes: float
    kernels: float


def work_of(size_class: SizeClass, lanes: Sequence[Lane]) -> Work:
    """Returns the mean work of a step of these lanes, each by itself."""
    each = [
        (6 * BATCH * lane_macs(size_class, lane), traffic(size_class, lane), kernels(lane))
        for lane in lanes
    ]
    return Work(*np.mean(each, axis=0).tolist())


def side_by_side(lanes: Sequence[Lane]) -> Lane:
    """Returns what each of these lanes does beside the others: the longest of each loop."""
    (first, *_), counts = lanes, [lane.wiring.counts for lane in lanes]
    longest = jax.tree.map(lambda *x: np.max(x, axis=0), *counts)
    return first._replace(wiring=first.wiring._replace(counts=longest))


def in_groups(lanes: Sequence[Lane], num: int) -> list[Lane]:
    """Returns what each lane does in groups of `num`, the longest first as in `execute.lanes`."""
    lanes = sorted(lanes, key=turns, reverse=True)
    parts = [lanes[i : i + num] for i in range(0, len(lanes), num)]
    return [shared for part in parts for shared in [side_by_side(part)] * len(part)]


def projection(size_class: SizeClass, lanes: Sequence[Lane], room: int) -> dict[str, Any]:
    """Returns the mean work of a step of these lanes, and the time that it implies.

    Args:
      size_class: their class.
      lanes: networks.
      room: most lanes side by side.
    """
    own = work_of(size_class, lanes)
    padded, seconds = {}, {}
    for num in (num for num in TOGETHER if num <= min(room, len(lanes))):
        work = work_of(size_class, in_groups(lanes, num))
        ratios = {
            name: round(more / less, 2)
            for name, more, less in zip(Work._fields, work, own, strict=True)
        }
        padded |= {str(num): ratios} if num > 1 else {}
        arithmetic = work.flops / (EFFICIENCY * PEAK_FLOPS)
        memory = work.bytes / (MEMORY_EFFICIENCY * PEAK_BYTES)
        launches = work.kernels * LAUNCH_SECONDS / num
        whole = max(arithmetic + memory, launches)
        parts = {"arithmetic": arithmetic, "memory": memory, "launches": launches, "step": whole}
        seconds[str(num)] = {name: round(1e3 * value, 3) for name, value in parts.items()}
    return {
        "networks": len(lanes),
        "lanes": room,
        "own": {name: round(value) for name, value in own._asdict().items()},
        "padded_work": padded,
        "projected_ms_a_lane_step": seconds,
    }


def by_class(archs: Iterable[Any], classes: tuple[SizeClass, ...]) -> dict[str, list[Lane]]:
    """Returns the lanes of networks by the class that they train in."""
    found: dict[str, list[Lane]] = {of.name: [] for of in classes}
    for arch in archs:
        of = choose(arch, classes)
        if of is not None:
            found[of.name].append(fit(arch, of))
    return found


def main() -> None:
    """Lowers, counts and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-lowering", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    settings = TrainConfig(batch_size=BATCH, crop=4, flip=True)
    classes, rows = table(INPUT_SHAPE, NUM_CLASSES, num_pixels=WHOLE_BATCH), []
    lanes = by_class(itertools.islice(draws(most=1_000_000), NUM_NETWORKS * 4), classes)
    small = by_class(of_small(NUM_OF_SMALL), classes)
    for of in classes:
        room = int(SHARE * MEMORY / lane_bytes(of, settings))
        row: dict[str, Any] = {"size_class": of.name}
        row |= projection(of, lanes[of.name][:NUM_NETWORKS], room)
        if small[of.name]:
            row["of_small"] = projection(of, small[of.name], room)
        if not args.no_lowering:
            exported = lower(of, settings)
            run = jax.jit(run_side_by_side(of, settings))
            counted = run.lower(*arguments(of, settings, LANES)).cost_analysis() or {}
            row |= {
                "platforms": list(exported.platforms),
                "stablehlo_bytes": len(exported.mlir_module_serialized),
                "lowered": {
                    "lanes": LANES, "flops": round(counted.get("flops", 0.0)),
                    "bytes": round(counted.get("bytes accessed", 0.0)),
                },
            }  # fmt: skip
        rows.append(row)
        print(row, flush=True)
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
