"""MNIST and Fashion-MNIST from the four official idx files, gzipped or not.

An idx file is two zero bytes, the element type (8: unsigned byte), the number of
axes, one big-endian uint32 per axis, then the elements.
Source: the format's description at the end of http://yann.lecun.com/exdb/mnist/.
"""

import contextlib
import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

from deepmaker_jax.data.dataset import Dataset, make_dataset
from deepmaker_jax.errors import InputError

FOLDERS = {  # where else the files lie, below the folder that was named
    "mnist": ("mnist", "raw", "MNIST/raw"),
    "fashion_mnist": ("fashion-mnist", "fashion_mnist", "raw", "FashionMNIST/raw"),
}
CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
# Both families use the same file names; the first official training labels tell them apart.
_FIRST_LABELS = {
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    "fashion_mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
}
_STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_MOST_BYTES = 128 << 20  # the official training images have 47 MB


def find(name: str, path: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder at `path` or below it that holds at least one of the files, or None."""
    for folder in (path, *(path / below for below in FOLDERS[name])):
        if any(_file(folder, stem) for stem in _STEMS):
            return folder
    return None


def looked_for(name: str) -> str:
    """Says what `find` takes."""
    files = ", ".join(f"{stem}-idx{_axes(stem)}-ubyte[.gz]" for stem in _STEMS)
    return f"{files} (there or in {', '.join(f'{below}/' for below in FOLDERS[name])})"


def read(name: str, folder: pathlib.Path) -> Dataset:
    """Reads the four files.

    Raises:
      InputError: a file is missing, cut short, too long or no such idx file; its
        labels are those of the other family.
    """
    arrays = {}
    for stem in _STEMS:
        file = _file(folder, stem)
        if file is None:
            raise InputError(
                f"{folder} lacks {stem}-idx{_axes(stem)}-ubyte (or .gz): add the missing file"
            )
        arrays[stem] = read_idx(file, axes=_axes(stem))
    for other, first in _FIRST_LABELS.items():
        if other != name and tuple(arrays["train-labels"][: len(first)].tolist()) == first:
            raise InputError(f"{folder} holds {other}, not {name}: name the folder of {name}")
    return make_dataset(
        name,
        train_images=arrays["train-images"],
        train_labels=arrays["train-labels"],
        test_images=arrays["t10k-images"],
        test_labels=arrays["t10k-labels"],
        class_names=CLASS_NAMES[name],
        source="official idx files",
    )


def read_idx(file: pathlib.Path, *, axes: int) -> np.ndarray:
    """Reads one idx file of unsigned bytes; gzipped if its name ends in .gz.

    Returns:
      UInt8 with that many axes.

    Raises:
      InputError: it has another magic number, is cut short or goes on past its end.
    """
    again = "get the official file again"
    magic = 0x0800 + axes
    try:
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(file.open("rb"))
            if file.suffix == ".gz":
                stream = stack.enter_context(gzip.GzipFile(fileobj=stream, mode="rb"))
            head = stream.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes:
                raise InputError(f"{file} ends inside its header: {again}")
            found, *shape = struct.unpack(f">{1 + axes}I", head)
            if found != magic:
                raise InputError(f"{file} starts with {found:#010x}, not {magic:#010x}: {again}")
            size = math.prod(shape)
            if not 0 < size <= _MOST_BYTES:
                raise InputError(f"{file} declares the shape {tuple(shape)}: {again}")
            data = stream.read(size + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{file} cannot be read ({error}): {again}") from None
    if len(data) != size:
        trouble = "goes on past" if len(data) > size else "is cut short of"
        raise InputError(f"{file} {trouble} the {size} bytes that its header declares: {again}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _axes(stem: str) -> int:
    return 3 if stem.endswith("images") else 1


def _file(folder: pathlib.Path, stem: str) -> pathlib.Path | None:
    """Returns the first of the file's usual names that is there."""
    for ending in ("", ".gz"):
        for dot in ("-", "."):
            file = folder / f"{stem}{dot}idx{_axes(stem)}-ubyte{ending}"
            if file.is_file():
                return file
    return None
