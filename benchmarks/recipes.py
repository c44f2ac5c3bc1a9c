"""The last points of a training: recipes compared on one small network at equal steps.

    python -m benchmarks.recipes --data DIR --work WORK --out benchmarks/results/recipes.json

A member of a front that preset `small` found once, of 22,354 parameters, trained for 24 epochs on
45,000 images of CIFAR-10 and measured on the other 5,000, as float and as the int8 file: the recipe
that the presets had when these were measured, crops by 4, and each change to it alone. Progressive
resolution and the quantisation-aware tail take other steps for a part of the epochs; the teacher is
the front's largest member, trained in the same way. Every row is a training of its own and resumes;
about ten minutes of one core each. What is published is all that WORK holds: more seeds of some
recipes (`--recipes`, `--seeds`), longer trainings (`--epochs`), and "averaged weights", which left
the package with its code: commit 0cb5691 has it (decay of 0.999 a step, batch statistics too).
Minutes, which the first rows lack, are those of a core beside whatever else ran. WORK must be new
after a change to training.
"""

import argparse
import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

from deepmaker_jax.execute import runtime

runtime.one_thread()

import flax.linen as nn  # noqa: E402 - after the thread count
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from benchmarks.curves import feasible  # noqa: E402
from benchmarks.record import known, publish, train_missing  # noqa: E402
from configs import cifar10  # noqa: E402
from deepmaker_jax import data as data_module  # noqa: E402
from deepmaker_jax import task as task_module  # noqa: E402
from deepmaker_jax.arch import ArchSpec, layers  # noqa: E402
from deepmaker_jax.config import Config  # noqa: E402
from deepmaker_jax.execute import Task  # noqa: E402
from deepmaker_jax.export.bias import correct_bias  # noqa: E402
from deepmaker_jax.export.run import run_tflite  # noqa: E402
from deepmaker_jax.export.tflite import to_tflite_int8  # noqa: E402
from deepmaker_jax.export.weights import load_weights, save_weights  # noqa: E402
from deepmaker_jax.final import calibration_rows  # noqa: E402
from deepmaker_jax.machine import num_cores  # noqa: E402
from deepmaker_jax.models import Network  # noqa: E402
from deepmaker_jax.models.network import BatchNorm  # noqa: E402
from deepmaker_jax.train.course import Course, Job  # noqa: E402
from deepmaker_jax.train.init import init  # noqa: E402
from deepmaker_jax.train.optimizer import base_learning_rate, direction  # noqa: E402
from deepmaker_jax.train.runner import STEPS_A_CALL, padded  # noqa: E402
from deepmaker_jax.train.step import (  # noqa: E402
    Feed,
    TrainState,
    ValueAndGrad,
    init_state,
    make_step,
    of_network,
    options,
    predict,
    repeat,
)

# The front's second largest and largest members, of space `curves.feasible`.
NETWORK, TEACHER = "c9534a3775b6", "de01797018ab"
GENOMES = {
    NETWORK: (2, 2, 2, 3, 1, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0, 0, 2, 0, 2),
    TEACHER: (4, 2, 3, 3, 1, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0, 0, 2, 0, 2),
}
EPOCHS = 24  # of the preset's final training
SMALL_SIDE, SMALL_SHARE = 24, 1 / 3  # progressive resolution: the first third of the epochs
TAIL_SHARE = 1 / 8  # the last epochs, with what int8 will round rounded
TEMPERATURE, TOLD_SHARE = 4.0, 0.7  # of distillation (Hinton et al. 2015)
HOLE = 8  # pixels, of cutout (DeVries and Taylor 2017)
SPREAD = 0.1  # of label smoothing (Szegedy et al. 2016)
MIXUP = 0.2  # both parameters of the beta distribution (Zhang et al. 2018)
Make = Callable[[ArchSpec], ValueAndGrad]  # the loss and gradient of an architecture's network


def own(arch: ArchSpec) -> ValueAndGrad:
    """The network's own."""
    return of_network(Network(layers(arch)))


def mixed_up(arch: ArchSpec) -> ValueAndGrad:
    """Each image is mixed with its neighbour in the batch, and so are their losses (mixup)."""
    inner = own(arch)

    def value_and_grad(params, batch_stats, feed, x, loss, work):
        key = jax.random.key(x.sum().astype(jnp.uint32))  # another in every step
        share = jax.random.beta(key, MIXUP, MIXUP)

        def both(logits):  # that the targets stand still and the logits move is the same mean
            return share * loss(logits) + (1 - share) * loss(jnp.roll(logits, -1, axis=0))

        mixed = share * x + (1 - share) * jnp.roll(x, 1, axis=0)
        return inner(params, batch_stats, feed, mixed, both, work)

    return value_and_grad


def blanked(arch: ArchSpec) -> ValueAndGrad:
    """A square of each image, about any point of it, has the image's mean colour (cutout)."""
    inner = own(arch)

    def value_and_grad(params, batch_stats, feed, x, loss, work):
        key = jax.random.key(x.sum().astype(jnp.uint32))
        centres = jax.random.uniform(key, (2, len(x), 1)) * x.shape[1]
        place = jnp.arange(x.shape[1])[None, None] - jnp.floor(centres) + HOLE // 2
        rows, columns = (place >= 0) & (place < HOLE)
        hole = rows[:, :, None, None] & columns[:, None, :, None]
        x = jnp.where(hole, x.mean((1, 2), keepdims=True), x)
        return inner(params, batch_stats, feed, x, loss, work)

    return value_and_grad


def smoothed(arch: ArchSpec) -> ValueAndGrad:
    """A share of the target is spread over all classes (label smoothing)."""
    inner = own(arch)

    def value_and_grad(params, batch_stats, feed, x, loss, work):
        def both(logits):
            spread = -jax.nn.log_softmax(logits).mean()
            return (1 - SPREAD) * loss(logits) + SPREAD * spread

        return inner(params, batch_stats, feed, x, both, work)

    return value_and_grad


def told(arch: ArchSpec, *, teacher: pathlib.Path) -> ValueAndGrad:
    """The loss is in part the distance from a larger network's logits (distillation)."""
    inner, (its_arch, its_variables) = own(arch), load_weights(teacher)
    network = Network(layers(its_arch))

    def value_and_grad(params, batch_stats, feed, x, loss, work):
        soft = jax.nn.softmax(network.apply(its_variables, x) / TEMPERATURE)

        def mixed(logits):
            distance = optax.softmax_cross_entropy(logits / TEMPERATURE, soft).mean()
            return (1 - TOLD_SHARE) * loss(logits) + TOLD_SHARE * TEMPERATURE**2 * distance

        return inner(params, batch_stats, feed, x, mixed, work)

    return value_and_grad


def smaller(arch: ArchSpec) -> ValueAndGrad:
    """Images of a smaller side (progressive resolution): 0.56 of the work."""
    side = SMALL_SIDE
    inner = own(dataclasses.replace(arch, input_shape=(side, side, arch.input_shape[-1])))

    def value_and_grad(params, batch_stats, feed, x, loss, work):
        x = jax.image.resize(x, (len(x), side, side, x.shape[-1]), "linear")
        return inner(params, batch_stats, feed, x, loss, work)

    return value_and_grad


def rounded(arch: ArchSpec) -> ValueAndGrad:
    """Kernels and maps are rounded to 8 bits on the way forward (Jacob et al. 2018).

    Kernels by output channel, which is what folding leaves of it; maps by the batch's range.
    """
    network = Network(layers(arch))

    def value_and_grad(params, batch_stats, feed, x, loss, work):
        def whole(params):
            variables = {
                "params": jax.tree_util.tree_map_with_path(_round_kernel, params),
                "batch_stats": batch_stats,
                "constants": {"input_scale": feed.input_scale},
            }
            with _layer_by_layer(), nn.intercept_methods(_round_map):
                logits, new = network.apply(variables, x, train=True, mutable=["batch_stats"])
            return loss(logits), new["batch_stats"]

        (value, new), gradient = jax.value_and_grad(whole, has_aux=True)(params)
        return value, gradient, new, work

    return value_and_grad


def _straight_through(x, rounded):
    return x + jax.lax.stop_gradient(rounded - x)


def _round_kernel(path, leaf):
    if path[-1].key != "kernel":
        return leaf
    step = jnp.max(jnp.abs(leaf), axis=tuple(range(leaf.ndim - 1)), keepdims=True) / 127 + 1e-12
    return _straight_through(leaf, jnp.round(leaf / step) * step)


def _layer_by_layer() -> contextlib.AbstractContextManager:
    """Dense stages run layer by layer, so that every map is there to be rounded."""
    return mock.patch("deepmaker_jax.models.network.dense_stages", return_value={})


def _round_map(next_method, args, kwargs, context):
    x = next_method(*args, **kwargs)
    if not isinstance(context.module, BatchNorm):
        return x
    low, high = jnp.minimum(x.min(), 0), jnp.maximum(x.max(), 0)
    step = (high - low) / 255 + 1e-12
    return _straight_through(x, jnp.round(x / step) * step)


class Recipe(NamedTuple):
    """A change to the preset's training.

    Attributes:
      settings: of `TrainConfig` that are others.
      parts: (share of the epochs at which it begins, how loss and gradient are made then).
      has_teacher: the parts take the teacher's weights.
    """

    settings: dict[str, Any]
    parts: tuple[tuple[float, Callable[..., ValueAndGrad]], ...] = ((0.0, own),)
    has_teacher: bool = False


RECIPES = {
    "preset": Recipe({}),
    "weight decay 1e-4": Recipe({"weight_decay": 1e-4}),
    "cutout of 8": Recipe({}, ((0.0, blanked),)),
    "distillation": Recipe({}, ((0.0, told),), has_teacher=True),
    "progressive resolution": Recipe({}, ((0.0, smaller), (SMALL_SHARE, own))),
    "quantisation-aware tail": Recipe({}, ((0.0, own), (1 - TAIL_SHARE, rounded))),
    "mixup": Recipe({}, ((0.0, mixed_up),)),
    "label smoothing 0.1": Recipe({}, ((0.0, smoothed),)),
    "learning rate doubled": Recipe({"sgd_learning_rate": 0.2}),
    "learning rate halved": Recipe({"sgd_learning_rate": 0.05}),
    "crop by 2": Recipe({"crop": 2}),
    "crop by 1": Recipe({"crop": 1}),
    "cosine": Recipe({"schedule": "cosine"}),
    "weight decay 1e-3": Recipe({"weight_decay": 1e-3}),
}


def make_task(recipe: Recipe, data: data_module.Dataset) -> Task:
    """Returns the task of preset `small` with all but the validation images to train on."""
    config: Config = cifar10.small()
    config = dataclasses.replace(
        config,
        search=dataclasses.replace(config.search, images=None),
        train=dataclasses.replace(config.train, **{"crop": 4} | recipe.settings),
    )
    return task_module.make_task(task_module.resolve(config, data), data)


def train(
    arch: ArchSpec,
    task: Task,
    makes: list[tuple[float, Make]],
    *,
    num_epochs: int,
    seed: int,
    path: pathlib.Path,
) -> dict[str, Any]:
    """Returns the variables of a network that was trained in parts; goes on from `path`."""
    settings = task.settings
    course = Course(Job(arch, num_epochs, task.search_rows, checkpoint=path), settings, seed=seed)
    variables = init(arch, seed=seed, input_scale=task.input_scale)
    feed = Feed(
        images=jax.device_put(task.images),
        labels=jax.device_put(task.labels),
        input_scale=jnp.asarray(variables["constants"]["input_scale"]),
        key=jax.random.key(seed),
        learning_rate=np.float32(base_learning_rate(arch, settings)),
        cycle=np.array(course.cycle, np.int32),
    )
    rule = direction(arch.optimizer, settings)
    params, batch_stats = variables["params"], variables["batch_stats"]
    state = init_state(params, batch_stats, rule.init(params))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1, compiler_options=options())
    def steps(part: int, state: TrainState, feed: Feed, rows, num) -> TrainState:
        step = make_step(makes[part][1](arch), rule.update, settings)
        return repeat(step, state, (), feed, rows, num)[0]

    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), course.resume(state))
    while not course.is_over:
        if course.begins_epoch:
            state = state._replace(loss_sum=jnp.float32(0))
        share = course.num_done / course.num_total
        part = max(i for i, (begins, _) in enumerate(makes) if share >= begins)
        rows = course.rows(STEPS_A_CALL)
        state = steps(part, state, feed, padded(rows), np.int32(len(rows)))
        course.advance(len(rows), float(state.loss_sum), lambda state=state: state)
    found = jax.tree.map(np.asarray, state.trained) | {"constants": variables["constants"]}
    if course.diverged(found):
        raise RuntimeError(f"diverged: loss {course.loss}")
    return found


def do_job(
    data_path: str, work: pathlib.Path, name: str, id: str, epochs: int, seed: int
) -> dict[str, Any]:
    """Trains a member by a recipe and measures it; returns the row."""
    began = time.perf_counter()
    recipe, data = RECIPES[name], data_module.load("cifar10", path=data_path)
    task, arch = make_task(recipe, data), feasible().space.decode(np.array(GENOMES[id], np.int32))
    taught = {"teacher": teacher_of(work)} if recipe.has_teacher else {}
    makes = [(share, functools.partial(make, **taught)) for share, make in recipe.parts]
    stem = stem_of(name, id, epochs, seed)
    path = work / f"{stem}.msgpack"
    variables = train(arch, task, makes, num_epochs=epochs, seed=seed, path=path)
    save_weights(work / f"{stem}.safetensors", arch, variables)
    trained = time.perf_counter()
    images, labels = task.images[task.validation_rows], task.labels[task.validation_rows]
    logits = predict(Network(layers(arch)), variables, images)
    rows = calibration_rows(task.labels[task.search_rows], num=500, seed=seed)
    int8 = functools.partial(to_tflite_int8, arch, calibration=task.images[task.search_rows[rows]])
    file = correct_bias(int8, arch, variables, task.images[task.search_rows[rows]])
    return {
        "recipe": name,
        "id": id,
        "epochs": epochs,
        "seed": seed,
        "accuracy": float(np.mean(logits.argmax(1) == labels)),
        "int8_accuracy": float(np.mean(run_tflite(file, images).argmax(1) == labels)),
        "minutes": round((trained - began) / 60, 1),  # beside whatever else ran
    }


def teacher_of(work: pathlib.Path) -> pathlib.Path:
    """Returns where the teacher's weights are."""
    return work / f"{stem_of('preset', TEACHER, EPOCHS, 0)}.safetensors"


def stem_of(name: str, id: str, epochs: int, seed: int) -> str:
    """Returns how a training's files are called."""
    return f"{id}-{name.replace(' ', '-')}-{epochs}-{seed}"


def main() -> None:
    """Trains what is not there yet and publishes what is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    wanted = [("preset", TEACHER, EPOCHS, 0)]
    wanted += [(name, NETWORK, args.epochs, seed) for seed in args.seeds for name in args.recipes]
    taught = [each for each in wanted if RECIPES[each[0]].has_teacher]
    path = args.work / "rows.jsonl"
    for batch in ([each for each in wanted if each not in taught], taught):
        jobs = {
            stem_of(name, id, epochs, seed): (args.data, args.work, name, id, epochs, seed)
            for name, id, epochs, seed in batch
        }
        train_missing(do_job, jobs, path, num_workers=args.workers)
    publish(summary([row for rows in known(path).values() for row in rows]), args.out)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the table: each recipe's accuracies by seed, in percent, and their means."""
    table, kinds = [], ("accuracy", "int8_accuracy")
    names = [*RECIPES, *sorted({row["recipe"] for row in rows} - RECIPES.keys())]
    for epochs in sorted({row["epochs"] for row in rows}):
        for name in names:
            which = (name, NETWORK, epochs)
            found = [r for r in rows if (r["recipe"], r["id"], r["epochs"]) == which]
            found.sort(key=lambda row: row["seed"])
            if found:
                line = {"recipe": name, "epochs": epochs, "seeds": [r["seed"] for r in found]}
                line["minutes"] = [row.get("minutes") for row in found]
                for kind in kinds:
                    line[kind] = [round(100 * row[kind], 2) for row in found]
                    line[f"mean_{kind}"] = round(float(np.mean(line[kind])), 2)
                table.append(line)
    return {"network": NETWORK, "teacher": TEACHER, "validation_percent": table}


if __name__ == "__main__":
    main()
