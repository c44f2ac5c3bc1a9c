"""IREE's runtime for the emulated Arm: `python -m deepmaker_jax.backends` fetches it.

It is the same release as this machine's, from the same index, for another processor.
"""

import importlib.metadata
import os
import pathlib
import re
import shutil
import sys
import tempfile
import zipfile

from deepmaker_jax.backends import iree, tool
from deepmaker_jax.backends.backend import Tool

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
PLACE = CACHE / "deepmaker-jax" / "iree-aarch64"
COMMAND = "python -m deepmaker_jax.backends"


def runtime() -> Tool:
    """Returns the runtime; missing if it is of another release than this machine's."""
    names = [path.name for path in PLACE.glob("iree_base_runtime-*.dist-info")]
    found = re.match(r"iree_base_runtime-(.+)\.dist-info", names[0]) if names else None
    here = found is not None and runner().exists() and found[1] == iree.runtime().version
    return Tool("aarch64 IREE runtime", found[1] if found and here else None, COMMAND)


def runner() -> pathlib.Path:
    """Returns where the program is that runs a module."""
    return PLACE / "iree" / "_runtime_libs" / "iree-run-module"


def fetch() -> None:
    """Downloads and unpacks the runtime, unless it is there.

    Raises:
      MissingToolError: this machine has no IREE, whose release would be taken.
      RuntimeError: pip could not download it.
    """
    tool.need(iree.runtime())
    if runtime().version is not None:
        return
    version = importlib.metadata.version("iree-base-runtime")
    with tempfile.TemporaryDirectory() as folder:
        tool.run([
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
            "--only-binary=:all:", "--python-version", "3.11",
            "--platform", "manylinux_2_28_aarch64", "--dest", folder,
            f"iree-base-runtime=={version}",
        ])  # fmt: skip
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        shutil.rmtree(PLACE, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(PLACE)
    runner().chmod(0o755)
