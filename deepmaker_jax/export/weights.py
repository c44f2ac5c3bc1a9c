"""Weights in safetensors files: every array of a network, with its architecture."""

import hashlib
import pathlib
from typing import Any

import jax
import numpy as np

from deepmaker_jax import arch as architecture
from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.cost import layer_params
from deepmaker_jax.errors import InputError
from deepmaker_jax.export.manifest import REMAKE
from deepmaker_jax.files import ON_DISK, Files, dump_json, parse_json
from deepmaker_jax.models import Network

FORMAT = "deepmaker-jax 1"
MOST_TRACED = 256  # layers; the largest network of the spaces has about 200
Tree = dict[str, Any]


def save_weights(
    path: pathlib.Path, arch: ArchSpec, variables: Tree, files: Files = ON_DISK
) -> None:
    """Writes all collections of a network, float32, atomically; equal bytes for equal arguments.

    Args:
      path: of the file.
      arch: the architecture, kept as JSON in the file's metadata.
      variables: of `Network(layers(arch))`; named like "params/stem/kernel".
      files: writes it.

    Raises:
      InputError: names or shapes are not the network's, or a value is not finite.
    """
    files.write(path, to_bytes(arch, variables))


def to_bytes(arch: ArchSpec, variables: Tree) -> bytes:
    """Returns the file that `save_weights` writes.

    The header is written here: the library orders its metadata differently from
    run to run.
    """
    flat = {name: np.asarray(value) for name, value in _flat(variables).items()}
    _check(arch, flat, "the network's variables")
    data = b"".join(flat[name].astype("<f4").tobytes() for name in sorted(flat))
    words = dump_json(architecture.to_json(arch))
    header: Tree = {"__metadata__": {"arch": words, "format": FORMAT, "sum": _sum(words, data)}}
    end = 0
    for name in sorted(flat):
        start, end = end, end + flat[name].nbytes
        shape = list(flat[name].shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = dump_json(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, data])


def load_weights(path: pathlib.Path, files: Files = ON_DISK) -> tuple[ArchSpec, Tree]:
    """Reads what `save_weights` wrote, by `files`.

    Returns:
      (arch, variables) for `Network(layers(arch))`, NumPy float32.

    Raises:
      InputError: missing or damaged file, no architecture in it, another sum than
        it names, names or shapes that are not this architecture's, or a value
        that is not finite.
    """
    try:
        file = files.read(path)
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        raise InputError(f"{path} cannot be read ({_line(error)}): {REMAKE}") from None
    return from_bytes(file, str(path))


def from_bytes(file: bytes, path: str = "the file") -> tuple[ArchSpec, Tree]:
    """Reads what `to_bytes` returned, as `load_weights` does; `path` is what errors call it."""
    from safetensors.numpy import load

    try:
        flat = load(file)
        end = 8 + int.from_bytes(file[:8], "little")
        header = parse_json(file[8:end])
    except Exception as error:  # noqa: BLE001 - a header that lies may raise anything
        raise InputError(f"{path} cannot be read ({_line(error)}): {REMAKE}") from None
    metadata = header.get("__metadata__", {})
    if metadata.get("format") != FORMAT or "arch" not in metadata:
        raise InputError(f"{path} has no metadata of format {FORMAT!r}: {REMAKE}")
    try:
        arch = architecture.from_json(parse_json(metadata["arch"]))
    except ValueError as error:
        raise InputError(f"{path} has a damaged architecture: {_line(error)}") from None
    _check(arch, flat, path)
    if metadata.get("sum", "") not in ("", _sum(metadata["arch"], file[end:])):
        raise InputError(f"{path} does not match its checksum: {REMAKE}")
    variables: Tree = {}
    for name, value in flat.items():
        *groups, leaf = name.split("/")
        node = variables
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = value
    return arch, variables


def _sum(arch: str, data: bytes) -> str:
    """Returns the SHA-256 of architecture and values, hex: one flipped bit is still a network."""
    return hashlib.sha256(arch.encode() + data).hexdigest()


def _flat(tree: Any) -> dict[str, Any]:
    """Returns {"params/stem/kernel": leaf, ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def _check(arch: ArchSpec, flat: dict[str, np.ndarray], where: str) -> None:
    """Raises InputError unless the arrays are those of the architecture's network, all finite."""
    network = layers(arch)
    wanted_params, params = sum(map(layer_params, network)), _num_params(flat)
    if len(network) > MOST_TRACED and params != wanted_params:
        # An architecture of thousands of layers stands in a short line, and takes minutes to trace.
        raise InputError(
            f"{where}: {params} parameters are not the {wanted_params} of its architecture: "
            f"{REMAKE}"
        )
    image = jax.ShapeDtypeStruct((1, *arch.input_shape), np.float32)
    wanted = _flat(jax.eval_shape(Network(network).init, jax.random.key(0), image))
    for name in sorted(wanted.keys() ^ flat.keys()):
        rule = "is missing" if name in wanted else "is not of this architecture"
        raise InputError(f"{where}: array {name} {rule}: {REMAKE}")
    for name, leaf in wanted.items():
        value = flat[name]
        if value.shape != leaf.shape or value.dtype != np.float32:
            raise InputError(
                f"{where}: array {name} ({value.dtype}{list(value.shape)}) must be "
                f"float32{list(leaf.shape)}"
            )
        if not np.isfinite(value).all():
            raise InputError(f"{where}: array {name} has a value that is not finite")


def _num_params(flat: dict[str, np.ndarray]) -> int:
    return sum(value.size for name, value in flat.items() if name.startswith("params/"))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
