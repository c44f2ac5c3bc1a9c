"""One door to all data sources: `load` tells apart what a path holds."""

import os
import pathlib
from typing import Any

import numpy as np

from deepmaker_jax.data import cifar, idx, npz, pictures, tfds_source
from deepmaker_jax.data.dataset import Dataset, make_dataset
from deepmaker_jax.errors import InputError

OFFICIAL_SOURCES = {"cifar10": cifar, "cifar100": cifar, "mnist": idx, "fashion_mnist": idx}
NAMES = (*OFFICIAL_SOURCES, "digits", "images")


def load(
    name: str, *, path: str | os.PathLike[str] | None = None, side: int | None = None
) -> Dataset:
    """Reads a data set into memory.

    Args:
      name: "cifar10", "cifar100", "mnist", "fashion_mnist", "digits" or "images".
      path: for the first four the folder of official files, its parent, the
        official tar.gz (CIFAR) or a TFDS data_dir; None: TFDS downloads. For
        "images" a folder with `train/CLASS/*` (and `test/CLASS/*`) or `CLASS/*`,
        or an .npz with x_train and y_train. "digits" takes none.
      side: for pictures by class: resize to side x side pixels.

    Returns:
      The checked `Dataset`.

    Raises:
      InputError: nothing fits at `path` (the message lists what was looked for), or
        what is there breaks a rule; one line each.
    """
    if name not in NAMES:
        raise InputError(f"data set {name!r} is unknown: choose one of {', '.join(NAMES)}")
    if path is not None and not os.fspath(path).strip():
        raise InputError(f"data (={path!r}) must name a folder or a file, or be left out")
    if path is not None and name == "digits":
        raise InputError(f"digits come with scikit-learn, not from {path}: leave --data out")
    try:
        found = None if path is None else _existing(name, pathlib.Path(path).expanduser())
        return _read(name, found, side)
    except MemoryError as error:
        raise InputError(
            f"data of {name} do not fit this machine's memory ({error}): use fewer or smaller "
            "images"
        ) from None
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user's home folder
        raise InputError(
            f"data of {name} cannot be read ({error}): check the file, its permissions and the disk"
        ) from None


def _read(name: str, found: pathlib.Path | None, side: int | None) -> Dataset:
    """`load`, for a path that exists."""
    if name == "images":
        return _images(found, side)
    if side is not None:
        raise InputError(f"side={side} applies to pictures by class, not to {name}: leave it out")
    if name == "digits":
        return _digits()
    if found is None:
        return tfds_source.read(name, folder=None)
    source = OFFICIAL_SOURCES[name]
    if (place := source.find(name, found)) is not None:
        return source.read(name, place)
    if (place := tfds_source.find(name, found)) is not None:
        return tfds_source.read(name, folder=place)
    raise InputError(f"{found} holds nothing that fits {name}: {_wanted(name)}")


def _existing(name: str, path: pathlib.Path) -> pathlib.Path:
    if not path.exists():
        raise InputError(f"data path {path} does not exist: {_wanted(name)}")
    if path.is_dir() and not any(path.iterdir()):
        raise InputError(f"data folder {path} is empty: {_wanted(name)}")
    return path


def _wanted(name: str) -> str:
    if name not in OFFICIAL_SOURCES:
        return (
            "looked for train/CLASS/*.png, CLASS/*.png (or .jpg, .jpeg), or a file .npz; name "
            "their folder, or the .npz"
        )
    return (
        f"looked for {OFFICIAL_SOURCES[name].looked_for(name)}, {tfds_source.looked_for(name)}; "
        f"name one of these, or {tfds_source.to_download()}"
    )


def _images(path: pathlib.Path | None, side: int | None) -> Dataset:
    if path is None:
        raise InputError("images need --data: a folder of pictures by class, or an .npz file")
    if not (path.is_dir() or path.is_file()):  # a pipe would be waited for
        raise InputError(f"data path {path} is neither a folder nor a file: {_wanted('images')}")
    if path.is_dir():
        return pictures.read(path, side=side)
    if side is not None:
        raise InputError(f"side={side} applies to pictures by class, not to {path}: leave it out")
    return npz.read(path)


def _digits() -> Dataset:
    """scikit-learn's bundled 8x8 digits; pixels 0..16 become round(x * 255 / 16)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("digits need the package scikit-learn: pip install scikit-learn") from None
    bunch: Any = load_digits()
    return make_dataset(
        "digits",
        train_images=np.rint(bunch.images * (255 / 16)).astype(np.uint8),
        train_labels=bunch.target,
        class_names=[str(name) for name in bunch.target_names],
        source="scikit-learn's bundled digits",
    )
