"""TFDS folders, prepared here by TFDS's own machinery; TensorFlow runs in child processes only."""

import importlib.util
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from deepmaker_jax.data import load, tfds_source

CLASSES = [f"kind {i}" for i in range(10)]
PREPARE = """
import sys
import numpy as np
from deepmaker_jax.data.tfds_source import import_tfds

tfds = import_tfds()
arrays = np.load(sys.argv[1])
classes = tfds.features.ClassLabel(names=[f"kind {i}" for i in range(10)])
features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": classes}


def rows(split):
    pairs = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
    return [(i, {"image": image, "label": int(label)}) for i, (image, label) in enumerate(pairs)]


def store(folder, version, splits, file_format, features=features):
    tfds.dataset_builders.store_as_tfds_dataset(
        name="cifar10", version=version, data_dir=folder, file_format=file_format,
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: rows(split) for split in splits},
    )


out = sys.argv[2]
store(f"{out}/array_record", "3.0.2", ["train", "test"], "array_record")
store(f"{out}/tfrecord", "3.0.2", ["train", "test"], "tfrecord")
store(f"{out}/train_only", "3.0.2", ["train"], "array_record")
"""


def child(*command, **environment):
    """Runs Python with the tests' own search path."""
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def source():
    """Eight pictures of each class to train and two to test: of real CIFAR-10 where it is."""
    folder = os.environ.get("DEEPMAKER_TEST_DATA")
    labels = {"train": np.tile(np.arange(10), 8), "test": np.tile(np.arange(10), 2)}
    if not folder:
        rng = np.random.default_rng(0)
        pixels = {s: rng.integers(0, 256, (len(y), 32, 32, 3), np.uint8) for s, y in labels.items()}
    else:
        real = load("cifar10", path=folder)
        pixels = {}
        for split, y in labels.items():
            all_labels = real.train_labels if split == "train" else real.test_labels
            images = real.train_images if split == "train" else real.test_images
            places = [np.flatnonzero(all_labels == c)[i // 10] for i, c in enumerate(y)]
            pixels[split] = images[places]
    return {
        f"{split}_{what}": value
        for what, values in (("images", pixels), ("labels", labels))
        for split, value in values.items()
    }


@pytest.fixture(scope="session")
def prepared(source, tmp_path_factory):
    """Three data_dirs: array_record, tfrecord, train_only."""
    out = tmp_path_factory.mktemp("tfds")
    np.savez(out / "source.npz", **source)
    result = child("-c", PREPARE, str(out / "source.npz"), str(out))
    assert result.returncode == 0, result.stderr[-2000:]
    return out


def pairs(images, labels):
    """TFDS shuffles: compare as sorted pairs."""
    return sorted((label, image.tobytes()) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_prepared_folder_in_either_format(file_format, prepared, source):
    before = "tensorflow" in sys.modules  # another test may have needed it
    dataset = load("cifar10", path=prepared / file_format)
    assert dataset.train_images.shape == (80, 32, 32, 3)
    for split in ("train", "test"):
        found = getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels")
        assert pairs(*found) == pairs(source[f"{split}_images"], source[f"{split}_labels"])
    assert dataset.class_names == tuple(CLASSES)
    assert dataset.source == "TFDS cifar10/3.0.2"
    assert dataset.test_split == "official"
    assert ("tensorflow" in sys.modules) == before
    assert "tensorflow_datasets" not in sys.modules


def test_folder_without_test_split_holds_out(prepared):
    dataset = load("cifar10", path=prepared / "train_only" / "cifar10" / "3.0.2")
    assert dataset.test_split == "held out 20 % (stratified, seed 0)"
    assert np.bincount(dataset.train_labels).tolist() == [6] * 10


def test_newest_finished_version_is_found_from_any_level(tmp_path):
    folder = tmp_path / "mnist"
    for version in ("3.0.9", "3.0.10", "2.9.9", "incomplete.ABC_9.0.0"):
        (folder / version).mkdir(parents=True)
        (folder / version / "dataset_info.json").write_text("{}")
    (folder / "4.0.0").mkdir()
    assert tfds_source.find("mnist", tmp_path) == folder / "3.0.10"
    assert tfds_source.find("mnist", folder) == folder / "3.0.10"
    assert tfds_source.find("mnist", folder / "2.9.9") == folder / "2.9.9"
    assert tfds_source.find("cifar10", tmp_path) is None


def test_damaged_folder_is_refused(prepared, tmp_path, refuses):
    shutil.copytree(prepared / "array_record", tmp_path / "copy")
    folder = tmp_path / "copy" / "cifar10" / "3.0.2"
    for shard in folder.glob("*train*"):
        shard.unlink()
    with refuses(r"3\.0\.2 cannot be read through TFDS \(.*\): prepare it again"):
        load("cifar10", path=tmp_path / "copy")
    (folder / "dataset_info.json").write_text("{")
    with refuses(r"3\.0\.2 cannot be read through TFDS"):
        load("cifar10", path=tmp_path / "copy")


def test_no_network_is_one_line(tmp_path, monkeypatch, refuses):
    """A proxy at a closed port stands for a machine without a network."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with refuses(r"TFDS could not download mnist \(.*\): it needs the network; without one give"):
        load("mnist")


def test_missing_tfds_names_the_extra(monkeypatch, refuses):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorflow_datasets" else find_spec(name, *rest),
    )
    with refuses(r"needs the package tensorflow_datasets: pip install 'deepmaker-jax\[tfds\]'"):
        load("cifar10")


def test_missing_tensorflow_names_the_extra(prepared, tmp_path):
    """Only tfrecord needs TensorFlow; the child's own entry is run with it hidden."""
    code = (
        "import importlib.util as u, sys; real = u.find_spec; "
        "u.find_spec = lambda x, *rest: None if x == 'tensorflow' else real(x, *rest); "
        "from deepmaker_jax.data import tfds_source; status = tfds_source._main(*sys.argv[1:]); "
        "sys.exit(status + 10 * ('tensorflow' in sys.modules))"
    )
    for file_format, status in (("tfrecord", 2), ("array_record", 0)):
        folder = prepared / file_format / "cifar10" / "3.0.2"
        assert child("-c", code, "cifar10", str(tmp_path), str(folder)).returncode == status
    text = (tmp_path / "error.txt").read_text()
    assert text == (
        "cifar10/3.0.2 is stored as tfrecord, which needs TensorFlow: "
        "pip install 'deepmaker-jax[tfds]'"
    )


def test_child_that_dies_is_one_line(tmp_path, monkeypatch, refuses):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{}")
    monkeypatch.setattr(tfds_source.sys, "executable", shutil.which("false"))
    with refuses(r"cifar10 through TFDS failed \(exit code 1, no message\)"):
        load("cifar10", path=tmp_path)
