"""Searches with real trainings for the same time: ours, random search and Optuna, one trainer.

    pip install -e '.[benchmark]'
    python -m benchmarks.real_search --data DIR --work WORK --out FILE.json

What `benchmarks.search_methods` compares on paper, on Fashion-MNIST (DIR, its idx files): networks
of space `deepmaker` up to 50,000 parameters and 3 million multiply-accumulates, small enough that
every method trains a few populations, on 9,000 images for 9 epochs, measured on 6,000 others. Ours
measures after 3 epochs too, where the learning rate begins anew; whoever trains in full does so in
one cycle. All that a method does, compiling and deciding included, counts. Each has MINUTES on one
core, two of them at a time, so that they load the machine alike; three seeds. Reported is the
hypervolume of error and parameters over time, median and range, where the error is that of 10,000
further training images, by which no search chooses and for which its clock stands still; and the
least share of a core that a search had: one that has less than `LEAST_SHARE` after its first minute
ends and is not kept. A network's program is compiled once in a search. The last search of an odd
number runs alone. Two hours and a half on two cores; run again, it begins those searches anew that
did not come to their end.
"""

import argparse
import contextlib
import pathlib
import tempfile
import time
from typing import Any

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count
import numpy as np  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

from benchmarks.curves import RUNGS, feasible  # noqa: E402
from benchmarks.on_paper import SpentError, objectives_of, volumes_by_cost  # noqa: E402
from benchmarks.record import made_of, publish, train_missing  # noqa: E402
from benchmarks.search_methods import (  # noqa: E402
    APART,
    METHODS,
    RANDOM,
    TUNING,
    share_to,
)
from deepmaker_jax import data as data_module  # noqa: E402
from deepmaker_jax import task as task_module  # noqa: E402
from deepmaker_jax.arch import ArchSpec, layers  # noqa: E402
from deepmaker_jax.config import Config, LimitConfig, SearchConfig, TrainConfig  # noqa: E402
from deepmaker_jax.cost import cost  # noqa: E402
from deepmaker_jax.machine import num_cores  # noqa: E402
from deepmaker_jax.models import Network  # noqa: E402
from deepmaker_jax.train import Split, Trained, runner, train  # noqa: E402
from deepmaker_jax.train.step import predict  # noqa: E402

MINUTES, SEEDS = 16.0, (0, 1, 2)
LEAST_SHARE = 0.9  # of a core: less, and other work was in the way
LIMITS = LimitConfig(params=50_000, macs=3_000_000)
SETTLED_SECONDS = 60.0  # from when on the share is looked at
NUM_IMAGES = 9_000  # trained on
NUM_JUDGED = 10_000  # further ones, that judge a training in full
COMPARED = (
    *RANDOM, "NSGA-II, our first draws", "ours", "regularised evolution, our first draws",
    "Optuna TPE, our first draws",
)  # fmt: skip
# At which epochs a method measures, by how many rungs it has; whoever does not climb has one.
RUNGS_OF = {"ours": RUNGS[1:]}


class Trainer:
    """Trains networks until its time is over; see `on_paper.Trainer`.

    Attributes:
      feasible: the networks that may be asked for.
      objectives: what is minimised.
      full: [(share of the time, error, error on the judging images, params)] of trainings in full.
    """

    def __init__(
        self,
        path: str,
        folder: pathlib.Path,
        *,
        seed: int,
        seconds: float,
        rungs: tuple[int, ...] = RUNGS[-1:],
    ):
        """Reads the data; the clock starts at the end.

        Args:
          path: of the data.
          folder: for checkpoints, empty.
          seed: of the trainings.
          seconds: that there are.
          rungs: epochs at which the method measures, and the learning rate begins anew.
        """
        search = SearchConfig(epochs=RUNGS[-1], images=NUM_IMAGES)
        train = TrainConfig(batch_size=64, sgd_learning_rate=0.1)
        config = Config(seed=seed, limits=LIMITS, search=search, train=train)
        data = data_module.load("fashion_mnist", path=path)
        self._task = task_module.make_task(task_module.resolve(config, data), data)
        self._data = Split(self._task.images, self._task.labels)
        self.feasible = feasible(data.train_images.shape[1:], len(data.class_names), limits=LIMITS)
        self.objectives = objectives_of(LIMITS)
        used = [self._task.search_rows, self._task.validation_rows]
        unused = np.setdiff1d(np.arange(len(data.train_labels)), np.concatenate(used))
        chosen = np.random.default_rng(0).permutation(unused)[:NUM_JUDGED]
        self._judging = Split(self._task.images[chosen], self._task.labels[chosen])
        self._rungs = rungs
        self._folder, self._known = folder, dict[tuple[ArchSpec, int], float]()
        self._places: dict[ArchSpec, int] = {}
        self.full: list[tuple[float, float, float, int]] = []
        self._began, self._seconds, self._judged = time.perf_counter(), seconds, 0.0
        self._worked = time.process_time()

    def train(self, arch: ArchSpec, rung: int = len(RUNGS) - 1) -> float:
        """Returns the error that is measured at a rung; goes on from where the network was.

        Raises:
          SpentError: the time is over.
        """
        if (arch, rung) not in self._known:
            self._known[arch, rung] = self._measure(arch, rung)
        return self._known[arch, rung]

    def _measure(self, arch: ArchSpec, rung: int) -> float:
        task, place = self._task, self._places.setdefault(arch, len(self._places))
        self._check()
        trained = train(
            arch, self._data, settings=task.settings, num_epochs=RUNGS[rung], seed=task.seed,
            input_scale=task.input_scale, rows=task.search_rows, held_out=task.validation_rows,
            checkpoint=self._folder / f"{place}.msgpack", on_steps=self._check, rungs=self._rungs,
        )  # fmt: skip
        self._check()
        error = 1.0 if trained.score is None else 1 - trained.score.accuracy
        if rung == len(RUNGS) - 1:
            self.full.append((self._share(), error, self._judge(arch, trained), cost(arch).params))
        return error

    def _judge(self, arch: ArchSpec, trained: Trained) -> float:
        """Returns the error on the judging images, for nothing."""
        began = time.perf_counter()
        error = 1.0
        if not trained.diverged:
            logits = predict(Network(layers(arch)), trained.variables, self._judging.images)
            error = float(np.mean(logits.argmax(1) != self._judging.labels))
        self._judged += time.perf_counter() - began
        return error

    def _share(self) -> float:
        return (time.perf_counter() - self._began - self._judged) / self._seconds

    def _check(self) -> None:
        passed = time.perf_counter() - self._began
        if passed > SETTLED_SECONDS and self.share_of_core() < LEAST_SHARE:
            share = self.share_of_core()
            raise RuntimeError(f"it had {share:.2f} of a core: run it again when nothing else runs")
        if self._share() > 1:
            raise SpentError

    def share_of_core(self) -> float:
        """Returns how much of a core it had since its clock started."""
        worked = time.process_time() - self._worked
        return worked / (time.perf_counter() - self._began)


def do_job(path: str, work: pathlib.Path, name: str, seed: int, minutes: float) -> dict[str, Any]:
    """Runs one method with one seed until its time is over; returns the row.

    Raises:
      RuntimeError: it did not have a core of its own.
    """
    with tempfile.TemporaryDirectory(dir=work) as folder:
        # Programs are kept for this search alone: nobody finds another's.
        compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", f"{folder}/programs")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        runner._own.clear()
        jax.clear_caches()
        rungs = RUNGS_OF.get(name, RUNGS[-1:])
        trainer = Trainer(path, pathlib.Path(folder), seed=seed, seconds=60 * minutes, rungs=rungs)
        with contextlib.suppress(SpentError):
            METHODS[name](trainer, seed)
    return {
        "method": name,
        "seed": seed,
        "minutes": minutes,
        "share_of_core": round(trainer.share_of_core(), 3),
        "trained_in_full": len(trainer.full),
        "volumes": volumes_by_cost(trainer.full, trainer.objectives).tolist(),
    }


def main() -> None:
    """Runs what is not there yet and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=COMPARED, default=list(COMPARED))
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    jobs = {
        f"{name}, seed {seed}, {args.minutes} minutes": (
            args.data,
            args.work,
            name,
            seed,
            args.minutes,
        )
        for seed in SEEDS
        for name in args.methods
    }
    args.work.mkdir(parents=True, exist_ok=True)
    rows = train_missing(
        do_job, jobs, args.work / "rows.jsonl", num_workers=num_cores(),
        made_of=made_of(do_job, TUNING, apart=APART),
    )  # fmt: skip
    least = min(row["share_of_core"] for row in rows)
    figures = {"minutes": args.minutes, "seeds": list(SEEDS), "least_share_of_core": least}
    publish(figures | summary(rows), args.out)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what is published of the searches: few seeds, so each of them and their range."""
    by_method: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    volumes = {
        name: np.array([row["volumes"] for row in some]).round(4)
        for name, some in by_method.items()
    }
    goals = {name: float(np.median(volumes[name][:, -1])) for name in RANDOM if name in volumes}
    methods = []
    for name, table in volumes.items():  # [seeds, points]
        medians = np.median(table, axis=0)
        methods.append(
            {
                "method": name,
                "hypervolume": float(medians[-1]),
                "hypervolumes": table[:, -1].tolist(),
                "trained_in_full": [row["trained_in_full"] for row in by_method[name]],
                "cost_share_to": {goal: share_to(medians, v) for goal, v in goals.items()},
                "by_cost": medians.tolist(),
                "range_by_cost": np.stack([table.min(0), table.max(0)], axis=1).tolist(),
            }
        )
    return {"methods": methods}


if __name__ == "__main__":
    main()
