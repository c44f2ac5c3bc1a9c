"""Holding back what native libraries write to the terminal."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back standard error while the block runs; prints it if the block fails.

    TensorFlow's C++ code logs to file descriptor 2 before its own log level is
    read, so that no environment variable silences it.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        original = os.dup(2)
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            if failed:
                held.seek(0)
                sys.stderr.write(held.read().decode(errors="replace"))
