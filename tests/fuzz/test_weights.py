"""Weights whose header, sizes, values or architecture lie."""

import json
import pathlib

import jax
import numpy as np

from deepmaker_jax.arch import to_json
from deepmaker_jax.cost import cost
from deepmaker_jax.export import weights
from deepmaker_jax.spaces import deepmaker
from deepmaker_jax.train.init import random_variables
from tests.fuzz.core import DEEP, ODD, Door, as_text, changed, damaged, generator, listing

ARCH = deepmaker((8, 8, 1), 3).decode(np.zeros(20, np.int32))


def parts(data):
    """Returns (header, values) of a file."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def whole(header, values, *, length=None, summed=True):
    """Returns a file of a header and values, with the sum that it then has."""
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if summed and isinstance(metadata, dict) and isinstance(metadata.get("arch"), str):
        metadata["sum"] = weights._sum(metadata["arch"].encode("utf-8", "replace").decode(), values)
    text = as_text(header).encode()
    text += b" " * (-len(text) % 8)
    length = len(text) if length is None else length
    return length.to_bytes(8, "little") + text + values


def odd_arch(rng, header, values):
    """The architecture of another network, or of none."""
    arch = to_json(ARCH)
    kind = rng.integers(4)
    if kind == 0:  # thousands of layers in a short line
        arch["stages"] = [arch["stages"][0] | {"num_layers": 512, "compression_percent": 50}] * 16
        arch["stages"][-1] = arch["stages"][-1] | {"compression_percent": 0}
        arch["input_shape"] = [65_536, 65_536, int(rng.integers(1, 9))]
    elif kind == 1:
        arch["num_classes"] = int(rng.integers(2, 65_536))
        arch["stages"][0]["growth"] = int(rng.integers(1, 4096))
    else:
        arch = changed(rng, arch)
    header["__metadata__"]["arch"] = as_text(arch)
    return whole(header, values)


def odd_header(rng, header, values):
    """An entry of the header that lies: types, shapes, places, names, or lengths."""
    names = [name for name in header if name != "__metadata__"]
    name = names[rng.integers(len(names))]
    kind = rng.integers(7)
    if kind == 0:
        header[name]["dtype"] = ("F16", "BF16", "F64", "I8", "F8_E4M3", "BOOL", "", "U64", "X")[
            rng.integers(9)
        ]
    elif kind == 1:
        header[name]["shape"] = [int(n) for n in rng.choice([0, 1, 3, 2**32, 2**62], 3)]
    elif kind == 2:
        header[name]["data_offsets"] = [int(n) for n in rng.choice([0, 4, 10**9, 2**63], 2)]
    elif kind == 3:
        header[str(ODD[rng.integers(len(ODD))])] = header.pop(name)
    elif kind == 4:
        return whole(header, values, length=int(rng.choice([0, 1, 7, 2**40, 2**62])))
    elif kind == 5:
        header["__metadata__"] = {str(k): str(k) for k in rng.integers(0, 99, 3)}
    else:
        header = changed(rng, header)
    return whole(header, values)


def test_weights(tmp_path, capsys):
    door = Door("weights", capsys)
    good = weights.to_bytes(ARCH, random_variables(ARCH, seed=0))
    num_values = len(parts(good)[1]) // 4
    path, accepted = tmp_path / "weights.safetensors", []
    assert DEEP in ODD

    def read():
        accepted.append(weights.load_weights(path))

    for case in range(300):
        rng = generator(door.name, case)
        header, values = parts(good)
        if case == 0:
            bad = good
        elif case < 90:
            bad = odd_arch(rng, header, values)
        elif case < 200:
            bad = odd_header(rng, header, values)
        elif case < 220:
            array = np.frombuffer(values, np.float32).copy()
            odd = (np.nan, np.inf, -np.inf, 1e38, 0.5, -0.0)
            array[rng.integers(num_values)] = odd[rng.integers(len(odd))]
            bad = whole(header, array.tobytes(), summed=bool(rng.integers(4)))
        else:
            bad = damaged(rng, good)
        path.write_bytes(bad)
        before = listing(tmp_path)
        door.call(case, bad, read)
        assert listing(tmp_path) == before
    for arch, variables in accepted:
        leaves = jax.tree_util.tree_leaves(variables["params"])
        assert sum(leaf.size for leaf in leaves) == cost(arch).params
        assert all(np.isfinite(leaf).all() for leaf in jax.tree_util.tree_leaves(variables))
    door.check(refused=180, accepted=8)


def test_weights_that_are_no_file(tmp_path, capsys):
    door = Door("weights' places", capsys)
    (tmp_path / "folder").mkdir()
    places = [tmp_path / "missing", tmp_path / "folder", pathlib.Path("/proc/self/mem")]
    places += [tmp_path / "a\0b", tmp_path / "\ud800"]
    for place in places:
        assert door.call(place, str(place), lambda place=place: weights.load_weights(place)) == 2
