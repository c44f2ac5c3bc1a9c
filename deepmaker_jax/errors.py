"""The one exception that people are meant to read, and others made readable."""

import re
from collections.abc import Callable
from typing import Any


class InputError(ValueError):
    """Bad input: a config value, genome, data file, checkpoint or flag.

    The message is a single line that says what was found (name and value), the
    rule, and the way out. Command lines print it on stderr and exit with code 2.
    """


class MissingToolError(InputError):
    """A package or a program that is not installed; the message says what installs it."""


class StorageError(RuntimeError):
    """A disk that is full, read-only or gone.

    It says nothing about a candidate: it ends the run, which goes on once there is room.
    """


class TimeLimitError(RuntimeError):
    """A candidate has trained longer than it may."""


class UnsupportedError(RuntimeError):
    """What cannot be done for a network though nothing went wrong; the message says why."""


def called(name: str, function: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Returns what a user's own function returns.

    Raises:
      InputError: it raises; `name` says which function that is.
    """
    try:
        return function(*args, **settings)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} raises {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Returns an error as one line that depends on neither time nor place."""
    text = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
    text = re.sub(r"(/[\w.+-]+){2,}", "PATH", text)
    return re.sub(r"\b0x[0-9a-f]+", "ADDRESS", text)[:300]
