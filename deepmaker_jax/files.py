"""Files that are whole or absent, and JSON that is strict."""

import contextlib
import glob
import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from deepmaker_jax.errors import InputError

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


def load_json(path: pathlib.Path) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: it is missing or damaged.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no plain file")
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: name a run folder that an experiment wrote") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): restore or remove it") from None


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` and moves it there when the block succeeds.

    The data are on disk before the name changes, so a reader sees the old file
    or the new one, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp gives 0600; a result is as readable as any other new file.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: pathlib.Path) -> None:
    """Removes what `replacing(path)` left behind in a process that was killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        left.unlink(missing_ok=True)


def lock(file: IO[Any], folder: pathlib.Path) -> None:
    """Holds a folder for this process by an open file of it, until the file is closed.

    The system lets go of it when the process ends, however it does.

    Raises:
      InputError: another process holds it.
    """
    if fcntl is None:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder} is in use by another process: wait for it") from None
    except OSError:
        return  # a file system that knows no locks


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes strict, indented JSON atomically."""
    write_bytes(path, (dump_json(value, indent=1) + "\n").encode())


def sha256(path: pathlib.Path) -> str:
    """Returns a file's SHA-256 as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
