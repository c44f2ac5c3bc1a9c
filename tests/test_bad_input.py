"""Bad input on the command line: one line on stderr, exit code 2, and no run folder."""

import errno
import gzip
import os
import pathlib
import shutil
import types

import numpy as np
import pytest
from PIL import Image

from experiments import cifar10, digits, images, mnist

PIXELS = np.random.default_rng(0).integers(0, 256, (120, 12, 12, 1), np.uint8)
LABELS = np.arange(120) % 3


def npz(cut=0, **arrays):
    """The arguments of a run on an .npz of 120 pictures, with these arrays instead."""

    def make(folder, monkeypatch):
        path = folder / "mine.npz"
        np.savez(path, **{"x_train": PIXELS, "y_train": LABELS} | arrays)
        path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
        return ["smoke", "--data", str(path)]

    return make


def pictures(train, test=None, spoil=lambda data: data):
    """The arguments of a run on pictures: {class: their number}; `spoil` changes the last file."""

    def make(folder, monkeypatch):
        for split, classes in {"train": train, "test": test or {}}.items():
            for name, num in classes.items():
                (folder / split / name).mkdir(parents=True)
                for i in range(num):
                    path = folder / split / name / f"{i}.png"
                    Image.fromarray(PIXELS[i, :, :, 0]).save(path)
                    last = path
        last.write_bytes(spoil(last.read_bytes()))
        return ["smoke", "--data", str(folder)]

    return make


def holding(**content):
    """The arguments of a run on a folder with these files (`a__b` stands for a.b)."""

    def make(folder, monkeypatch):
        for name, data in content.items():
            (folder / name.replace("__", ".")).write_bytes(data)
        return ["smoke", "--data", str(folder)]

    return make


def nowhere(folder, monkeypatch):
    return ["smoke", "--data", str(folder / "nowhere")]


def truncated_archive(folder, monkeypatch):
    path = folder / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(PIXELS.tobytes())[:5000])
    return ["smoke", "--data", str(path)]


def truncated_idx(folder, monkeypatch):
    for stem in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{stem}-ubyte.gz").write_bytes(gzip.compress(PIXELS.tobytes())[:5000])
    return ["smoke", "--data", str(folder)]


def no_network(folder, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    return ["smoke"]


def given(*args):
    """These arguments, whatever the folder."""
    return lambda folder, monkeypatch: list(args)


WANTED_CIFAR = ("looked for data_batch_1", "cifar-10-batches-py/", "cifar-10-python.tar.gz", "TFDS")
WANTED_MNIST = ("looked for train-images-idx3-ubyte[.gz]", "MNIST/raw/", "TFDS")
WANTED_IMAGES = ("train/CLASS/*.png", ".jpg", ".npz")
ROWS = {
    # settings
    "unknown preset": (cifar10, given("tiny"), "preset (=tiny) must be one of smoke, small"),
    "unknown flag": (cifar10, given("smoke", "--sed", "3"), "Unrecognized options: --sed"),
    "choice of a gene": (
        digits, given("demo", "--space.only", "kernel=7"), "space.only: gene kernel (=7)", "3, 5"
    ),
    "unknown gene": (digits, given("demo", "--space.only", "depth=7"), "has no gene 'depth'"),
    "no folder of data": (cifar10, given("smoke", "--data", ""), "data (='') must name a folder"),
    "negative search epochs": (
        digits, given("demo", "--search.epochs", "-1"), "search.epochs (=-1) must be a whole number"
    ),
    "negative final epochs": (
        digits, given("demo", "--final.epochs", "-3"), "final.epochs (=-3) must be a whole number"
    ),
    "population under 4": (
        digits, given("demo", "--search.population", "3"), "search.population (=3)", "at least 4"
    ),
    **{
        f"{name} that no genome meets": (
            digits, given("demo", f"--limits.{name}", "10"), f"limits.{name} (=10)",
            "is below the nearest value that space deepmaker", " reaches here, ", "raise it",
        )
        for name in ("params", "macs", "peak-activation-bytes", "flash-bytes")
    },
    "limits that leave too few": (
        digits,
        given(
            "demo", "--space.name", "neuropower", "--limits.params", "70000", "--space.only",
            "optimizer=adam", "activation_negative=relu", "activation_positive=tanh|sigmoid",
            "--limits.macs", "None", "--limits.flash-bytes", "None", "--search.population", "5",
        ),
        "search.population (=5) is more than the 2 different networks", "raise the limits",
    ),
    "validation share": (
        digits, given("demo", "--validation-share", "0.001"), "validation_share=0.001", "class 0"
    ),
    # data that are not there
    **{
        f"{word} of {kind.__name__.rpartition('.')[2]}": (kind, make, said, *wanted)
        for kind, wanted in (
            (cifar10, WANTED_CIFAR), (mnist, WANTED_MNIST), (images, WANTED_IMAGES)
        )
        for word, make, said in (
            ("missing folder", nowhere, "nowhere does not exist: looked for"),
            ("empty folder", holding(), " is empty: looked for"),
            ("other folder", holding(notes__txt=b"mine"), "looked for"),
        )
    },
    "no network": (
        mnist, no_network, "TFDS could not download mnist", "needs the network", "give --data"
    ),
    # data that are damaged
    "truncated CIFAR archive": (
        cifar10, truncated_archive, "cifar-10-python.tar.gz has md5", "the official archive",
        "get cifar-10-python.tar.gz again",
    ),
    "truncated idx file": (
        mnist, truncated_idx, "train-images-idx3-ubyte.gz", "get the official file again"
    ),
    "truncated npz": (images, npz(cut=300), "mine.npz cannot be read as .npz"),
    "empty picture": (
        images, pictures({"cat": 9, "dog": 9}, spoil=lambda data: b""),
        "dog/8.png cannot be read", "repair it",
    ),
    "truncated picture": (
        images, pictures({"cat": 9, "dog": 9}, spoil=lambda data: data[:80]),
        "dog/8.png cannot be read", "repair it",
    ),
    # data that break a rule
    "labels over the classes": (
        images, npz(class_names=["a", "b"]), "train labels run from 0 to 2 but there are 2 classes"
    ),
    "negative labels": (images, npz(y_train=LABELS - 1), "train labels run from -1 to 1"),
    "empty class": (
        images, npz(y_train=LABELS * 2), "class 1 ('1') and 1 more has no train images"
    ),
    "empty class folder": (
        images, pictures({"cat": 9, "dog": 9}, {"cat": 3, "dog": 0}), "test/dog holds no picture"
    ),
    "one class": (images, npz(y_train=LABELS * 0), "images has 1 class", "at least 2"),
    "one class folder": (images, pictures({"cat": 9}), "images has 1 class (cat)", "at least 2"),
    "a class without test images": (
        images, npz(x_test=PIXELS, y_test=LABELS % 2), "class 2 ('2') has no test images",
        "train and test must have the same classes",
    ),
    "other class folders in test": (
        images, pictures({"cat": 9, "dog": 9}, {"cat": 3, "owl": 3}),
        "class 'dog' is in train but not in test", "train and test must have the same classes",
    ),
    "object arrays": (
        images, npz(x_train=np.array([PIXELS[0], None], object)),
        "x_train is an array of Python objects",
    ),
    "float pixels over 255": (
        images, npz(x_train=PIXELS * 1.5), "x_train has pixels from 0.0 to 382.5"
    ),
    "float pixels under 0": (images, npz(x_train=PIXELS - 1.0), "x_train has pixels from -1.0 to"),
    "unequal lengths": (
        images, npz(y_train=LABELS[:-1]), "120 train images but 119 train labels"
    ),
}  # fmt: skip


def check_refused(experiment, argv, capsys, *words):
    """The command says one line on stderr with these words, and its exit code is 2."""
    code = experiment.main(argv)
    said = capsys.readouterr()
    assert code == 2, said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1, said.err
    assert said.out == ""
    for word in words:
        assert word in said.err


@pytest.mark.parametrize("row", ROWS)
def test_bad_input_is_one_line_and_makes_no_run_folder(row, tmp_path, monkeypatch, capsys):
    experiment, make, *words = ROWS[row]
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    check_refused(experiment, make(data, monkeypatch), capsys, *words)
    assert os.listdir(elsewhere) == []


def no_access(monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)


def full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=5 << 20))


def failing(name, code):
    """Makes a method of paths fail as the file system does."""

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return lambda monkeypatch: monkeypatch.setattr(pathlib.Path, name, fail)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_access, ["cannot be written (Permission denied)", "name another"]),
        (failing("mkdir", errno.EROFS), ["cannot be written (Read-only file system)"]),
        (failing("write_bytes", errno.ENOSPC), ["cannot be written (No space left on device)"]),
        (full_disk, ["is on a disk with 5 MiB left", "free some, or name another disk"]),
    ],
    ids=["no access", "read-only", "no byte left", "full disk"],
)
def test_an_out_that_cannot_be_written_is_refused(spoil, words, tmp_path, monkeypatch, capsys):
    spoil(monkeypatch)
    out = tmp_path / "runs" / "mine"
    check_refused(digits, ["demo", "--out", str(out)], capsys, f"out (={out})", *words)
    assert os.listdir(tmp_path) == []


def test_an_out_that_is_a_file_or_below_one_is_refused(tmp_path, capsys):
    file = tmp_path / "mine"
    file.write_text("mine")
    for out, word in ((file, "must be a folder, but it is a file"), (file / "run", "Not a dir")):
        check_refused(digits, ["demo", "--out", str(out)], capsys, word)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("out", ["", " "])
def test_an_out_without_a_name_is_refused(out, capsys):
    """As an unset variable of a shell leaves one."""
    check_refused(digits, ["demo", "--out", out], capsys, "must name a folder")
