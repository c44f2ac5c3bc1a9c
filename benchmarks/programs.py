"""What a network's own program costs beside a size class's: the figures that `program.choose` uses.

    python -m benchmarks.programs --out benchmarks/results/programs.json

The first networks of seed 0 that preset `small` of CIFAR-10 would draw, one thread, batch 64 of
random 32x32x3 images with crops and flips. Each trains twice for STEPS steps and is measured on
NUM_HELD_OUT images, in its own program and in a size class's: the second time nothing is compiled,
and what the first took longer is the price of compiling; so it is measured of every size class in
the table. All of it once with the level of LLVM's optimization that training takes, the first for
own programs and the usual third one for classes', and once with the other of the two. In a worker's
environment; about 7 minutes on one core.
"""

import argparse
import contextlib
import pathlib
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count
import numpy as np  # noqa: E402

from benchmarks.population import INPUT_SHAPE, NUM_CLASSES, of_small  # noqa: E402
from benchmarks.record import in_workers_environment, publish  # noqa: E402
from deepmaker_jax.arch import ArchSpec  # noqa: E402
from deepmaker_jax.config import TrainConfig  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.lanes.size_class import SizeClass, table  # noqa: E402
from deepmaker_jax.lanes.wiring import choose  # noqa: E402
from deepmaker_jax.train import Split, runner, step, train  # noqa: E402

STEPS, NUM_HELD_OUT = 64, 512
SETTINGS = TrainConfig(batch_size=64, crop=4, flip=True)
FLOPS_A_MAC = 6  # forward and back


def timed(arch: ArchSpec, data: Split, of: SizeClass | None) -> tuple[float, float]:
    """Returns (seconds lost to compiling, seconds a step) of one program."""
    rows = np.arange(STEPS * SETTINGS.batch_size, dtype=np.int32)
    spent = []
    for _ in range(2):
        began = time.perf_counter()
        trained = train(
            arch, data, rows=rows, held_out=rows[:NUM_HELD_OUT], settings=SETTINGS, num_epochs=1,
            seed=0, input_scale=np.full(3, 1 / 64, np.float32), size_class=of,
        )  # fmt: skip
        spent.append(time.perf_counter() - began)
    return spent[0] - spent[1], trained.train_seconds / STEPS


def other_options(*, in_class: bool = False) -> dict[str, Any]:
    """Returns XLA's options with the level that `train.step.options` does not take."""
    return {"xla_backend_optimization_level": 1 if in_class else 3}


def measured(archs: Sequence[ArchSpec], data: Split) -> dict[str, Any]:
    """Returns the figures of these networks and of the size classes."""
    classes, rows = table(INPUT_SHAPE, NUM_CLASSES), []
    compiled: dict[str, float] = {}
    for of in classes:
        fitting = [arch for arch in archs if choose(arch, (of,)) is not None]
        if not fitting:
            raise RuntimeError(f"none of {len(archs)} networks fits {of.name}: --networks more")
        compiled[of.name], _ = timed(min(fitting, key=lambda a: cost(a).macs), data, of)
        print(f"{of.name} compiles in {compiled[of.name]:.1f} s", flush=True)
    for arch in archs:
        of = choose(arch, classes)
        if of is None:
            raise RuntimeError(f"no size class has room for {arch}")
        own_compile, own_step = timed(arch, data, None)
        _, class_step = timed(arch, data, of)
        rows.append({
            "params": cost(arch).params, "macs": cost(arch).macs, "size_class": of.name,
            "own_compile_seconds": round(own_compile, 2), "own_step_ms": round(1e3 * own_step, 2),
            "class_step_ms": round(1e3 * class_step, 2),
        })  # fmt: skip
        print(rows[-1], flush=True)
    flops = FLOPS_A_MAC * SETTINGS.batch_size * sum(row["macs"] for row in rows)
    own, shared = (sum(row[name] for row in rows) for name in ("own_step_ms", "class_step_ms"))
    return {
        "compile_seconds": round(sum(r["own_compile_seconds"] for r in rows) / len(rows), 2),
        "class_compile_seconds": {name: round(s, 2) for name, s in compiled.items()},
        "gflops_a_second": round(flops / own / 1e6, 1),
        "class_slower": round(shared / own - 1, 2),
        "networks": rows,
    }


def main() -> None:
    """Times and publishes."""
    in_workers_environment()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    num = STEPS * SETTINGS.batch_size
    images = rng.integers(0, 256, (num, *INPUT_SHAPE), dtype=np.uint8)
    data = Split(images, rng.integers(0, NUM_CLASSES, num).astype(np.int32))
    archs = of_small(args.networks)
    found = measured(archs, data)
    with contextlib.ExitStack() as patched:
        for module in (runner, step):
            patched.enter_context(mock.patch.object(module, "options", other_options))
        runner._programs.clear()
        runner._own.clear()
        jax.clear_caches()
        other = measured(archs, data)
    publish(found | {"with_the_other_level": other}, args.out)


if __name__ == "__main__":
    main()
