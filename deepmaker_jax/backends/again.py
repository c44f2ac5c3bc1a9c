"""Runs one file of a device's folder: `python -m deepmaker_jax.backends.again BUNDLE PATH LOGITS`.

In a process of its own, which native code of a bundle from elsewhere may end.
"""

import pathlib
import sys
import tempfile

import numpy as np

from deepmaker_jax.backends import BACKENDS, tool
from deepmaker_jax.backends.worker import read_member
from deepmaker_jax.errors import MissingToolError, UnsupportedError

LIMIT_SECONDS = 1800.0


def runs(path: str) -> bool:
    """Whether a path in a bundle is a network that a backend makes and runs."""
    backend = BACKENDS.get(path.partition("/")[0])
    return backend is not None and path in backend.runs


def run(bundle: pathlib.Path, path: str) -> np.ndarray:
    """Returns the logits of a file, Float32[k, classes], for the first k reference images.

    Args:
      bundle: a whole one.
      path: of the file in it, one that `runs`.

    Raises:
      UnsupportedError: it cannot be run here; what it needs.
      RuntimeError: it failed, or ended its process.
    """
    with tempfile.TemporaryDirectory(prefix="deepmaker-") as folder:
        logits = pathlib.Path(folder) / "logits.npy"
        module = "deepmaker_jax.backends.again"
        said, _ = tool.run(
            [sys.executable, "-m", module, bundle.absolute(), path, logits],
            timeout_seconds=LIMIT_SECONDS,
        )
        if not logits.exists():
            raise UnsupportedError(said.strip().rpartition("\n")[2] or "it says nothing")
        return np.load(logits)


def main(bundle: str, path: str, logits: str) -> None:
    """Writes a file's logits, or prints what is missing here to run it."""
    try:
        found = BACKENDS[path.partition("/")[0]].runs[path](read_member(pathlib.Path(bundle)))
    except (MissingToolError, UnsupportedError) as problem:
        print(problem)
    else:
        np.save(logits, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
