""".npz files that lie: the zip, the arrays in it and their headers."""

import io
import os
import zipfile

import numpy as np
import pytest

from deepmaker_jax.data import load, npz
from tests.fuzz.core import Attack, Door, damaged, generator, memory

X = np.zeros((30, 6, 6, 1), np.uint8)
Y = np.arange(30) % 3
DTYPES = (
    "u1",
    "i1",
    "<u2",
    ">i8",
    "<f2",
    "<f8",
    "?",
    "c8",
    "S3",
    "U2",
    "V4",
    "O",
    "m8[s]",
    "M8[D]",
)


def npy_bytes(array):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=True)
    return out.getvalue()


def npz_bytes(arrays, method=zipfile.ZIP_DEFLATED):
    """An .npz of arrays, or of bytes that stand for one."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, value in arrays.items():
            archive.writestr(name, value if isinstance(value, bytes) else npy_bytes(value))
    return out.getvalue()


def odd_array(rng, array, canary):
    """An array of another type, shape or range, or a header that lies."""
    kind = rng.integers(8) if array.dtype.kind != "U" else rng.choice([1, 2, 3, 6, 7])
    if kind == 0:
        return array.astype(DTYPES[rng.integers(len(DTYPES))])
    if kind == 1:
        return np.array([Attack(os.system, f"touch {canary}"), None], object)
    if kind == 2:
        return array[: rng.integers(len(array))]
    if kind == 3:
        return array.reshape(array.shape + (1,) * int(rng.integers(1, 4)))
    if kind == 4:
        return array + rng.integers(-400, 400, array.shape)
    if kind == 5:
        return array + rng.choice([np.nan, np.inf, -1.0, 0.001, 1e300])
    if kind == 6:
        return np.zeros([int(n) for n in rng.integers(0, 5, rng.integers(0, 6))], np.uint8)
    data = npy_bytes(array)
    words = (b"'shape': (30", b"'descr': '|u1'", b"'descr': '<i8'", b"False", b"{", b"30,")
    lies = (
        b"'shape': (3000000000000", b"'descr': '|V0'", b"'descr': '|O'", b"True", b"[" * 90, b"-3,",
    )  # fmt: skip
    return data.replace(words[rng.integers(len(words))], lies[rng.integers(len(lies))], 1)


def odd_zip(rng, data):
    """A zip whose directory lies of sizes, methods, flags or names."""
    changed = bytearray(data)
    for signature, length in ((b"PK\x01\x02", 46), (b"PK\x03\x04", 30), (b"PK\x05\x06", 22)):
        at = data.find(signature)
        while at >= 0:
            if rng.integers(3) == 0:
                where = at + 4 + int(rng.integers(length - 4))
                changed[where] = int(rng.choice([0, 1, 8, 12, 14, 0x7F, 0x80, 0xFF]))
            at = data.find(signature, at + 4)
    return bytes(changed)


def test_npz_files(tmp_path, capsys):
    door = Door("npz files", capsys)
    path, canary = tmp_path / "mine.npz", tmp_path / "canary"
    good = {"x_train.npy": X, "y_train.npy": Y, "class_names.npy": np.array(["a", "b", "c"])}
    good |= {"x_test.npy": X, "y_test.npy": Y}
    for case in range(400):
        rng = generator(door.name, case)
        arrays = dict(good)
        name = list(good)[rng.integers(5)]
        if case in (0, 1):
            bad = npz_bytes(arrays, (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)[case])
        elif case < 150:
            if rng.integers(6) == 0:
                arrays.pop(name)
            else:
                arrays[name] = odd_array(rng, np.array(arrays[name]), canary)
            bad = npz_bytes(arrays)
        elif case < 190:
            arrays[name] = damaged(rng, npy_bytes(np.array(arrays[name])))
            bad = npz_bytes(arrays)
        elif case < 260:
            bad = odd_zip(rng, npz_bytes(arrays, zipfile.ZIP_STORED))
        else:
            bad = damaged(rng, npz_bytes(arrays))
        path.write_bytes(bad)
        door.call(case, bad, lambda: load("images", path=path))
        assert os.listdir(tmp_path) == ["mine.npz"], case
    door.check(refused=150, accepted=3)


def zeros_npy(shape, dtype):
    out = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()


@pytest.mark.parametrize("name", ["x_train", "class_names"])
def test_an_npz_file_is_refused_before_it_fills_the_memory(name, tmp_path, capsys, monkeypatch):
    """Packed zeros, and words of no letters, of which a billion take no byte of the file."""
    monkeypatch.setattr(npz, "_BOMB_BYTES", 16 << 20)
    arrays = {"x_train.npy": X, "y_train.npy": Y}
    if name == "x_train":
        arrays["x_train.npy"] = zeros_npy((64, 1 << 10, 1 << 10), "|u1") + bytes(64 << 20)
    else:
        arrays["class_names.npy"] = zeros_npy((10**9,), "<U0")
    (tmp_path / "bomb.npz").write_bytes(npz_bytes(arrays))
    del arrays
    door = Door("npz bombs", capsys)
    with memory(16 << 20):
        code = door.call(name, name, lambda: load("images", path=tmp_path / "bomb.npz"))
    assert code == 2
