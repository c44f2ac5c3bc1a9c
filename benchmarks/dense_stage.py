"""A dense stage's training as one operation beside the same layers one by one.

    python -m benchmarks.dense_stage --out benchmarks/results/dense_stage.json

Networks of two equal stages, batch 64 of random pixels, one thread, huge pages as in workers: the
best of some calls of 8 training steps, the two forms in turn. `models.stages.pays` follows it. A
quarter of an hour on one core.
"""

import argparse
import itertools
import pathlib

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count

from benchmarks.lane_program import PlainProgram, timed  # noqa: E402
from benchmarks.record import in_workers_environment, publish  # noqa: E402
from deepmaker_jax.arch import ArchSpec, Stage  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.models import network  # noqa: E402
from deepmaker_jax.train import runner  # noqa: E402

STEPS, CALLS, BATCH = 8, 4, 64
GRID = [
    (side, kernel, layers, growth)
    for side, kernel in ((32, 3), (16, 3), (32, 5), (16, 5))
    for layers, growth in itertools.product((1, 2, 4, 8), (4, 8, 16, 32))
    if kernel == 3 or (layers < 8 and growth < 32)
]


def measure(side: int, kernel: int, layers: int, growth: int) -> dict[str, float]:
    """Returns the milliseconds a step in both forms."""
    stage = Stage(layers, growth, kernel, 0, "full", 50)
    arch = ArchSpec((side, side, 3), 10, 16, "none", "post", "hard_swish", (stage, stage), "sgd", 0)
    usual, programs = network.pays, {}
    for name, pays in (("one_by_one", lambda *_: False), ("as_one", lambda *_: True)):
        network.pays = pays
        runner._own.clear()
        jax.clear_caches()
        programs[name] = PlainProgram(arch, batch_size=BATCH, steps=STEPS)
    network.pays = usual
    best: dict[str, float] = {}
    for _ in range(CALLS):
        for name, program in programs.items():
            spent = 1e3 * timed(program.go, 1)[0] / STEPS
            best[name] = min(spent, best.get(name, spent))
    seconds = {f"{name}_compile": round(p.compile_seconds, 1) for name, p in programs.items()}
    return {"macs": cost(arch).macs} | {n: round(ms, 2) for n, ms in best.items()} | seconds


def main() -> None:
    """Times every point of the grid and publishes."""
    in_workers_environment()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    for side, kernel, layers, growth in GRID:
        point = {"side": side, "kernel": kernel, "layers": layers, "growth": growth}
        row = point | measure(side, kernel, layers, growth)
        rows.append(row | {"times_as_fast": round(row["one_by_one"] / row["as_one"], 3)})
        print(rows[-1], flush=True)
    publish({"batch": BATCH, "networks": rows}, args.out)


if __name__ == "__main__":
    main()
