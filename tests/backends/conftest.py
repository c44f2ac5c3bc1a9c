"""One bundle of a tiny network for all tests of backends: under 10k parameters at 16x16."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from deepmaker_jax.backends.worker import read_member
from deepmaker_jax.export import export_bundle
from tests.export.networks import make, random_images, random_variables

ID = "0123456789ab"
ARCH = make(depths=(1, 2))
GREY = make(depths=(1,), shape=(16, 16, 1))


def write_run(run: pathlib.Path, *, ids=(ID,)) -> pathlib.Path:
    """Writes a finished run's front, as far as `deploy` reads it."""
    members = [{"id": id, "bundle": f"models/{id}"} for id in ids]
    (run / "front.json").write_text(json.dumps({"members": members}))
    return run


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory):
    """Returns a run folder of one member; not to be changed."""
    return _export(tmp_path_factory.mktemp("run"), ARCH)


@pytest.fixture(scope="session")
def grey_run(tmp_path_factory):
    """Returns a run folder of one member for images of one channel; not to be changed."""
    return _export(tmp_path_factory.mktemp("grey"), GREY)


def _export(run: pathlib.Path, arch):
    rng = np.random.default_rng(0)
    export_bundle(
        run / "models" / ID, id=ID, arch=arch, variables=random_variables(arch),
        calibration_images=random_images(arch, num=16, seed=1),
        test_images=random_images(arch, num=100, seed=2),
        test_labels=rng.integers(0, 10, 100).astype(np.int32),
    )  # fmt: skip
    return write_run(run)


@pytest.fixture
def run(exported_run, tmp_path):
    """Returns a copy of the run that a test may change."""
    return pathlib.Path(shutil.copytree(exported_run, tmp_path / "run"))


@pytest.fixture
def member(run):
    return read_member(run / "models" / ID)
