"""Writers of small files in the official layouts, and the way to the real data."""

import contextlib
import gzip
import os
import pathlib
import pickle
import struct

import numpy as np
import pytest

from deepmaker_jax.errors import InputError

VARIABLE = "DEEPMAKER_TEST_DATA"


@pytest.fixture(scope="session")
def real_data():
    """The folder that holds cifar-10-batches-py/ and fashion-mnist/."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"needs real data: set {VARIABLE} to the folder that shared/data unpacked")
    return pathlib.Path(folder)


@pytest.fixture
def refuses():
    """A context manager: the block must raise InputError, one line, with this text in it."""

    @contextlib.contextmanager
    def expect(match):
        with pytest.raises(InputError, match=match) as caught:
            yield
        assert "\n" not in str(caught.value)

    return expect


def python2(value):
    """Pickles as the official files were: protocol 2 by Python 2, text and bytes as str."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python2, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(x) for pair in value.items() for x in pair) + b"u"
    kind = value.dtype.str[1:].encode()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    array += python2(value.shape) + b"cnumpy\ndtype\nU\x02" + kind + b"K\x00K\x01\x87R"
    array += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    return array + python2(value.tobytes()) + b"tb"


PICKLERS = {
    "python 2, protocol 2": lambda value: b"\x80\x02" + python2(value) + b".",
    "python 3, protocol 2": lambda value: pickle.dumps(value, protocol=2),
    "python 3, protocol 4": lambda value: pickle.dumps(value, protocol=4),
}


@pytest.fixture
def picklers():
    return PICKLERS


@pytest.fixture
def cifar_contents():
    """Builds the dictionaries of a small CIFAR: one picture per class in every file."""

    def build(name="cifar10"):
        rng = np.random.default_rng(7)
        classes, fine = (10, "") if name == "cifar10" else (100, "fine_")
        if name == "cifar10":
            files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        else:
            files = ["train", "test"]
        contents = {}
        for file in files:
            contents[file] = {
                f"{fine}labels": rng.permutation(classes).tolist(),
                "data": rng.integers(0, 256, (classes, 3072), np.uint8),
                "filenames": [f"{file}_{i}.png" for i in range(classes)],
            }
        names = [f"kind {i}" for i in range(classes)]
        meta = "batches.meta" if name == "cifar10" else "meta"
        contents[meta] = {f"{fine}label_names": names, "num_vis": 3072}
        return contents

    return build


@pytest.fixture
def write_cifar(cifar_contents):
    """Writes a small CIFAR folder; returns its contents."""

    def write(folder, name="cifar10", pickler="python 2, protocol 2", contents=None):
        contents = cifar_contents(name) if contents is None else contents
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            (folder / file).write_bytes(PICKLERS[pickler](content))
        return contents

    return write


@pytest.fixture
def write_idx():
    """Writes one idx file of unsigned bytes, gzipped where its name says so."""

    def write(file, array, *, magic=None, extra=b"", cut=0):
        magic = 0x0800 + array.ndim if magic is None else magic
        data = struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes() + extra
        data = data[: len(data) - cut]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(data, mtime=0) if file.suffix == ".gz" else data)

    return write


@pytest.fixture
def write_mnist(write_idx):
    """Writes the four files, two pictures per class and split; returns the arrays."""

    def write(folder, *, dot="-", ending=".gz"):
        rng = np.random.default_rng(3)
        arrays = {}
        for stem in ("train", "t10k"):
            arrays[f"{stem}-images"] = rng.integers(0, 256, (20, 28, 28), np.uint8)
            arrays[f"{stem}-labels"] = np.tile(np.arange(10, dtype=np.uint8), 2)
        for stem, array in arrays.items():
            write_idx(folder / f"{stem}{dot}idx{array.ndim}-ubyte{ending}", array)
        return arrays

    return write
