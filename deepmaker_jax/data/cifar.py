"""CIFAR-10 and CIFAR-100 from the official "Python version": the tar.gz or its folder.

Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009).
"""

import gzip
import hashlib
import io
import pathlib
import reprlib
import tarfile
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import numpy as np

from deepmaker_jax.data.dataset import Dataset, make_dataset
from deepmaker_jax.data.unpickle import MOST_BYTES, load_pickle, matrix
from deepmaker_jax.errors import InputError

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_MOST_BYTES = MOST_BYTES


class Layout(NamedTuple):
    """How one of the two archives is built."""

    folder: str
    archive: str
    md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: str
    label_names: str
    classes: int
    extra: tuple[str, ...]  # in the archive, not read

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, *self.test, self.meta)


LAYOUTS = {
    "cifar10": Layout(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
        meta="batches.meta",
        labels="labels",
        label_names="label_names",
        classes=10,
        extra=("readme.html",),
    ),
    "cifar100": Layout(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        train=("train",),
        test=("test",),
        meta="meta",
        labels="fine_labels",
        label_names="fine_label_names",
        classes=100,
        extra=("file.txt~",),
    ),
}


class _Batch(NamedTuple):
    images: np.ndarray  # UInt8[k, 32, 32, 3]
    labels: np.ndarray  # Int32[k]


def find(name: str, path: pathlib.Path) -> pathlib.Path | None:
    """Returns the official folder or archive at `path` or just below it, or None."""
    layout = LAYOUTS[name]
    if path.is_file():
        return path
    for folder in (path, path / layout.folder):
        if any((folder / file).is_file() for file in layout.files):
            return folder
    archive = path / layout.archive
    return archive if archive.is_file() else None


def looked_for(name: str) -> str:
    """Says what `find` takes."""
    layout = LAYOUTS[name]
    return f"{', '.join(layout.files)} (there or in {layout.folder}/), {layout.archive}"


def read(name: str, path: pathlib.Path) -> Dataset:
    """Reads what `find` found.

    Raises:
      InputError: see `read_folder` and `read_archive`.
    """
    if path.is_dir():
        return read_folder(name, path)
    return read_archive(name, path, md5=LAYOUTS[name].md5)


def read_folder(name: str, folder: pathlib.Path) -> Dataset:
    """Reads the unpacked folder. No official sums exist for it: the fingerprint is recorded.

    Raises:
      InputError: a file is missing, damaged or not what the official one is.
    """
    layout = LAYOUTS[name]
    missing = [file for file in layout.files if not (folder / file).is_file()]
    if missing:
        raise InputError(
            f"{folder} lacks {', '.join(missing)}: unpack {layout.archive} again, whole"
        )
    parts: dict[str, Any] = {}
    for file in layout.files:
        path = folder / file
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} has {path.stat().st_size} bytes: no official file is so big")
        with path.open("rb") as stream:
            parts[file] = _part(layout, file, stream, where=str(path), size=path.stat().st_size)
    return _assemble(name, parts, source=f"official Python files, folder {layout.folder}")


def read_archive(name: str, path: pathlib.Path, *, md5: str | None) -> Dataset:
    """Reads the official tar.gz in one pass, without writing anything to disk.

    Args:
      name: "cifar10" or "cifar100".
      path: the archive.
      md5: sum that the archive must have (hex); None: any.

    Raises:
      InputError: another sum; cut short; a member that is a link, a device, too
        big, twice there or not one of the official names.
    """
    layout = LAYOUTS[name]
    again = f"get {layout.archive} again from https://www.cs.toronto.edu/~kriz/cifar.html"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 is not None and found != md5:
            raise InputError(f"{path} has md5 {found}, the official archive {md5}: {again}")
        file.seek(0)
        try:
            parts = _members(layout, file, path)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged archive may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} is cut short or no tar.gz ({reason}): {again}") from None
    missing = [file for file in layout.files if file not in parts]
    if missing:
        raise InputError(f"{path} lacks {layout.folder}/{missing[0]}: {again}")
    return _assemble(name, parts, source=f"official archive {layout.archive}, md5 {found}")


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than `_MOST_BYTES` (decompression bombs)."""

    def __init__(self, stream: gzip.GzipFile, path: pathlib.Path):
        self._stream, self._path, self._left = stream, path, _MOST_BYTES

    def read(self, size: int = -1) -> bytes:
        most = self._left + 1
        data = self._stream.read(most if size < 0 else min(size, most))
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"{self._path} unpacks to more than {_MOST_BYTES >> 20} MiB, the official "
                "archive to 186 MB: get the official archive"
            )
        return data


def _members(layout: Layout, file: IO[bytes], path: pathlib.Path) -> dict[str, Any]:
    """Reads the archive's members as they come: file name to `_Batch` or class names."""
    parts: dict[str, Any] = {}
    with (
        gzip.GzipFile(fileobj=file, mode="rb") as unzipped,
        tarfile.open(fileobj=_Bounded(unzipped, path), mode="r|") as tar,
    ):
        for member in tar:
            folder, _, name = member.name.partition("/")
            if member.isdir() and member.name == layout.folder:
                continue
            known = folder == layout.folder and name in (*layout.files, *layout.extra)
            if not member.isreg() or not known or name in parts:
                raise InputError(
                    f"{path} holds {member.name!r}, which is no plain file of the official "
                    f"archive or is there twice: get {layout.archive} again"
                )
            stream = tar.extractfile(member)
            if name in layout.files and stream is not None:
                parts[name] = _part(
                    layout, name, stream, where=f"{path}: {member.name}", size=member.size
                )
    return parts


def _part(layout: Layout, file: str, stream: IO[bytes], *, where: str, size: int) -> Any:
    """Reads one file: a `_Batch`, or the class names."""
    content = load_pickle(stream, where=where, size=size)
    if file == layout.meta:
        return _class_names(layout, content, where)
    return _batch(layout, content, where)


def _batch(layout: Layout, content: Mapping[str, Any], where: str) -> _Batch:
    rows = matrix(content.get("data"), columns=_PIXELS, where=where)
    labels = content.get(layout.labels)
    if not isinstance(labels, list) or len(labels) != len(rows):
        raise InputError(f"{where}: {layout.labels!r} is no list of {len(rows)} labels")
    wrong = next((x for x in labels if type(x) is not int or not 0 <= x < layout.classes), None)
    if wrong is not None:
        raise InputError(
            f"{where}: label {reprlib.repr(wrong)} in {layout.labels!r} must be one of "
            f"0..{layout.classes - 1}"
        )
    planes = rows.reshape(-1, 3, _SIDE, _SIDE)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return _Batch(images, np.array(labels, np.int32))


def _class_names(layout: Layout, content: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = content.get(layout.label_names)
    if (
        not isinstance(names, list)
        or len(names) != layout.classes
        or not all(isinstance(name, bytes | str) for name in names)
    ):
        raise InputError(f"{where}: {layout.label_names!r} is no list of {layout.classes} names")
    return tuple(x.decode("utf-8", "replace") if isinstance(x, bytes) else x for x in names)


def _assemble(name: str, parts: Mapping[str, Any], *, source: str) -> Dataset:
    """Puts the batches together in the official order, whatever order they came in.

    Raises:
      InputError: two of them hold the same images.
    """
    layout, known = LAYOUTS[name], dict[bytes, str]()
    for file in (*layout.train, *layout.test):
        other = known.setdefault(hashlib.sha256(parts[file].images).digest(), file)
        if other != file:  # above all, a test of what was trained on
            raise InputError(
                f"{file} holds the same images as {other}: unpack {layout.archive} again"
            )
    train = [parts[file] for file in layout.train]
    test = [parts[file] for file in layout.test]
    return make_dataset(
        name,
        train_images=np.concatenate([batch.images for batch in train]),
        train_labels=np.concatenate([batch.labels for batch in train]),
        test_images=np.concatenate([batch.images for batch in test]),
        test_labels=np.concatenate([batch.labels for batch in test]),
        class_names=parts[layout.meta],
        source=source,
    )
