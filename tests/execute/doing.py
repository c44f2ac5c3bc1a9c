"""Units, the executors that do them, and what goes wrong in them."""

import dataclasses
import logging
import multiprocessing
import os
import time

import jax

from deepmaker_jax.execute import Inline, Outcome, Processes, Unit
from deepmaker_jax.execute.lanes import Lanes
from deepmaker_jax.execute.ray import Ray
from deepmaker_jax.lanes.size_class import table
from tests.examples import SMALL
from tests.execute.ray_workers import busy_ray_workers


def units(folder, num=3):
    """The same network with different learning rates: one program serves them all."""
    return [
        Unit(
            f"unit{i}",
            dataclasses.replace(SMALL, learning_rate_log2=-i),
            "search",
            2,
            weights=folder / f"unit{i}.safetensors",
        )
        for i in range(num)
    ]


OWN = "programs of their own for the networks of small-3x3, medium-3x3, large-3x3"
WIDE_STAGE = dataclasses.replace(SMALL.stages[0], num_layers=3, growth=56)
LARGER = dataclasses.replace(SMALL, stem_width=48, stages=(WIDE_STAGE,))


def executor(name, task, folder, **rest):
    if name == "inline":
        return Inline(task)
    if name.startswith("ray"):
        import ray  # takes a second

        if not ray.is_initialized():
            ray.init(
                "local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False,
                logging_level=logging.CRITICAL, object_store_memory=200 << 20,
            )  # fmt: skip
        return Ray(task, num_workers=int(name[-1]), **rest)
    if name.startswith("lanes"):
        return Lanes(side_by_side(task, int(name[-1])))
    return Processes(task, num_workers=int(name[-1]), folder=folder / "shared", **rest)


def side_by_side(task, num_lanes):
    """The search's candidates in lanes; the final ones in programs of their own."""
    classes = table((8, 8, 1), 10, activations=("relu",), optimizers=("sgd",))
    num = (num_lanes,) * len(classes)
    return task._replace(size_classes=classes, in_class=("search",), lanes={"search": num})


def do(name, task, folder, work):
    runner = executor(name, task, folder)
    try:
        for unit in work:
            runner.submit(unit)
        return list(runner.results())
    finally:
        runner.close()


def outcomes(results):
    return {result.id: result for result in results if isinstance(result, Outcome)}


def busy(name):
    """The processes of an executor that train."""
    if name.startswith("processes"):
        return [worker.pid for worker in multiprocessing.active_children()]
    return busy_ray_workers()


class Hanging:
    """Stops the process that unpickles it, as a driver that waits for a device does."""

    def __reduce__(self):
        return time.sleep, (3600,)


def fails_to_compile(message="INTERNAL: no such instruction", mark=None):
    """Returns an architecture; what this process compiles next fails as XLA does.

    With a `mark`, only if that file is not there yet.
    """
    if mark is not None:
        if mark.exists():
            return SMALL
        mark.touch()
    whole = jax.stages.Lowered.compile

    def fail(self, *args, **rest):
        jax.stages.Lowered.compile = whole
        raise jax.errors.JaxRuntimeError(message)

    jax.stages.Lowered.compile = fail
    return SMALL


class FailsToCompile:
    """Becomes what `fails_to_compile` returns in the process that unpickles it."""

    def __init__(self, *words):
        self._words = words

    def __reduce__(self):
        return fails_to_compile, self._words


class Deadly:
    """Kills the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (7,)
