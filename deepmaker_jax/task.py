"""What a run's candidates share, from its settings and data: images, splits, programs, lanes."""

import dataclasses
from typing import Any

import jax
import numpy as np

from deepmaker_jax import program
from deepmaker_jax.config import Config, FinalConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.data import Dataset, corruption, split
from deepmaker_jax.data.augment import default_augmentation
from deepmaker_jax.errors import InputError
from deepmaker_jax.execute import Task
from deepmaker_jax.execute.unit import StageName
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.ladder import mean_epochs, rungs
from deepmaker_jax.lanes import size_class
from deepmaker_jax.spaces import Space
from deepmaker_jax.train.memory import num_lanes

# Corrupted validation images at least, for robust accuracy: as many as CIFAR-10 holds out at 10 %.
CORRUPTED = 5_000
TYPICAL = 15  # genomes drawn to see how large a typical candidate is


def resolve(config: Config, data: Dataset) -> Config:
    """Returns the settings with what None leaves to the data filled in."""
    train = config.train
    usual = default_augmentation(data.name, image_shape=data.train_images.shape[1:])
    crop = usual.crop if train.crop is None else train.crop
    flip = usual.flip if train.flip is None else train.flip
    return dataclasses.replace(config, train=dataclasses.replace(train, crop=crop, flip=flip))


def make_task(config: Config, data: Dataset, *, corrupted: bool = False) -> Task:
    """Returns what the workers share; fitness sees the training set alone.

    Args:
      config: the settings.
      data: images and labels.
      corrupted: corrupted validation images are measured on too.
    """
    labels = data.train_labels
    share, seed = config.validation_share, config.seed
    rest, validation = split.train_validation(data, share=share, seed=seed)
    search_rows = rest
    if config.search.images is not None:
        num, least = config.search.images, config.train.batch_size
        search_rows = rest[split.subset(labels[rest], num=num, least=least, seed=seed)]
    if config.train.batch_size > len(search_rows):
        raise InputError(
            f"train.batch-size (={config.train.batch_size}) must be at most the {len(search_rows)} "
            "images that the search trains on: lower it"
        )
    num, usual = config.final.calibration_images, FinalConfig.calibration_images
    if num > max(len(data.train_labels), usual):
        raise InputError(
            f"final.calibration-images (={num}) must be at most the {len(data.train_labels)} "
            "training images: lower it"
        )
    side = min(data.train_images.shape[1:3])
    if (crop := config.train.crop or 0) >= side:
        raise InputError(f"train.crop (={crop}) must be below the images' side ({side} pixels)")
    images, corrupted_rows = data.train_images, None
    if corrupted:
        made, of = corruption.dealt(images[validation], at_least=CORRUPTED, seed=seed)
        corrupted_rows = len(images) + np.arange(len(made))
        images = np.concatenate([images, made])
        labels = np.concatenate([labels, labels[validation[of]]])
    return Task(
        images=images,
        labels=labels,
        search_rows=search_rows,
        validation_rows=validation,
        input_scale=_input_scale(config, data.train_images),
        settings=config.train,
        seed=config.seed,
        limit_seconds=config.search.time_limit_seconds,
        rungs=rungs(config.search),
        corrupted_rows=corrupted_rows,
    )


def choose_program(config: Config, feasible: Feasible, task: Task, executor: str) -> dict[str, Any]:
    """Returns the program for this run's candidates, as it stands in config.json.

    A candidate that goes on to a further rung finds its own program compiled.
    """
    genomes = feasible.sample(np.random.default_rng(0), num=TYPICAL)
    macs = float(np.median([cost(feasible.space.decode(g)).macs for g in genomes]))
    an_epoch = 6 * macs  # flops of an image, forward and back
    return program.choose(
        executor,
        config.program,
        search_flops=an_epoch * len(task.search_rows) * mean_epochs(config.search),
        final_flops=an_epoch * task.num_train * config.final.epochs,
    )


def with_size_classes(task: Task, space: Space, data: Dataset, chosen: dict[str, Any]) -> Task:
    """Returns the task with the size classes that the program's strategies need."""
    stages: dict[StageName, str] = {"search": chosen["strategy"], "final": chosen["final_strategy"]}
    kinds = {gene.name: tuple(map(str, gene.choices)) for gene in space.genes}
    classes = size_class.table(
        tuple(data.train_images.shape[1:]),
        len(data.class_names),
        activations=kinds.get("activation", size_class.ACTIVATIONS),
        optimizers=kinds.get("optimizer", size_class.OPTIMIZERS),
        num_pixels=size_class.A_CACHE if chosen["device"] == "cpu" else size_class.WHOLE_BATCH,
    )
    in_class = tuple(stage for stage, strategy in stages.items() if strategy != "plain")
    return task._replace(size_classes=classes, in_class=in_class)


def with_lanes(task: Task, config: Config, chosen: dict[str, Any]) -> Task:
    """Returns the task with the lanes of each program; they enter `chosen` too."""
    wanted: dict[StageName, tuple[str, str, int]] = {
        "search": ("strategy", "lanes", config.search.population),
        "final": ("final_strategy", "final_lanes", config.final.members),
    }
    found: dict[StageName, tuple[int, ...]] = {}
    for stage, (strategy, name, num) in wanted.items():
        if chosen[strategy] == "vmap":
            found[stage] = tuple(
                num_lanes(of, task.settings, data_bytes=task.images.nbytes, wanted=num)
                for of in task.size_classes
            )
            chosen[name] = list(found[stage])
            chosen["devices"] = jax.local_device_count()
    return task._replace(lanes=found)


def _input_scale(config: Config, images: np.ndarray) -> np.ndarray:
    """Returns what raw pixels are multiplied by, Float32[c]."""
    channels = images.shape[-1]
    if config.train.pixel_scale == "unit":
        return np.full(channels, 1 / 255, np.float32)
    values = np.arange(256.0)
    deviations = []
    for channel in range(channels):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = counts @ values / counts.sum()
        deviations.append(np.sqrt(counts @ (values - mean) ** 2 / counts.sum()))
    return (1 / np.maximum(deviations, 1.0)).astype(np.float32)  # a constant channel has none
