"""The one door: names, paths that don't fit, the bundled digits."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from deepmaker_jax.data import NAMES, load, stratified

OFFICIAL = ["cifar10", "cifar100", "mnist", "fashion_mnist"]


def test_digits():
    dataset = load("digits")
    bunch = load_digits()
    assert dataset.train_images.shape[1:] == (8, 8, 1)
    assert len(dataset.train_images) + len(dataset.test_images) == 1797
    assert dataset.test_split == "held out 20 % (stratified, seed 0)"
    share = np.bincount(dataset.test_labels) / np.bincount(bunch.target)
    assert np.all(np.abs(share - 0.2) < 0.005)
    # Pixels 0..16 become 0..255: 4 is 63.75, 8 is 127.5, 16 is 255.
    assert set(np.unique(dataset.train_images)) == {round(x * 255 / 16) for x in range(17)}
    _, held_out = stratified(bunch.target, share=0.2, seed=0)
    np.testing.assert_array_equal(
        dataset.test_images[..., 0], np.rint(bunch.images[held_out] * 255 / 16)
    )
    assert dataset.class_names == tuple("0123456789")
    assert dataset.fingerprint == "5e06e527a4934aaabbffea3f6dfde7635245a450b2a30c4acbaab04f90f206f0"


def test_digits_without_scikit_learn(monkeypatch, refuses):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with refuses("digits need the package scikit-learn: pip install scikit-learn"):
        load("digits")


def test_unknown_name_lists_the_names(refuses):
    with refuses(f"'svhn' is unknown: choose one of {', '.join(NAMES)}"):
        load("svhn")


@pytest.mark.parametrize("name", [*OFFICIAL, "images"])
def test_missing_path_is_refused_with_what_was_looked_for(name, tmp_path, refuses):
    wanted = r"looked for .*(TFDS|CLASS.*\.npz)"
    with refuses(f"data path {tmp_path}/nowhere does not exist: {wanted}"):
        load(name, path=tmp_path / "nowhere")


@pytest.mark.parametrize("name", [*OFFICIAL, "images"])
def test_empty_folder_is_refused_with_what_was_looked_for(name, tmp_path, refuses):
    with refuses(f"data folder {tmp_path} is empty: looked for .*(TFDS|CLASS.*\\.npz)"):
        load(name, path=tmp_path)


@pytest.mark.parametrize("name", OFFICIAL)
def test_folder_of_something_else_is_refused_with_what_was_looked_for(name, tmp_path, refuses):
    (tmp_path / "thesis.tex").write_text("not data")
    (tmp_path / name).mkdir()
    (tmp_path / name / "1.0.0").mkdir()  # a TFDS folder that was never finished
    expected = {
        "cifar10": r"data_batch_1, .* \(there or in cifar-10-batches-py/\), cifar-10-python.tar.gz",
        "cifar100": r"train, test, meta \(there or in cifar-100-python/\)",
        "mnist": r"train-images-idx3-ubyte\[.gz\], .*MNIST/raw/",
        "fashion_mnist": r".*t10k-labels-idx1-ubyte\[.gz\] \(there or in fashion-mnist/",
    }[name]
    tail = rf".*, {name}/VERSION/dataset_info.json \(TFDS\); name one of these, or leave --data out"
    with refuses(f"holds nothing that fits {name}: looked for {expected}{tail}"):
        load(name, path=tmp_path)


def test_without_tfds_the_way_to_download_names_what_installs_it(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refuses(r", or pip install 'deepmaker-jax\[tfds\]' and leave --data out to download"):
        load("mnist", path=tmp_path)


def test_file_that_fits_nothing_is_refused(tmp_path, refuses):
    (tmp_path / "a.txt").write_text("not data")
    with refuses("a.txt holds nothing that fits mnist"):
        load("mnist", path=tmp_path / "a.txt")
    with refuses("a.txt has md5 .*, the official archive eb9058c3"):
        load("cifar100", path=tmp_path / "a.txt")
    with refuses("a.txt cannot be read as .npz"):
        load("images", path=tmp_path / "a.txt")


def test_arguments_that_do_not_apply_are_refused(tmp_path, refuses):
    (tmp_path / "a.npz").write_bytes(b"x")
    with refuses("side=8 applies to pictures by class, not to cifar10: leave it out"):
        load("cifar10", side=8)
    with refuses("side=8 applies to pictures by class, not to .*a.npz"):
        load("images", path=tmp_path / "a.npz", side=8)
    for path in (tmp_path, tmp_path / "nowhere"):
        with refuses("digits come with scikit-learn, not from .*: leave --data out"):
            load("digits", path=path)
    for path in ("", " "):
        with refuses(rf"data \(='{path}'\) must name a folder or a file, or be left out"):
            load("cifar10", path=path)
    with refuses("images need --data: a folder of pictures by class, or an .npz file"):
        load("images")


def test_system_errors_become_one_line(tmp_path, write_cifar, monkeypatch, refuses):
    write_cifar(tmp_path)

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", "data_batch_1")

    monkeypatch.setattr("pathlib.Path.open", fail)
    with refuses("data of cifar10 cannot be read .*Permission denied.*: check the file"):
        load("cifar10", path=tmp_path)


def test_reading_data_imports_neither_jax_nor_tensorflow():
    code = (
        "import sys; from deepmaker_jax.data import load; load('digits'); "
        "print(sorted({'jax', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
