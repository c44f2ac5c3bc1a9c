"""Idx files that lie."""

import gzip
import os
import struct
import zlib

import numpy as np
import pytest

from deepmaker_jax.data import idx, load
from deepmaker_jax.errors import InputError
from tests.fuzz.core import Door, damaged, generator, memory

MNIST = {
    "train-images-idx3-ubyte": np.zeros((20, 28, 28), np.uint8),
    "train-labels-idx1-ubyte": np.tile(np.arange(10, dtype=np.uint8), 2),
    "t10k-images-idx3-ubyte": np.zeros((20, 28, 28), np.uint8),
    "t10k-labels-idx1-ubyte": np.tile(np.arange(10, dtype=np.uint8), 2),
}


def idx_bytes(array, *, shape=None, magic=None):
    shape = array.shape if shape is None else shape
    magic = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">I{len(shape)}I", magic, *shape) + array.tobytes()


def odd_idx(rng, array):
    """A header that lies, or labels and sizes that do not fit."""
    kind = rng.integers(6)
    if kind == 0:
        shape = tuple(
            int(n) for n in rng.choice([0, 1, 3, 28, 2**31, 2**32 - 1, 65536], array.ndim)
        )
        return idx_bytes(array, shape=shape)
    if kind == 1:
        return idx_bytes(array, magic=int(rng.integers(1 << 32)))
    if kind == 2:
        return idx_bytes(array[: rng.integers(20)])
    if kind == 3:
        return idx_bytes(rng.integers(0, 256, array.shape).astype(np.uint8))
    if kind == 4 and array.ndim == 3:
        side = int(rng.integers(1, 40))
        return idx_bytes(np.zeros((20, side, int(rng.integers(1, 40))), np.uint8))
    return idx_bytes(array) + bytes(int(rng.integers(1, 9)))


def test_idx_files(tmp_path, capsys):
    door = Door("idx files", capsys)
    for case in range(300):
        rng = generator(door.name, case)
        packed = bool(rng.integers(2))
        chosen = list(MNIST)[rng.integers(4)]
        files = {name: idx_bytes(array) for name, array in MNIST.items()}
        if case:
            odd = odd_idx(rng, MNIST[chosen]) if case < 150 else damaged(rng, files[chosen])
            files[chosen] = odd
        written = {
            n + ".gz" * packed: gzip.compress(d, 1) if packed else d for n, d in files.items()
        }
        if packed and case >= 220:
            written[f"{chosen}.gz"] = damaged(rng, written[f"{chosen}.gz"])
        for name, data in written.items():
            (tmp_path / name).write_bytes(data)
        bad = written[chosen + ".gz" * packed]
        door.call(case, (chosen, bad), lambda: load("mnist", path=tmp_path))
        assert sorted(os.listdir(tmp_path)) == sorted(written)
        for name in written:
            (tmp_path / name).unlink()
    door.check(refused=150, accepted=10)


def test_an_idx_file_is_refused_before_it_fills_the_memory(tmp_path):
    """4 GiB of zeros, declared or not."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    for shape in ((65_536, 256, 256), (10, 28, 28)):
        squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
        pieces = [squeeze.compress(struct.pack(">4I", 0x0803, *shape))]
        pieces += [squeeze.compress(bytes(1 << 20)) for _ in range(64)]
        path.write_bytes(b"".join([*pieces, squeeze.flush()]))
        with memory(16 << 20), pytest.raises(InputError, match=r"declares the shape|goes on past"):
            idx.read_idx(path, axes=3)
