"""Data sets that TensorFlow Datasets prepared or downloads.

TFDS, and TensorFlow if the files need it, are imported in a child process only:
a training process never holds them. The child (`python -m
deepmaker_jax.data.tfds_source NAME OUT [FOLDER]`) writes plain arrays or one
line of error into OUT.
"""

import importlib.resources.abc
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from types import ModuleType
from typing import Any

import numpy as np

from deepmaker_jax.data.dataset import Dataset, make_dataset
from deepmaker_jax.errors import InputError

_INSTALL = "pip install 'deepmaker-jax[tfds]'"
_REACH_SECONDS = 20
_ERROR, _INFO = "error.txt", "info.json"


def find(name: str, path: pathlib.Path) -> pathlib.Path | None:
    """Returns the newest prepared version `NAME/VERSION` of a TFDS data_dir, or None.

    Args:
      name: the TFDS name, "cifar10".
      path: the data_dir, its folder NAME, or the version's folder itself.
    """
    path = path.absolute()
    folders = [*(path / name).glob("*")]
    if path.name == name:
        folders += path.glob("*")
    if path.parent.name == name:
        folders.append(path)
    prepared = [
        folder
        for folder in folders
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and (folder / "dataset_info.json").is_file()
    ]
    return max(prepared, key=lambda x: [int(i) for i in x.name.split(".")], default=None)


def looked_for(name: str) -> str:
    """Says what `find` takes."""
    return f"{name}/VERSION/dataset_info.json (TFDS)"


def to_download() -> str:
    """Says what makes `read` download."""
    install = "" if _is_installed() else f"{_INSTALL} and "
    return f"{install}leave --data out to download"


def _is_installed() -> bool:
    return importlib.util.find_spec("tensorflow_datasets") is not None


def read(name: str, *, folder: pathlib.Path | None) -> Dataset:
    """Reads a prepared folder, or what TFDS has or downloads in its own data_dir.

    Args:
      name: the TFDS name; its features must be `image` and `label`.
      folder: what `find` returned; None: TFDS's data_dir, downloading if needed.

    Raises:
      InputError: TFDS or TensorFlow is not installed; no network; a damaged folder.
    """
    if not _is_installed():
        raise InputError(
            f"{name} through TFDS needs the package tensorflow_datasets: {_INSTALL}, "
            "or give the folder of official files"
        )
    with tempfile.TemporaryDirectory(prefix="deepmaker-tfds-") as out:
        _run_child(name, pathlib.Path(out), folder)
        info = json.loads((pathlib.Path(out) / _INFO).read_text(encoding="utf-8"))
        arrays = {file.stem: np.load(file) for file in pathlib.Path(out).glob("*.npy")}
    return make_dataset(name, **arrays, class_names=info["class_names"], source=info["source"])


def _run_child(name: str, out: pathlib.Path, folder: pathlib.Path | None) -> None:
    """Runs this module in a Python of its own, without a GPU and without chatter."""
    command = [sys.executable, "-m", __name__, name, str(out)]
    command += [] if folder is None else [str(folder)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if child.returncode == 0:
        return
    error = out / _ERROR
    if error.is_file():
        raise InputError(error.read_text(encoding="utf-8"))
    last = (child.stderr.strip().splitlines() or ["no message"])[-1]
    raise InputError(
        f"{name} through TFDS failed (exit code {child.returncode}, {last}): "
        "give the folder of official files"
    )


def import_tfds() -> ModuleType:
    """Imports TFDS; for child processes only.

    TFDS 4.9.10 imports `importlib_resources`, which nothing installs since etils
    1.15; the standard library has the same module under another name.
    """
    if importlib.util.find_spec("importlib_resources") is None:
        sys.modules["importlib_resources"] = importlib.resources
    import tensorflow_datasets as tfds

    return tfds


def _builder(name: str, folder: pathlib.Path | None) -> Any:
    """Returns a prepared builder, downloading only where no folder was named."""
    tfds = import_tfds()
    tfds.disable_progress_bar()
    if folder is not None:
        return tfds.builder_from_directory(folder)
    builder = tfds.builder(name)
    if not builder.is_prepared():
        try:
            _reach(builder)
            builder.download_and_prepare()
        except Exception as error:  # noqa: BLE001 - requests, TensorFlow and TFDS each have their own
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InputError(
                f"TFDS could not download {name} ({reason}): it needs the network; without one "
                "give --data the folder of official files or a prepared TFDS data_dir"
            ) from None
    return builder


def _reach(builder: Any) -> None:
    """Fails within seconds where there is no network; TFDS itself retries for many minutes."""
    import requests

    url = next(iter(builder.url_infos))
    with requests.get(url, stream=True, timeout=_REACH_SECONDS) as response:
        response.raise_for_status()


def _split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns UInt8[n, h, w, c] and the labels, in the order of the files."""
    tfds = import_tfds()
    if builder.info.file_format in tfds.core.file_adapters.FileFormat.with_random_access():
        source = builder.as_data_source(split=split)  # needs no TensorFlow
        rows = [source[i] for i in range(len(source))]
        return np.stack([row["image"] for row in rows]), np.array([row["label"] for row in rows])
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"{builder.info.full_name} is stored as {builder.info.file_format.value}, which "
            f"needs TensorFlow: {_INSTALL}"
        )
    examples = builder.as_dataset(
        split=split,
        batch_size=-1,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding({"image": True, "label": True}),
    )
    examples = tfds.as_numpy(examples)
    return examples["image"], examples["label"]


def _write(name: str, out: pathlib.Path, folder: pathlib.Path | None) -> None:
    """The child's work: arrays as .npy, and what they are as JSON."""
    builder = _builder(name, folder)
    features = builder.info.features or {}
    lacking = {"image", "label"} - set(features) or {"train"} - set(builder.info.splits)
    if lacking:
        raise InputError(f"{builder.info.full_name} has no {sorted(lacking)[0]}: prepare it again")
    for split in ("train", "test"):
        if split in builder.info.splits:
            images, labels = _split(builder, split)
            np.save(out / f"{split}_images.npy", images)
            np.save(out / f"{split}_labels.npy", labels)
    info = {"class_names": features["label"].names, "source": f"TFDS {builder.info.full_name}"}
    (out / _INFO).write_text(json.dumps(info), encoding="utf-8")


def _main(name: str, out: str, folder: str | None = None) -> int:
    try:
        _write(name, pathlib.Path(out), None if folder is None else pathlib.Path(folder))
    except Exception as error:  # noqa: BLE001 - it becomes the parent's one line
        text = str(error)
        if not isinstance(error, InputError):
            reason = f"{type(error).__name__}: {' '.join(text.split())[:200]}"
            text = (
                f"{folder or name} cannot be read through TFDS ({reason}): "
                "prepare it again, or give the folder of official files"
            )
        (pathlib.Path(out) / _ERROR).write_text(text, encoding="utf-8")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
