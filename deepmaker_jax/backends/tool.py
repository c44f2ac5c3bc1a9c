"""External tools: found, and run with a time limit."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from deepmaker_jax.backends.backend import Tool
from deepmaker_jax.errors import MissingToolError
from deepmaker_jax.machine import version_of

EXTRA = "pip install 'deepmaker-jax[targets]'"
EXPORT = "pip install 'deepmaker-jax[export]'"
TIMEOUT_SECONDS, VERSION_SECONDS = 600.0, 60.0


def package(name: str, *, install: str = EXTRA) -> Tool:
    """Returns a Python package as a tool."""
    return Tool(name, version_of(name), install)


def litert() -> Tool:
    """Returns LiteRT, which runs TFLite files."""
    return package("ai-edge-litert", install=EXPORT)


def program(name: str, *, install: str) -> Tool:
    """Returns a program of the system or of this environment as a tool."""
    path = find_program(name)
    return Tool(name, path and _version(path), install)


@functools.cache
def _version(path: str) -> str | None:
    """Returns what `PATH --version` says; None for what does not run: it is as good as absent."""
    try:
        said, _ = run([path, "--version"], timeout_seconds=VERSION_SECONDS)
    except RuntimeError:
        return None
    found = re.search(r"\d+\.\d+[\w.+~-]*", said)
    return found[0] if found else None


def find_program(name: str) -> str | None:
    """Returns where a program is, those beside this Python first."""
    beside = pathlib.Path(sys.executable).parent / name
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(name)


def need(*tools: Tool) -> str:
    """Returns the tools' names and versions.

    Raises:
      MissingToolError: one is not here.
    """
    for tool in tools:
        if tool.version is None:
            raise MissingToolError(f"{tool.name} is not installed: {tool.install}")
    return ", ".join(f"{tool.name} {tool.version}" for tool in tools)


def label(*tools: Tool) -> str:
    """Returns what the manifest calls the tools, also those that are missing."""
    return ", ".join(f"{tool.name} {tool.version}" if tool.version else tool.name for tool in tools)


def run(
    command: Sequence[str | pathlib.Path],
    *,
    folder: pathlib.Path | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> tuple[str, str]:
    """Runs a program and returns its (stdout, stderr).

    What a program that took too long had started itself ends with the backend's own process.

    Raises:
      RuntimeError: it cannot be started, failed, or took longer than the limit.
    """
    words = [str(word) for word in command]
    name = pathlib.Path(words[0]).name
    try:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, errors="replace",
            timeout=timeout_seconds, check=False,
        )  # fmt: skip
    except OSError as error:
        raise RuntimeError(f"{name} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{name} took longer than {timeout_seconds:.0f} s") from None
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {_gist(done.stderr)}")
    return done.stdout, done.stderr


def _gist(text: str) -> str:
    """Returns the line that says what went wrong: the first error, else the last words."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or ["no message"])[0]
