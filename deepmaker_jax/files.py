"""Files that are whole or absent, and JSON that is strict and carries its own sum."""

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from deepmaker_jax.errors import InputError, StorageError

SUM = "sum"  # the key of a document's own checksum
# What a file system says that takes no more, whatever is asked of it.
REFUSALS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ESTALE,
)  # fmt: skip

IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)  # a folder, or none

MOST_NESTED = 64  # far more than any document of ours, far less than Python's stack


def _finite(value: Any) -> Any:
    """Replaces NaN and infinities by None, all the way down: strict JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def dump_json(value: Any, *, indent: int | None = None) -> str:
    """Returns strict JSON with sorted keys; NaN and infinities become null."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(
        _finite(value), sort_keys=True, indent=indent, separators=separators, allow_nan=False
    )


def checksum(document: dict[str, Any]) -> str:
    """Returns 16 hex digits of SHA-256 over a document without its sum, as strict JSON."""
    rest = {key: value for key, value in document.items() if key != SUM}
    return hashlib.sha256(dump_json(rest).encode()).hexdigest()[:16]


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a strict JSON document.

    Raises:
      ValueError: it is not JSON, has NaN or an infinity, or is nested deeper than
        whatever walks it could follow.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_NESTED} levels") from None
    level = [value]
    for _ in range(MOST_NESTED):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return value
    raise ValueError(f"nested deeper than {MOST_NESTED} levels")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def load_json(
    path: pathlib.Path,
    *,
    remedy: str = "restore or remove it",
    sum_of: Callable[[dict[str, Any]], str] = checksum,
) -> Any:
    """Reads a JSON file.

    Args:
      path: of the file.
      remedy: what to do if it cannot be read.
      sum_of: what its sum is, if it has one.

    Raises:
      InputError: it is missing, damaged, or does not match its own sum, if it has one.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path} is no plain file: move it away, then {remedy}")
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # a file may stand in its folder's place
        raise InputError(f"{path} is missing: {remedy}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): {remedy}") from None
    if isinstance(value, dict) and SUM in value and value[SUM] != sum_of(value):
        raise InputError(
            f"{path} does not match its own {SUM}: {remedy}, or if it was changed on purpose "
            f"remove its {SUM}"
        )
    return value


def is_inside(name: Any) -> bool:
    """Whether a path that a file names stays below the folder that it is relative to."""
    if not isinstance(name, str) or not name.isprintable() or "\\" in name:
        return False
    path = pathlib.PurePosixPath(name)
    possible = all(len(part.encode()) <= 255 for part in path.parts) and len(name) <= 1024
    return possible and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


@contextlib.contextmanager
def storing(path: pathlib.Path, *more: int) -> Iterator[None]:
    """Turns what a file system refuses while `path` is written into a StorageError.

    Args:
      path: in the message.
      *more: error numbers that are refusals here.
    """
    try:
        yield
    except OSError as error:
        if error.errno in IN_THE_WAY:
            raise StorageError(f"{path} cannot be written: {_occupied(path)}") from None
        if error.errno not in (*REFUSALS, *more):
            raise
        gone = error.errno == errno.ENOENT
        reason = "its folder is gone" if gone else os.strerror(error.errno)
        raise StorageError(f"{path} cannot be written ({reason})") from None


def _occupied(path: pathlib.Path) -> str:
    place = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    kind = "link" if place.is_symlink() else "folder" if place.is_dir() else "file"
    return f"{place} is a {kind}: move it away"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` and moves it there when the block succeeds.

    The data are on disk before the name changes, so a reader sees the old file
    or the new one, whole. The file's folder is made, but not the one above: a run
    whose folder was removed must not bring parts of it back.

    Raises:
      StorageError: the file system takes no more.
    """
    with storing(path, errno.ENOENT):
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        with storing(path):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            # mkstemp gives 0600; a result is as readable as any other new file.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # what went wrong before is what counts
            temporary.unlink()


def sync_folder(folder: pathlib.Path) -> None:
    """Brings a folder's names to the disk: without that, a power cut may take a new file's."""
    if os.name == "nt":  # its folders cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(path: pathlib.Path) -> None:
    """Removes what `replacing(path)` left behind in a process that was killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        left.unlink(missing_ok=True)


def lock(file: IO[Any], folder: pathlib.Path) -> bool:
    """Holds a folder for this process by an open file of it, until the file is closed.

    The system lets go of it when the process ends, however it does. Returns whether it
    holds: not every file system knows locks.

    Raises:
      InputError: another process holds it.
    """
    if fcntl is None:  # not on Windows
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder} is in use by another process: wait for it") from None
    except OSError:
        return False
    return True


def is_held(path: pathlib.Path) -> bool:
    """Whether another process holds a folder by this file of it, as far as can be told."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            lock(file, path.parent)
    except InputError:
        return True
    except OSError:
        return False
    return False


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_document(
    path: pathlib.Path,
    document: dict[str, Any],
    *,
    sum_of: Callable[[dict[str, Any]], str] = checksum,
) -> dict[str, Any]:
    """Writes a JSON object with its own sum, by which a flipped bit is noticed; returns it."""
    document = document | {SUM: sum_of(document)}
    write_json(path, document)
    return document


@runtime_checkable
class Files(Protocol):
    """What reads and writes a training's files, wherever they are kept; raises OSError."""

    def read(self, path: pathlib.Path) -> bytes:
        """Returns a file's bytes."""
        ...

    def write(self, path: pathlib.Path, data: bytes) -> None:
        """Writes a file, whole or not at all."""
        ...


class OnDisk:
    """The files of this machine."""

    def read(self, path: pathlib.Path) -> bytes:
        """Returns a file's bytes."""
        return path.read_bytes()

    def write(self, path: pathlib.Path, data: bytes) -> None:
        """Writes a file atomically."""
        write_bytes(path, data)


ON_DISK = OnDisk()


class InMemory:
    """Files of another machine: those that came along can be read, what is written is kept."""

    def __init__(self, given: Mapping[pathlib.Path, bytes]):
        self._given = given
        self._written: dict[pathlib.Path, bytes] = {}

    def read(self, path: pathlib.Path) -> bytes:
        """Returns the bytes of a file that came along."""
        if path not in self._given:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self._given[path]

    def write(self, path: pathlib.Path, data: bytes) -> None:
        """Keeps a file's bytes until they are taken."""
        self._written[path] = data

    def take(self) -> dict[pathlib.Path, bytes]:
        """Returns what was written since the last time, whichever thread wrote it."""
        return {path: self._written.pop(path) for path in list(self._written)}


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes strict, indented JSON atomically."""
    write_bytes(path, (dump_json(value, indent=1) + "\n").encode())


def save_arrays(folder: pathlib.Path, **arrays: np.ndarray) -> None:
    """Writes arrays for other processes, each as NAME.npy."""
    for name, value in arrays.items():
        with replacing(folder / f"{name}.npy") as path, open(path, "wb") as file:
            np.save(file, value)


def load_arrays(folder: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Returns what `save_arrays` wrote, by memory map."""
    paths = pathlib.Path(folder).glob("*.npy")
    return {path.stem: np.load(path, mmap_mode="r") for path in paths}


def sha256(path: pathlib.Path) -> str:
    """Returns a file's SHA-256 as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
