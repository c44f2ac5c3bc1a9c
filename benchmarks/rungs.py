"""What a first rung should be: fewer epochs, fewer images or smaller ones, at the same cost.

    python -m benchmarks.rungs --data DIR --work WORK --out FILE

The first rung of `benchmarks.curves` is an epoch on 9,000 images of 32x32 pixels. Beside it stand,
on the same networks, three epochs on a third of the images, four on images of 16x16 and two on
images of 24x24: multiply-accumulates as many, but for the last with a tenth more. Reported is how
well each tells the networks apart: Kendall's tau of its accuracy with that of a training to the
last rung with another seed (the same seed's goes on from today's rung), and `beyond_costs`, the tau
of what a linear fit of logarithms of parameters and multiply-accumulates leaves of both; `more_tau`
is what it gains on today's rung, with an interval that holds 90 % of the gains on networks drawn
again with replacement. 48 networks, about an hour of one core.
"""

import argparse
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count
import numpy as np  # noqa: E402

from benchmarks import surrogate  # noqa: E402
from benchmarks.curves import RUNGS, feasible, make_task  # noqa: E402
from benchmarks.proxies import CURVES, rest  # noqa: E402
from benchmarks.record import made_of, publish, train_missing  # noqa: E402
from benchmarks.surrogate import tau  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.data import split  # noqa: E402
from deepmaker_jax.execute import Task  # noqa: E402
from deepmaker_jax.machine import num_cores  # noqa: E402
from deepmaker_jax.train.candidate import Split, train  # noqa: E402

NUM, DRAWS = 48, 1000


class Rung(NamedTuple):
    """A training that costs about as much as an epoch on all images."""

    epochs: int
    side: int = 32
    image_share: float = 1.0
    seed: int = 0
    rungs: tuple[int, ...] = ()


TODAY, TRUTH = "an epoch", "all epochs"
RUNGS_TRIED = {
    "a third of the images": Rung(3, image_share=1 / 3),
    "16x16 pixels": Rung(4, side=16),
    "24x24 pixels": Rung(2, side=24),
    TRUTH: Rung(RUNGS[-1], seed=1, rungs=RUNGS),
}


@functools.cache
def task_at(data_path: str, side: int) -> Task:
    """Returns the task of `benchmarks.curves` with images of another side."""
    task = make_task(0, feasible(), data_path)
    if side == task.images.shape[1]:
        return task
    shrink = jax.jit(lambda some: jax.image.resize(some, (len(some), side, side, 3), "linear"))
    parts = np.array_split(task.images, 50)
    images = [np.rint(shrink(part.astype(np.float32))).astype(np.uint8) for part in parts]
    settings = dataclasses.replace(task.settings, crop=side // 8)
    return task._replace(images=np.concatenate(images), settings=settings)


def do_job(data_path: str, name: str, genome: list[int]) -> dict[str, Any]:
    """Trains a network on a rung; returns its row."""
    rung, space = RUNGS_TRIED[name], feasible().space
    arch = space.decode(np.array(genome, np.int32))
    arch = dataclasses.replace(arch, input_shape=(rung.side, rung.side, 3))
    task = task_at(data_path, rung.side)
    rows = task.search_rows
    if rung.image_share < 1:
        num = round(rung.image_share * len(rows))
        rows = rows[split.subset(task.labels[rows], num=num, least=1, seed=task.seed)]
    trained = train(
        arch, Split(task.images, task.labels), settings=task.settings, num_epochs=rung.epochs,
        seed=rung.seed, input_scale=task.input_scale, rows=rows, held_out=task.validation_rows,
        rungs=rung.rungs,
    )  # fmt: skip
    jax.clear_caches()
    seconds = trained.train_seconds + trained.eval_seconds
    accuracy = None if trained.score is None else trained.score.accuracy
    return {"rung": name, "accuracy": accuracy, "seconds": round(seconds, 1)}


def gain(values: np.ndarray, today: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Returns how much more tau a measure has than today's, and how sure that is."""
    rng, gains = np.random.default_rng(0), []
    for _ in range(DRAWS):
        rows = rng.integers(len(truth), size=len(truth))
        gains.append(tau(values[rows], truth[rows]) - tau(today[rows], truth[rows]))
    low, high = np.percentile(gains, [5, 95])
    return {
        "more_tau": round(tau(values, truth) - tau(today, truth), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
    }


def main() -> None:
    """Trains what is not there yet and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    space, curves = feasible().space, surrogate.load(CURVES)
    chosen = np.flatnonzero(curves.seeds == 0)[:NUM]
    jobs = {
        f"{name} {curves.ids[i]}": (args.data, name, space.encode(curves.archs[i]).tolist())
        for i in chosen
        for name in RUNGS_TRIED
    }
    lines = train_missing(
        do_job, jobs, args.work / "rows.jsonl", num_workers=args.workers, made_of=made_of(CURVES)
    )
    by_job = {line["job"]: line for line in lines}
    found = {TODAY: curves.accuracy[chosen, 0]}
    for name in RUNGS_TRIED:
        found[name] = np.array([by_job[f"{name} {curves.ids[i]}"]["accuracy"] for i in chosen],
                               np.float64)  # fmt: skip
    whole = np.all([np.isfinite(values) for values in found.values()], axis=0)
    truth = found.pop(TRUTH)[whole]
    sizes = [cost(curves.archs[i]) for i in chosen[whole]]
    costs = np.log2([[c.params, c.macs] for c in sizes])
    rows = []
    for name, values in found.items():
        beyond = tau(rest(values[whole], costs), rest(truth, costs))
        row = {"rung": name, "tau": tau(values[whole], truth), "beyond_costs": beyond,
               "mean_accuracy": round(float(values[whole].mean()), 4)}  # fmt: skip
        if name != TODAY:
            row |= gain(values[whole], found[TODAY][whole], truth)
        rows.append(row)
    publish({"networks": int(whole.sum()), "truth_epochs": RUNGS[-1], "rungs": rows}, args.out)


if __name__ == "__main__":
    main()
