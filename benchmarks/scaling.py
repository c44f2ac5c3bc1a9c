"""How the cost of a training step scales, and where its time goes.

    python -m benchmarks.scaling --part lanes --out benchmarks/results/scaling.json

Parts: lanes 1 to 64, side by side, in turn and each in a program of its own; devices 1 to 8
(virtual ones on a CPU: they show that it works and what it costs, not a gain; each has a thread of
its own, all else one core); batch sizes; depth; width; profile. Each takes under 10 minutes on two
cores, `--quick` a minute or two, and is kept beside the others in the file named by `--out`, row by
row, with a picture. Random pixels; the best and the worst of some calls of 4 steps; relu and sgd.
"""

import argparse
import dataclasses
import gzip
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from deepmaker_jax.execute import runtime

runtime.one_thread()
if "devices" in sys.argv:  # before JAX starts; real accelerators are not affected
    FLAG = "--xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}"

import jax  # noqa: E402 - after the thread count
import matplotlib  # noqa: E402

from benchmarks.lane_program import (  # noqa: E402
    LaneProgram,
    PlainProgram,
    network,
    size_class_of,
    timed,
)
from benchmarks.population import draws  # noqa: E402
from benchmarks.record import conditions  # noqa: E402
from deepmaker_jax.arch import ArchSpec  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.files import load_json, write_json  # noqa: E402
from deepmaker_jax.lanes.wiring import fit, lane_macs, turns  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

ON_CPU = jax.default_backend() == "cpu"
SIDE, BATCH = (16, 32) if ON_CPU else (32, 64)
SIDE_BY_SIDE = "map" if ON_CPU else "vmap"  # what trains a search's candidates here
CONTAINERS = ("while", "call", "cond")  # events that hold others


Rows = Iterator[dict[str, Any]]


def mixed(num: int, side: int) -> list[ArchSpec]:
    """Returns different networks of one size class, all of relu and sgd, the longest first."""
    found: list[ArchSpec] = []
    for arch in draws((side, side, 3), most=60_000):
        arch = dataclasses.replace(arch, activation="relu", optimizer="sgd")
        if size_class_of(arch).name == "small-3x3":
            found.append(arch)
        if len(found) == num:
            break
    of = size_class_of(found[0])
    return sorted(found, key=lambda arch: turns(fit(arch, of)), reverse=True)


def part_lanes(quick: bool) -> Rows:
    """The same networks, so many at once in a program: each row trains all of them.

    First what decides `program.choose` on an accelerator: side by side, with one
    activation and optimizer and with a switch over all, against programs of
    their own, of every eighth network.
    """
    side = 8 if ON_CPU else SIDE  # 64 lanes of larger images do not fit a small machine
    archs = mixed(8 if quick else 64, side)
    kinds = {"one": size_class_of(archs[0]), "all": size_class_of(archs[0], {})}

    def row(strategy, num, kind="one"):
        program = LaneProgram(
            archs[:num], size_class=kinds[kind], batch_size=BATCH, strategy=strategy
        )
        found = program.measure_all(archs, 3).rounded()
        return {"strategy": strategy, "lanes": num, "kinds": kind, "side": side} | found

    counts = (1, 4) if quick else (1, 2, 4, 8, 16, 32, 64)
    for strategy in ("map", "vmap") if ON_CPU else ("vmap", "map"):
        for num in counts:
            yield row(strategy, num)
        yield row(strategy, counts[1] if strategy == "map" else counts[-1], "all")
        if strategy == SIDE_BY_SIDE:
            for arch in archs[:: len(archs) // 8]:
                program = PlainProgram(arch, batch_size=BATCH)
                best, worst = (1e3 * spent / 4 for spent in timed(program.go, 5))
                yield {
                    "strategy": "plain", "lanes": 1, "side": side, "params": cost(arch).params,
                    "ms_a_lane_step": round(best, 3), "worst_ms": round(worst, 3),
                    "compile_seconds": round(program.compile_seconds, 1),
                }  # fmt: skip


def part_devices(quick: bool) -> Rows:
    """8 lanes on more devices; a virtual one is a share of the same cores."""
    arch = network(8 if ON_CPU else SIDE, stages=2)
    counts = [n for n in (1, 2, 4, 8) if n <= len(jax.devices())]
    for num in counts[:2] if quick else counts:
        program = LaneProgram(
            [arch] * 8, size_class=size_class_of(arch), batch_size=BATCH, strategy="vmap",
            devices=jax.devices()[:num],
        )  # fmt: skip
        yield {"devices": num, "lanes": 8} | program.measure(5).rounded()


def _one(arch: Any, batch_size: int = BATCH) -> dict[str, float]:
    of = size_class_of(arch)
    strategy = SIDE_BY_SIDE
    program = LaneProgram([arch] * 2, size_class=of, batch_size=batch_size, strategy=strategy)
    macs = lane_macs(of, fit(arch, of))
    return {
        "size_class": of.name,
        "params": cost(arch).params,
        "macs": cost(arch).macs,
        "padded_work": round(macs / cost(arch).macs, 2),
    } | program.measure(5).rounded()


def part_batch(quick: bool) -> Rows:
    """The same network with other batches."""
    for batch_size in (16, 64) if quick else (16, 32, 64, 128, 256):
        row = {"batch_size": batch_size} | _one(network(SIDE), batch_size)
        row["us_an_image"] = round(1e3 * row["ms_a_lane_step"] / batch_size, 2)
        yield row


def part_depth(quick: bool) -> Rows:
    """Layers of each of three stages."""
    for layers in (1, 4) if quick else (1, 2, 3, 4, 6, 8):
        yield {"layers": layers} | _one(network(SIDE, layers=layers, growth=8))


def part_width(quick: bool) -> Rows:
    """Channels that a layer adds."""
    for growth in (8, 16) if quick else (4, 8, 12, 16, 24, 32):
        yield {"growth": growth} | _one(network(SIDE, growth=growth))


def part_profile(quick: bool) -> Rows:
    """Where a step's time goes, and how far that is from the machine's best matrix product."""
    arch = network(32)
    of = size_class_of(arch)
    program = LaneProgram([arch], size_class=of, batch_size=64, strategy=SIDE_BY_SIDE)
    peak = peak_flops(1024 if quick else 2048)
    found = program.measure(2 if quick else 5)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            program.go()
        by_kind, by_op = busy_seconds(pathlib.Path(folder))
    flops = 6 * 64 * lane_macs(of, fit(arch, of))  # forward, and back to inputs and to weights
    rate = flops / (found.ms_a_lane_step / 1e3)
    total = sum(by_kind.values())
    products = by_kind.get("matrix products", 0.0)
    yield {
        "ms_a_lane_step": round(found.ms_a_lane_step, 2),
        "worst_ms": round(found.worst_ms, 2),
        "gflops_a_second": round(rate / 1e9, 1),
        "peak_gflops_a_second": round(peak / 1e9, 1),
        "share_of_peak": round(rate / peak, 3),
        "share_of_peak_within_products": round(flops * 4 / max(products, 1e-9) / peak, 3),
        "shares": {name: round(value / total, 3) for name, value in sorted(by_kind.items())},
        "largest": {name: round(value / total, 3) for name, value in by_op[:12]},
    }


def peak_flops(size: int) -> float:
    """Returns the rate of the best of a few square float32 matrix products."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        product(x).block_until_ready()
        spent.append(time.perf_counter() - began)
    return 2 * size**3 / min(spent)


def kind_of(name: str) -> str:
    """Returns what an operation of a compiled program does, by its name."""
    for words, kind in (
        (("dot", "gemm", "ynn"), "matrix products"),
        (("copy", "transpose", "concatenate", "pad", "bitcast", "slice", "reshape"), "moving data"),
        (("dynamic", "update", "gather", "scatter"), "moving data"),
        (("broadcast", "iota", "constant"), "filling"),
        (("reduce",), "sums"),
        (("select", "add", "multiply", "compare", "maximum", "convert"), "arithmetic"),
    ):
        if any(word in name for word in words):
            return kind
    return "other fusions"


def busy_seconds(folder: pathlib.Path) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """Returns a trace's seconds by kind, and by operation with the largest first."""
    (path,) = folder.rglob("*.trace.json.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    by_kind: dict[str, float] = {}
    by_op: dict[str, float] = {}
    for event in events:
        name = event.get("args", {}).get("hlo_op")
        if name is None or name.split(".")[0].startswith(CONTAINERS):
            continue
        name = name.rstrip("0123456789.").removesuffix(".clone")
        seconds = event["dur"] / 1e6
        by_op[name] = by_op.get(name, 0.0) + seconds
        by_kind[kind_of(name)] = by_kind.get(kind_of(name), 0.0) + seconds
    return by_kind, sorted(by_op.items(), key=lambda item: -item[1])


PARTS: dict[str, Callable[[bool], Rows]] = {
    "lanes": part_lanes, "devices": part_devices, "batch": part_batch,
    "depth": part_depth, "width": part_width, "profile": part_profile,
}  # fmt: skip
AXES = {
    "lanes": "lanes", "devices": "devices", "batch": "batch_size", "depth": "layers",
    "width": "growth",
}  # fmt: skip


def draw(part: str, found: Any, path: pathlib.Path) -> None:
    """Writes a picture of a part: time with the range of its calls, and memory below."""
    if part == "profile":
        figure, axes = pyplot.subplots(figsize=(4.8, 3.2), dpi=100, layout="constrained")
        shares = sorted(found["shares"].items(), key=lambda item: item[1])
        axes.barh([name for name, _ in shares], [100 * share for _, share in shares])
        axes.set_xlabel("share of a step's time, %")
    else:
        figure, (upper, lower) = pyplot.subplots(
            2, sharex=True, figsize=(4.8, 4.8), dpi=100, layout="constrained"
        )
        key, found = AXES[part], [row for row in found if row.get("kinds") != "all"]
        for i, strategy in enumerate(dict.fromkeys(row.get("strategy", "") for row in found)):
            rows = [row for row in found if row.get("strategy", "") == strategy]
            x, best = [row[key] for row in rows], [row["ms_a_lane_step"] for row in rows]
            above = [row["worst_ms"] - row["ms_a_lane_step"] for row in rows]
            style = f"C{i}o" if strategy == "plain" else f"C{i}o-"
            upper.errorbar(x, best, [[0] * len(x), above], fmt=style, label=strategy or None)
            if strategy != "plain":
                lower.plot(x, [row["memory_mb"] for row in rows], style)
        lower.set_xscale("log", base=2)
        lower.set_xticks(sorted({row[key] for row in found}))
        lower.xaxis.set_major_formatter("{x:g}")
        lower.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        lower.set_xlabel(key.replace("_", " "))
        lower.set_ylabel("memory, MB")
        upper.set_ylabel("ms a lane and step")
        for axes in (upper, lower):
            axes.set_ylim(bottom=0)
        if part == "lanes":
            upper.legend()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Measures one part and writes it beside those that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for row in PARTS[args.part](args.quick):
        rows.append(row)
        print(row, flush=True)
        if args.out is not None:  # after each row: a part that is stopped leaves what it has
            publish(args.part, rows, quick=args.quick, out=args.out)


def publish(part: str, rows: list[dict[str, Any]], *, quick: bool, out: pathlib.Path) -> None:
    """Writes what a part has found so far beside the other parts' figures."""
    found = rows[0] if part == "profile" else rows
    kept = load_json(out) if out.exists() else {}
    where = {"device": jax.devices()[0].device_kind, "quick": quick}
    write_json(out, kept | {part: conditions() | where | {"figures": found}})
    draw(part, found, out.with_name(f"{out.stem}_{part}.png"))


if __name__ == "__main__":
    main()
