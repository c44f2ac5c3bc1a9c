"""What a first rung should be: fewer epochs, fewer images or smaller ones, for the same work.

    python -m benchmarks.rungs --data DIR --work WORK --out FILE

The first rung of presets `small` and `night` is a third of the epochs; of the searches that
`benchmarks.search_methods` compares, three epochs on 10,000 images of 32x32 pixels. Beside it
stand, on the same networks, nine epochs on a third of the images, twelve on images of 16x16 and
five on images of 24x24: about as many multiply-accumulates, `work` says how many and `seconds` what
a network took of a core beside other work, its program's compilation within; one epoch, with a
cycle of the learning rate of its own; and no training. Who goes on from smaller images has its
program compiled twice, which is not counted. All have seed 1. Reported is how well each tells the
networks apart: Kendall's tau of its accuracy with that after all epochs with seed 0
(benchmarks/results/curves.jsonl), and what it knows beyond what is known before any training, as
that is what a rung is for: `beyond_costs` is the tau of what a quadratic fit of logarithms of
parameters and multiply-accumulates leaves of both, in log odds, `beyond_surrogate` of what one of
the prediction leaves of `benchmarks.surrogate` that has not seen the network. `more` is what either
gains on today's rung, with an interval that holds 90 % of the gains on networks drawn again with
replacement. 80 networks whose maps have 2x2 pixels or more at 16x16 too: the first 40 of
`benchmarks.curves` and the first 40 that a search proposed, which are told alone too: a search's
rung is for such. A training that diverged counts as one that guesses. Three core-hours.
"""

import argparse
import dataclasses
import functools
import itertools
import pathlib
import time
from typing import Any, NamedTuple

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count
import numpy as np  # noqa: E402

from benchmarks import surrogate  # noqa: E402
from benchmarks.curves import RUNGS, feasible, make_task  # noqa: E402
from benchmarks.proxies import CURVES, rest  # noqa: E402
from benchmarks.record import made_of, publish, train_missing  # noqa: E402
from benchmarks.resample import drawn, interval  # noqa: E402
from benchmarks.surrogate import logit, tau  # noqa: E402
from deepmaker_jax.arch import ArchSpec, layers  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.data import split  # noqa: E402
from deepmaker_jax.execute import Task  # noqa: E402
from deepmaker_jax.files import load_json  # noqa: E402
from deepmaker_jax.machine import num_cores  # noqa: E402
from deepmaker_jax.spaces import Space  # noqa: E402
from deepmaker_jax.train.candidate import Split, train  # noqa: E402

NUM, LEAST_SIDE = 40, 2  # networks of either kind
CHANCE = 0.1


class Rung(NamedTuple):
    """A training, and what is measured at its end."""

    epochs: int
    side: int = 32
    image_share: float = 1.0


SEED, TODAY = 1, "today"
RUNGS_TRIED = {
    TODAY: Rung(RUNGS[1]),
    "a third of the images": Rung(9, image_share=1 / 3),
    "16x16 pixels": Rung(12, side=16),
    "24x24 pixels": Rung(5, side=24),
    "an epoch": Rung(RUNGS[0]),
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
    began = time.process_time()
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
        seed=SEED, input_scale=task.input_scale, rows=rows, held_out=task.validation_rows,
    )  # fmt: skip
    jax.clear_caches()
    return {
        "rung": name,
        "accuracy": None if trained.score is None else trained.score.accuracy,
        "seconds": round(time.process_time() - began, 1),
    }


def gain(values: np.ndarray, today: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Returns how much more tau a measure has than today's, and how sure that is."""

    def more(rows: np.ndarray) -> float:
        return tau(values[rows], truth[rows]) - tau(today[rows], truth[rows])

    num = len(truth)
    found = [more(rows) for rows in drawn(num)]
    return {"more": round(more(np.arange(num)), 3), "interval": interval(found)}


def summary(
    found: dict[str, np.ndarray], truth: np.ndarray, foreseen: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Returns what each rung is worth.

    Args:
      found: accuracies by rung, Float[n].
      truth: accuracies after a whole training, Float[n].
      foreseen: by its name, what is known without any training, Float[n, k].
    """
    rows: list[dict[str, Any]] = [
        {"rung": name, "work": round(work(RUNGS_TRIED[name]), 3)}
        | {"mean_accuracy": round(float(values.mean()), 4), "tau": tau(values, truth)}
        for name, values in found.items()
    ]
    without = []
    for row in rows:
        if row["rung"] != TODAY:
            row["more_tau"] = gain(found[row["rung"]], found[TODAY], truth)
    odds = -logit(1 - truth)
    for what, table in foreseen.items():
        known = _quadratic(table)
        beyond = {name: rest(-logit(1 - values), known) for name, values in found.items()}
        true = rest(odds, known)
        for row in rows:
            row[f"beyond_{what}"] = tau(beyond[row["rung"]], true)
            if row["rung"] != TODAY:
                more = gain(beyond[row["rung"]], beyond[TODAY], true)
                row[f"more_beyond_{what}"] = more
        without.append({"rung": f"none, by {what} alone", "work": 0.0})
        without[-1]["tau"] = tau(odds - true, truth)
    return rows + without


def _quadratic(table: np.ndarray) -> np.ndarray:
    """Returns columns with their squares and products."""
    pairs = itertools.combinations_with_replacement((table - table.mean(0)).T, 2)
    return np.column_stack([table, *(a * b for a, b in pairs)])


def chosen(curves: surrogate.Curves, space: Space) -> list[int]:
    """Returns which trainings with seed 0 are of the networks: the first of either kind."""
    proposed = {space.id(np.array(g, np.int32)) for g in load_json(surrogate.PROPOSED)["genomes"]}
    fitting = [i for i in np.flatnonzero(curves.seeds == 0) if is_comparable(curves.archs[i])]
    theirs = [i for i in fitting if curves.ids[i] in proposed]
    sampled = [i for i in fitting if curves.ids[i] not in proposed]
    return sampled[:NUM] + theirs[:NUM]


def main() -> None:
    """Trains what is not there yet and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    space, curves = feasible().space, surrogate.load(CURVES)
    of = chosen(curves, space)
    jobs = {
        f"{name} {curves.ids[i]}": (args.data, name, space.encode(curves.archs[i]).tolist())
        for name in RUNGS_TRIED  # no network follows itself: its program would be there
        for i in of
    }
    lines = train_missing(
        do_job, jobs, args.work / "rows.jsonl", num_workers=args.workers,
        made_of=made_of(do_job),
    )  # fmt: skip
    by_rung = {name: [line for line in lines if line["rung"] == name] for name in RUNGS_TRIED}
    found = {
        name: np.array([row["accuracy"] or CHANCE for row in rows], np.float64)
        for name, rows in by_rung.items()
    }
    archs, odds, _ = surrogate.by_network(curves)
    guesses = surrogate.held_out(archs, odds, seed=0)[:, -1:]
    guess = dict(zip(archs, guesses, strict=True))
    sizes = [cost(curves.archs[i]) for i in of]
    foreseen = {
        "costs": np.log2([[c.params, c.macs] for c in sizes]),
        "surrogate": np.array([guess[curves.archs[i]] for i in of]),
    }
    kinds = {"all": slice(None), "sampled": slice(NUM), "proposed": slice(NUM, None)}
    tables = {
        kind: summary(
            {name: values[rows] for name, values in found.items()},
            curves.accuracy[of, -1][rows],
            {what: table[rows] for what, table in foreseen.items()},
        )
        for kind, rows in kinds.items()
    }
    costs = {
        name: {
            "seconds": round(float(np.mean([row["seconds"] for row in rows])), 1),
            "diverged": sum(row["accuracy"] is None for row in rows),
        }
        for name, rows in by_rung.items()
    }
    counts = {"networks": len(of), "truth_epochs": RUNGS[-1], "costs": costs}
    publish(counts | {"rungs": tables}, args.out)


if __name__ == "__main__":
    main()
