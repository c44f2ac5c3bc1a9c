"""What tests of executors share: a task, and what three units of it come to."""

import numpy as np
import pytest

from deepmaker_jax.config import TrainConfig
from deepmaker_jax.data import load, stratified
from deepmaker_jax.data.corruption import dealt
from deepmaker_jax.execute import Task
from tests.execute.doing import do, units


@pytest.fixture(scope="session")
def task():
    data = load("digits")
    rest, validation = stratified(data.train_labels, share=0.2, seed=0)
    corrupted, rows = dealt(data.train_images[validation], at_least=500, seed=0)
    return Task(
        images=np.concatenate([data.train_images, corrupted]),
        labels=np.concatenate([data.train_labels, data.train_labels[validation[rows]]]),
        corrupted_rows=len(data.train_labels) + np.arange(len(corrupted)),
        search_rows=rest,
        validation_rows=validation,
        input_scale=np.array([1 / 96], np.float32),
        settings=TrainConfig(batch_size=64, crop=1, flip=False),
        seed=0,
    )


@pytest.fixture(scope="session")
def references(task, tmp_path_factory):
    """What three units come to: (folder, results) by executor."""
    found = {}
    for name in ("inline", "lanes2"):
        folder = tmp_path_factory.mktemp(name)
        found[name] = folder, do(name, task, folder, units(folder))
    return found


@pytest.fixture(params=["inline", "lanes2"])
def reference(request, references):
    return references[request.param]
