"""Accuracy of a member's networks on clean and on corrupted images."""

import collections
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deepmaker_jax.data.corruption import KINDS, SEVERITIES, corrupt, deal
from deepmaker_jax.errors import InputError
from deepmaker_jax.export.digest import digest
from deepmaker_jax.export.model import Model
from deepmaker_jax.export.run import run_tflite
from deepmaker_jax.export.weights import from_bytes
from deepmaker_jax.files import load_json, remove_leftovers, write_document

# Corrupted test images at least: CIFAR-10's 10,000 three times each, a fifth of the work of all
# corruptions of all images.
AT_LEAST = 30_000
SEED = 0  # of the noise: fixed, as test images are the same for every run
PACKAGES = ("deepmaker-jax", "jax", "numpy", "pillow", "scipy", "ai-edge-litert")
Runner = Callable[[np.ndarray], np.ndarray]  # from UInt8[n, h, w, c] to Float32[n, classes]


def measure(
    out: pathlib.Path,
    weights: Mapping[str, pathlib.Path],
    int8: pathlib.Path | None,
    images: np.ndarray,
    labels: np.ndarray,
) -> dict[str, Any]:
    """Measures a member's networks and writes the figures, unless they are there already.

    Args:
      out: the JSON file for the figures.
      weights: {seed: file} of the float networks.
      int8: the TFLite file of one of them, if there is one.
      images: UInt8[n, h, w, c], the test images.
      labels: Int32[n].

    Returns:
      {"id": the name of `out`, "made_from": a sum over all that the figures depend on,
      "images": corrupted ones,
      "networks": {seed or "int8": see `accuracies`}, "files": {name: {"bytes", "sha256"}}
      of the weights that lie beside the figures}.

    Raises:
      InputError: weights that cannot be read.
      StorageError: the figures cannot be written.
    """
    files = {name: path.read_bytes() for name, path in weights.items()}
    if int8 is not None:
        files["int8"] = int8.read_bytes()
    strengths = {name: kind.strengths for name, kind in KINDS.items()}
    made_from = digest(
        *itertools.chain.from_iterable(sorted(files.items())), images, labels,
        strengths, SEVERITIES, AT_LEAST, SEED, packages=PACKAGES,
    )  # fmt: skip
    remove_leftovers(out)
    try:
        known = load_json(out)
        if (known["made_from"], known["id"]) == (made_from, out.stem):
            return known
    except (InputError, KeyError, TypeError):
        pass  # none yet, or damaged
    runners: dict[str, Runner] = {}
    for name, file in files.items():
        if name == "int8":
            runners[name] = lambda pixels, file=file: run_tflite(file, pixels)
        else:
            runners[name] = Model.of(name, *from_bytes(file, str(weights[name]))).logits
    num, networks = accuracies(runners, images, labels)
    beside = {
        path.name: {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
        for name, path in weights.items()
        if path.parent == out.parent
    }
    figures = {"made_from": made_from, "images": num, "networks": networks, "files": beside}
    return write_document(out, {"id": out.stem} | figures)


def accuracies(
    runners: Mapping[str, Runner], images: np.ndarray, labels: np.ndarray
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Returns how many corrupted images were seen, and each network's accuracies.

    Returns:
      (number, {name: {"accuracy": on clean images, "corrupted_accuracy": on the
      corrupted ones of `corruption.deal`, "kinds": {kind: {severity: accuracy}}}});
      a corruption that was dealt no image has none.
    """
    networks = {
        name: {"accuracy": _share(_num_correct(run, images, labels), len(images)), "kinds": {}}
        for name, run in runners.items()
    }
    total, correct = 0, collections.Counter[str]()
    for kind, severity, rows in deal(len(images), at_least=AT_LEAST):
        changed = corrupt(images[rows], kind, severity=severity, seed=SEED)
        total += len(rows)
        for name, run in runners.items():
            right = _num_correct(run, changed, labels[rows])
            correct[name] += right
            severities = networks[name]["kinds"].setdefault(kind, {})
            severities[str(severity)] = _share(right, len(rows))
    for name, figures in networks.items():
        figures["corrupted_accuracy"] = _share(correct[name], total)
    return total, networks


def _num_correct(run: Runner, images: np.ndarray, labels: np.ndarray) -> int:
    return int((run(images).argmax(-1) == labels).sum()) if len(images) else 0


def _share(num: int, of: int) -> float | None:
    return num / of if of else None
