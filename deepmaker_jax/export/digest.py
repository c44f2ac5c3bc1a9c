"""What a file was made from, as one sum: equal sums mean that it need not be made again."""

import hashlib
from collections.abc import Sequence

import numpy as np

from deepmaker_jax.machine import version_of

Part = bytes | np.ndarray | str | int | float | tuple | dict | None


def digest(*parts: Part, packages: Sequence[str]) -> str:
    """Returns the SHA-256, in hex, of all that a file depends on.

    Args:
      parts: in an order that is always the same; other than bytes and arrays, by their `repr`.
      packages: distributions, whose installed versions count.
    """
    found = hashlib.sha256()
    for part in (*parts, tuple(map(version_of, packages))):
        if isinstance(part, np.ndarray):
            header, data = f"{part.dtype}{part.shape}", np.ascontiguousarray(part).data
        elif isinstance(part, bytes):
            header, data = f"{len(part)} bytes", part
        else:
            header, data = repr(part), b""
        found.update(f"{header};".encode())  # where one part ends and the next begins
        found.update(data)
    return found.hexdigest()
