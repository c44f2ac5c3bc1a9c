"""A user's arrays: an `.npz` with `x_train`, `y_train` and optionally a test split."""

import math
import pathlib
import zipfile

import numpy as np

from deepmaker_jax.data.dataset import Dataset, make_dataset
from deepmaker_jax.errors import InputError

_MOST_BYTES = 16 << 30
# Pictures never pack so well: an array of 16 GiB would come out of a file of 16 MB.
_BOMB_BYTES, _BOMB_RATIO = 256 << 20, 200
_MOST_CLASSES = 65_536
_TRAIN, _TEST, _NAMES = ("x_train", "y_train"), ("x_test", "y_test"), "class_names"


def read(path: pathlib.Path) -> Dataset:
    """Reads `x_train`, `y_train`, optionally `x_test`, `y_test` and `class_names`.

    Images are [n, h, w] or [n, h, w, c]: uint8, or other integers or floats within
    0..255 (floats are rounded to the nearest, halves to even). Labels are
    integers [n]; `class_names` is text [classes]. Other arrays are passed over,
    unread.

    Raises:
      InputError: no zip file; an array missing, of objects, of another shape or
        type, or bigger than declared; pixels outside 0..255, or floats that all
        lie within 0..1; any rule of `make_dataset`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(path, archive)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged zip or header may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(
            f"{path} cannot be read as .npz ({reason}): write it again with np.savez"
        ) from None
    names = arrays.get(_NAMES)
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise InputError(
            f"{path}: class_names has dtype {names.dtype} and shape {names.shape}: "
            "store text [classes], such as np.array(['cat', 'dog'])"
        )
    return make_dataset(
        "images",
        train_images=_pixels(path, "x_train", arrays["x_train"]),
        train_labels=arrays["y_train"],
        test_images=_pixels(path, "x_test", arrays["x_test"]) if "x_test" in arrays else None,
        test_labels=arrays.get("y_test"),
        class_names=None if names is None else names.tolist(),
        source=f"npz file with {', '.join(sorted(arrays))}",
    )


def _arrays(path: pathlib.Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """Reads the arrays that have a meaning here, none before its size is known to be sane."""
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    missing = [name for name in _TRAIN if name not in members]
    missing += [name for name in _TEST if name not in members and set(_TEST) & set(members)]
    if missing:
        found = ", ".join(sorted(members)[:10]) or "nothing"
        raise InputError(
            f"{path} has no {missing[0]}, it holds {found}: store x_train, y_train and, "
            "for a test split, both x_test and y_test"
        )
    wanted = [name for name in (*_TRAIN, *_TEST, _NAMES) if name in members]
    size = sum(members[name].file_size for name in wanted)
    packed = sum(members[name].compress_size for name in wanted)
    if size > _BOMB_BYTES and size > _BOMB_RATIO * packed:
        raise InputError(
            f"{path} unpacks {packed} bytes to {size}, which no pictures do: if they are yours, "
            "write them with np.savez, unpacked"
        )
    if size > _MOST_BYTES:
        raise InputError(
            f"{path} unpacks to {size} bytes, more than {_MOST_BYTES}: store fewer or "
            "smaller images"
        )
    return {name: _array(path, archive, members[name], name) for name in wanted}


def _array(
    path: pathlib.Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str
) -> np.ndarray:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise InputError(f"{path}: {name} has .npy version {version}: use plain arrays")
        shape, _, dtype = read_header(stream)
        head_bytes = stream.tell()
    if dtype.hasobject:
        raise InputError(
            f"{path}: {name} is an array of Python objects: store plain numbers "
            "(all images of one shape), such as x_train.astype(np.uint8)"
        )
    if name == _NAMES and math.prod(shape) > _MOST_CLASSES:  # empty words take no bytes here
        raise InputError(
            f"{path}: class_names has shape {shape}: give a name for each class, at most "
            f"{_MOST_CLASSES}"
        )
    data_bytes = math.prod(shape) * dtype.itemsize
    if data_bytes + head_bytes != member.file_size:
        raise InputError(
            f"{path}: {name} declares {data_bytes} bytes but has {member.file_size - head_bytes}: "
            "write it again with np.savez"
        )
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _pixels(path: pathlib.Path, name: str, images: np.ndarray) -> np.ndarray:
    """Returns the images as uint8 if that loses no more than fractions."""
    if images.dtype.kind not in "iuf" or images.ndim not in (3, 4) or images.size == 0:
        raise InputError(
            f"{path}: {name} has dtype {images.dtype} and shape {images.shape}: "
            "give numbers 0..255, [n, h, w] or [n, h, w, c]"
        )
    if images.dtype == np.uint8:
        return images
    low, high = images.min(), images.max()  # NaN comes through and fails the test
    if not (low >= 0 and high <= 255):
        raise InputError(
            f"{path}: {name} has pixels from {low} to {high}: they must lie in 0..255; "
            "undo the normalisation"
        )
    if images.dtype.kind == "f":
        if high <= 1:
            raise InputError(
                f"{path}: {name} has float pixels from {low} to {high}, which would be black: "
                "multiply by 255"
            )
        images = np.rint(images)
    return images.astype(np.uint8)
