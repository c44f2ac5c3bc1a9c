"""IREE's runtime for the emulated Arm: fetched by one command, of the compiler's release."""

import pathlib
import zipfile

import pytest

from deepmaker_jax.backends import aarch64, iree, tool

VERSION = iree.runtime().version


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(aarch64, "PLACE", tmp_path / "iree")
    return tmp_path / "iree"


def unpacked(place, version):
    (place / f"iree_base_runtime-{version}.dist-info").mkdir(parents=True)
    runner = aarch64.runner()
    runner.parent.mkdir(parents=True)
    runner.write_bytes(b"")


@pytest.mark.parametrize(("version", "found"), [(VERSION, VERSION), ("0.0.1", None)])
def test_a_runtime_of_another_release_is_missing(place, version, found):
    assert aarch64.runtime().version is None
    unpacked(place, version)
    assert aarch64.runtime().version == found
    assert aarch64.runtime().install == "python -m deepmaker_jax.backends"


def test_the_runtime_is_fetched_once(place, monkeypatch):
    asked = []

    def run(command):
        asked.append(command[-1])
        folder = pathlib.Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "iree.whl", "w") as wheel:
            wheel.writestr(f"iree_base_runtime-{VERSION}.dist-info/METADATA", "")
            wheel.writestr("iree/_runtime_libs/iree-run-module", "#!/bin/sh")

    unpacked(place, "0.0.1")
    monkeypatch.setattr(tool, "run", run)
    aarch64.fetch()
    aarch64.fetch()
    assert asked == [f"iree-base-runtime=={VERSION}"]
    assert aarch64.runtime().version == VERSION
    assert aarch64.runner().stat().st_mode & 0o111
