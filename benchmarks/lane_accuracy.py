"""Accuracy of networks trained by a size class's program and by their own: the same up to the seed.

With `--bfloat16`, both with products of bfloat16 as well.

    python -m benchmarks.lane_accuracy --out benchmarks/results/lane_accuracy.json

The first 10 networks of seed 0 under 60,000 parameters, 3 seeds each, 12 epochs of scikit-learn's
digits with a fifth held out. About 6 minutes on one core.
"""

import argparse
import dataclasses
import itertools
import pathlib

from deepmaker_jax.execute import runtime

runtime.one_thread()

import numpy as np  # noqa: E402 - after the thread count

from benchmarks.population import draws  # noqa: E402
from benchmarks.record import publish  # noqa: E402
from deepmaker_jax.config import TrainConfig  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.data import load, stratified  # noqa: E402
from deepmaker_jax.lanes.size_class import table  # noqa: E402
from deepmaker_jax.lanes.wiring import choose  # noqa: E402
from deepmaker_jax.train import Split, train  # noqa: E402

NUM, SEEDS, EPOCHS = 10, (0, 1, 2), 12
SETTINGS = TrainConfig(batch_size=64, crop=1, flip=False)
SHAPE = (8, 8, 1)


def main() -> None:
    """Trains all of them both ways and compares means and spreads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    runtime.keep_programs()
    data = load("digits")
    rest, held_out = stratified(data.train_labels, share=0.2, seed=0)
    split = Split(data.train_images, data.train_labels)
    classes, rows = table(SHAPE, 10), []
    for arch in itertools.islice(draws(SHAPE, most=60_000), NUM):
        size_class = choose(arch, classes)
        if size_class is None:
            raise RuntimeError(f"no size class has room for {arch}")
        narrow = dataclasses.replace(SETTINGS, compute="bfloat16")
        kinds = {"class": (size_class, SETTINGS), "plain": (None, SETTINGS)}
        if args.bfloat16:
            kinds |= {"class_bfloat16": (size_class, narrow), "plain_bfloat16": (None, narrow)}
        scores: dict[str, list[float]] = {name: [] for name in kinds}
        for seed in SEEDS:
            for name, (of, settings) in kinds.items():
                trained = train(
                    arch, split, rows=rest, held_out=held_out, settings=settings,
                    num_epochs=EPOCHS, seed=seed, input_scale=np.array([1 / 96], np.float32),
                    size_class=of,
                )  # fmt: skip
                if trained.score is None:
                    raise RuntimeError(f"{arch} diverged")
                scores[name].append(trained.score.accuracy)
        row = {"params": cost(arch).params, "size_class": size_class.name, "accuracy": scores}
        for name, found in scores.items():
            row |= {
                f"{name}_mean": round(float(np.mean(found)), 4),
                f"{name}_spread": round(float(np.std(found, ddof=1)), 4),
            }
        rows.append(row)
        print(row, flush=True)
    gaps = np.array([row["class_mean"] - row["plain_mean"] for row in rows])
    more: dict[str, float] = {}
    for kind in ("class", "plain") if args.bfloat16 else ():
        lost = np.array([row[f"{kind}_bfloat16_mean"] - row[f"{kind}_mean"] for row in rows])
        more[f"mean_gap_{kind}_bfloat16"] = round(float(lost.mean()), 5)
        more[f"largest_gap_{kind}_bfloat16"] = round(float(np.abs(lost).max()), 4)
    noise = np.sqrt(np.mean([row["plain_spread"] ** 2 + row["class_spread"] ** 2 for row in rows]))
    publish(
        {
            "mean_gap": round(float(gaps.mean()), 5),
            "standard_error_of_the_gap": round(float(noise / np.sqrt(len(SEEDS) * len(rows))), 5),
            "largest_gap": round(float(np.abs(gaps).max()), 4),
            "held_out_images": len(held_out),
            "networks": rows,
        }
        | more,
        args.out,
    )


if __name__ == "__main__":
    main()
