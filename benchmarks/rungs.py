"""What a first rung should be: fewer epochs, fewer images or smaller ones, for the same work.

    python -m benchmarks.rungs --data DIR --work WORK --out FILE

The first rung of presets `small` and `night` is a third of the epochs; of the searches that
`benchmarks.search_methods` compares, three epochs on 10,000 images of 32x32 pixels. Beside it
stand, on the same networks, nine epochs on a third of the images, twelve on images of 16x16 and
five on images of 24x24: about as many multiply-accumulates, `work` says how many; the first epoch
alone; and no training. Who goes on from smaller images has its program compiled twice, which is not
counted. Reported is how well each tells the networks apart: Kendall's tau of its accuracy with that
of a training to the last rung with another seed (the same seed's goes on from today's rung), and
`beyond_costs`, the tau of what a linear fit of logarithms of parameters and multiply-accumulates
leaves of both: costs are known before any training, so that is what a rung is for. `more` is what
either gains on today's rung, with an interval that holds 90 % of the gains on networks drawn again
with replacement. 40 networks, the first of `benchmarks.curves` whose maps have 2x2 pixels or more
at 16x16 too. What the learning rate's restart at the rung costs in accuracy is measured on the
first 20, trained to the last rung in one cycle too. Four core-hours.
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
from benchmarks.curves import NUM_REPEATED, RUNGS, feasible, make_task  # noqa: E402
from benchmarks.proxies import CURVES, rest  # noqa: E402
from benchmarks.record import made_of, publish, train_missing  # noqa: E402
from benchmarks.resample import drawn, interval  # noqa: E402
from benchmarks.surrogate import tau  # noqa: E402
from deepmaker_jax.arch import ArchSpec, layers  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.data import split  # noqa: E402
from deepmaker_jax.execute import Task  # noqa: E402
from deepmaker_jax.machine import num_cores  # noqa: E402
from deepmaker_jax.train.candidate import Split, train  # noqa: E402

NUM, LEAST_SIDE = 40, 2
REPORTING = ("main", "summary", "gain", "drawn", "interval", "one_cycle")


class Rung(NamedTuple):
    """A training, and what is measured at its end."""

    epochs: int
    side: int = 32
    image_share: float = 1.0
    seed: int = 0
    rungs: tuple[int, ...] = ()


TODAY, TRUTH, ONE_CYCLE = "today", "all epochs", "all epochs in one cycle"
RUNGS_TRIED = {
    TODAY: Rung(RUNGS[1]),
    "a third of the images": Rung(9, image_share=1 / 3),
    "16x16 pixels": Rung(12, side=16),
    "24x24 pixels": Rung(5, side=24),
    "an epoch": Rung(RUNGS[0]),
    TRUTH: Rung(RUNGS[-1], seed=1, rungs=RUNGS[1:]),
    ONE_CYCLE: Rung(RUNGS[-1], seed=1),
}


def work(rung: Rung) -> float:
    """Returns what a rung costs, by how many pixels it sees, in parts of what today's does."""
    today = RUNGS_TRIED[TODAY]
    return rung.epochs * rung.image_share * rung.side**2 / (today.epochs * today.side**2)


def is_comparable(arch: ArchSpec) -> bool:
    """Whether a network's maps are within the space's rule for images of 16x16 pixels too."""
    arch = dataclasses.replace(arch, input_shape=(16, 16, 3))
    return all(layer.shape[0] >= LEAST_SIDE for layer in layers(arch) if layer.op == "conv")


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
    return {"rung": name, "accuracy": None if trained.score is None else trained.score.accuracy}


def gain(values: np.ndarray, today: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Returns how much more tau a measure has than today's, and how sure that is."""

    def more(rows: np.ndarray) -> float:
        return tau(values[rows], truth[rows]) - tau(today[rows], truth[rows])

    num = len(truth)
    found = [more(rows) for rows in drawn(num)]
    return {"more": round(more(np.arange(num)), 3), "interval": interval(found)}


def summary(found: dict[str, np.ndarray], truth: np.ndarray, costs: np.ndarray) -> list[dict]:
    """Returns what each rung is worth.

    Args:
      found: accuracies by rung, Float[n].
      truth: accuracies after a whole training, Float[n].
      costs: what a network's size says without any training, Float[n, costs].
    """
    rows = []
    beyond = {name: rest(values, costs) for name, values in found.items()}
    true = rest(truth, costs)
    for name, values in found.items():
        row: dict[str, Any] = {
            "rung": name,
            "work": round(work(RUNGS_TRIED[name]), 3),
            "mean_accuracy": round(float(values.mean()), 4),
            "tau": tau(values, truth),
            "beyond_costs": tau(beyond[name], true),
        }
        if name != TODAY:
            row["more_tau"] = gain(values, found[TODAY], truth)
            row["more_beyond_costs"] = gain(beyond[name], beyond[TODAY], true)
        rows.append(row)
    by_size = tau(truth - true, truth)
    return [*rows, {"rung": "none, by costs alone", "work": 0.0, "tau": by_size}]


def main() -> None:
    """Trains what is not there yet and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    space, curves = feasible().space, surrogate.load(CURVES)
    first = np.flatnonzero(curves.seeds == 0)
    chosen = np.array([i for i in first if is_comparable(curves.archs[i])][:NUM])
    jobs = {
        f"{name} {curves.ids[i]}": (args.data, name, space.encode(curves.archs[i]).tolist())
        for i in chosen
        for name in RUNGS_TRIED
        if name != ONE_CYCLE or i in chosen[:NUM_REPEATED]
    }
    lines = train_missing(
        do_job, jobs, args.work / "rows.jsonl", num_workers=args.workers,
        made_of=made_of(CURVES, reporting=REPORTING),
    )  # fmt: skip
    by_job = {line["job"]: line for line in lines}

    def told(name: str, what: str, some: np.ndarray = chosen) -> np.ndarray:
        return np.array([by_job[f"{name} {curves.ids[i]}"][what] for i in some], np.float64)

    found = {name: told(name, "accuracy") for name in RUNGS_TRIED if name != ONE_CYCLE}
    whole = np.all([np.isfinite(values) for values in found.values()], axis=0)
    truth = found.pop(TRUTH)[whole]
    sizes = [cost(curves.archs[i]) for i in chosen[whole]]
    costs = np.log2([[c.params, c.macs] for c in sizes])
    rows = summary({name: values[whole] for name, values in found.items()}, truth, costs)
    repeated = chosen[:NUM_REPEATED]
    restarts = one_cycle(*(told(name, "accuracy", repeated) for name in (ONE_CYCLE, TRUTH)))
    counts = {"networks": int(whole.sum()), "diverged": int((~whole).sum())}
    told_all = {"truth_epochs": RUNGS[-1], "rungs": rows, "in_one_cycle": restarts}
    publish(counts | told_all, args.out)


def one_cycle(without: np.ndarray, with_restarts: np.ndarray) -> dict[str, Any]:
    """Returns what trainings without restarts have more, in points, and how sure that is."""
    points = 100 * (without - with_restarts)
    points = points[np.isfinite(points)]
    return {
        "networks": len(points),
        "more_points": round(float(points.mean()), 3),
        "interval": interval([points[rows].mean() for rows in drawn(len(points))]),
    }


if __name__ == "__main__":
    main()
