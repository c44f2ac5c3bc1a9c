"""What the size classes hold: networks of the space per class and the arithmetic that padding adds.

    python -m benchmarks.size_classes --out benchmarks/results/size_classes.json

1,000 networks of space `deepmaker` up to 200,000 parameters for 32x32x3, and 200 from there to a
million. `padded_work` is a lane's multiply-accumulates, padded channels included, over the plain
network's. `memory` is the scratch memory of a program at batch 64. A minute on one core.
"""

import argparse
import pathlib

import jax
import numpy as np

from benchmarks.population import INPUT_SHAPE, NUM_CLASSES, draws
from benchmarks.record import publish
from deepmaker_jax.cost import cost
from deepmaker_jax.lanes.scratch import make_work
from deepmaker_jax.lanes.size_class import table
from deepmaker_jax.lanes.wiring import choose, fit, lane_macs

NUM, NUM_LARGE, MOST, LARGEST = 1000, 200, 200_000, 1_000_000
BATCH = 64


def main() -> None:
    """Draws, fits and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    classes = table(INPUT_SHAPE, NUM_CLASSES)
    factors: dict[tuple[str, bool], list[float]] = {}
    wanted = {False: NUM, True: NUM_LARGE}
    for arch in draws(most=LARGEST):
        if not any(wanted.values()):
            break
        large = cost(arch).params > MOST
        if not wanted[large]:
            continue
        wanted[large] -= 1
        of = choose(arch, classes)
        factor = 1.0 if of is None else lane_macs(of, fit(arch, of)) / cost(arch).macs
        factors.setdefault((of.name if of else "a program of its own", large), []).append(factor)
    rows = []
    for size_class in classes:
        work = jax.eval_shape(lambda size_class=size_class: make_work(size_class, BATCH))
        row = {
            "name": size_class.name,
            "channels_by_level": size_class.num_rows,
            "edges": size_class.num_convs,
            "edges_1x1": size_class.num_pointwise,
            "memory_mb": round(sum(4 * leaf.size for leaf in jax.tree.leaves(work)) / 1e6),
        }
        for large, label in ((False, "up_to_200k"), (True, "up_to_1m")):
            found = factors.pop((size_class.name, large), [])
            row[f"networks_{label}"] = len(found)
            row[f"padded_work_{label}"] = round(float(np.mean(found)), 2) if found else None
        rows.append(row)
    left = {
        f"{name}, {'large' if large else 'up to 200k'}": len(f)
        for (name, large), f in factors.items()
    }
    publish(
        {"networks": NUM, "large_networks": NUM_LARGE, "classes": rows, "no_class": left}, args.out
    )


if __name__ == "__main__":
    main()
