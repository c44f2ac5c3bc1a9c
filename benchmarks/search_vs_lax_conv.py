"""A search's trainings beside plain `lax.conv` networks trained one at a time.

    python -m benchmarks.search_vs_lax_conv --data DIR --out FILE.json

Trains networks that preset `small` of CIFAR-10 draws, for three epochs on its 10,000 images,
compiling and validation included, from an empty cache of programs: by the executor, a process per
core; and as one would write it first (`lax.conv`, XLA's own gradients, one jitted step a call, one
network after the other in this process with as many threads as XLA likes). The two take turns over
16 networks each, so that drift hits both alike; validation losses are compared. A quarter of an
hour on 2 cores.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import tempfile
import time
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.population import of_small, part_of_small, train_all
from benchmarks.record import publish
from configs import cifar10
from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.cost import cost
from deepmaker_jax.data import load
from deepmaker_jax.execute import Processes, Task
from deepmaker_jax.machine import num_cores
from deepmaker_jax.models import Network, network, ops
from deepmaker_jax.task import choose_program, make_task, resolve, with_size_classes
from deepmaker_jax.train.course import epoch_order
from deepmaker_jax.train.init import init
from deepmaker_jax.train.optimizer import base_learning_rate, direction
from deepmaker_jax.train.step import Feed, init_state, make_step, of_network, predict

EPOCHS, TURN = 3, 16


def _norm_activate(z, scale, bias, activation):
    mean, variance = z.mean((0, 1, 2)), z.var((0, 1, 2))
    y = ops.normalise(z, scale, bias, mean, variance, activation)
    return y, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(variance)


@contextlib.contextmanager
def textbook():
    """Networks that are traced in this block use XLA's own forms and gradients."""
    with (
        mock.patch.object(ops, "conv", ops._by_xla),
        mock.patch.object(ops, "norm_activate", _norm_activate),
        mock.patch.object(ops, "max_pool", lambda x: nn.max_pool(x, (2, 2), strides=(2, 2))),
        mock.patch.object(network, "dense_stages", return_value={}),
    ):
        yield


def one_at_a_time(archs: list[ArchSpec], task: Task, num_epochs: int) -> tuple[float, list[float]]:
    """Trains one network after the other; returns (seconds, each one's validation loss)."""
    began, losses = time.perf_counter(), []
    rows, size = np.asarray(task.search_rows), task.settings.batch_size
    num_steps = len(rows) // size
    images, labels = jax.device_put(task.images), jax.device_put(task.labels)
    for arch in archs:
        plain = Network(layers(arch))
        variables = init(arch, seed=task.seed, input_scale=task.input_scale)
        rule = direction(arch.optimizer, task.settings)
        feed = Feed(
            images, labels, jnp.asarray(task.input_scale), jax.random.key(task.seed),
            np.float32(base_learning_rate(arch, task.settings)),
            np.array([0, num_steps * num_epochs], np.int32),
        )  # fmt: skip
        params = variables["params"]
        state = init_state(params, variables["batch_stats"], rule.init(params))
        step = make_step(of_network(plain), rule.update, task.settings)
        with textbook():
            one = jax.jit(lambda s, f, r, step=step: step(s, (), f, r)[0], donate_argnums=0)
            state = jax.tree.map(jnp.array, state)
            for epoch in range(num_epochs):
                for some in rows[epoch_order(task.seed, epoch, len(rows), num_steps, size)]:
                    state = one(state, feed, some.astype(np.int32))
            losses.append(_validate(plain, state, task))
    return time.perf_counter() - began, losses


def _validate(plain: Network, state: Any, task: Task) -> float:
    """Returns the mean cross-entropy over the validation images."""
    variables = {
        "params": state.params,
        "batch_stats": state.batch_stats,
        "constants": {"input_scale": jnp.asarray(task.input_scale)},
    }
    rows = np.asarray(task.validation_rows)
    logits = predict(plain, variables, task.images[rows])
    return float(optax.softmax_cross_entropy_with_integer_labels(logits, task.labels[rows]).mean())


def main() -> None:
    """Trains both ways in turn and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the CIFAR-10 folder")
    parser.add_argument("--networks", type=int, default=32)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    if args.networks < 1:
        parser.error(f"--networks (={args.networks}) must be at least 1")
    data = load("cifar10", path=args.data)
    config = cifar10.small()
    search = dataclasses.replace(config.search, epochs=EPOCHS, rungs=1)
    config, part = resolve(dataclasses.replace(config, search=search), data), part_of_small()
    task, chosen = make_task(config, data), of_small(args.networks)
    way = choose_program(config, part, task, "processes")
    task = with_size_classes(task, part.space, data, way)
    spent, rows = [0.0, 0.0], []
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache  # the workers', empty
        shared = pathlib.Path(folder) / "shared"
        executor = Processes(task, num_workers=num_cores(), folder=shared)
        try:
            for start in range(0, len(chosen), TURN):
                some = chosen[start : start + TURN]
                ours, outcomes = train_all(executor, some, num_epochs=EPOCHS)
                our_losses = [outcome.measured["val_loss"] for outcome in outcomes]
                theirs, their_losses = one_at_a_time(some, task, EPOCHS)
                spent[0] += ours
                spent[1] += theirs
                for arch, a, b in zip(some, our_losses, their_losses, strict=True):
                    row = {"params": cost(arch).params, "macs": cost(arch).macs}
                    rows.append(row | {"loss": round(a, 4), "loss_lax_conv": round(b, 4)})
                print(f"{len(rows)}: {spent[0]:.0f} s, lax.conv {spent[1]:.0f} s", flush=True)
        finally:
            executor.close()
    gaps = [abs(row["loss"] - row["loss_lax_conv"]) for row in rows]
    publish(
        {
            "ratio": round(spent[1] / spent[0], 3),
            "seconds": round(spent[0], 1),
            "seconds_lax_conv": round(spent[1], 1),
            "candidates": len(rows),
            "program": way["strategy"],
            "epochs": EPOCHS,
            "images": len(task.search_rows),
            "mean_gap_of_losses": round(float(np.mean(gaps)), 4),
            "networks": rows,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
