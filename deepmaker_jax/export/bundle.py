"""Bundles: a front member's deployable files, each run and compared with JAX."""

import hashlib
import io
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from deepmaker_jax import arch as architecture
from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.errors import InputError, MissingToolError, StorageError, one_line
from deepmaker_jax.export import weights
from deepmaker_jax.export.digest import digest
from deepmaker_jax.export.formats import FORMATS, Format, Material
from deepmaker_jax.export.manifest import (
    MANIFEST,
    REFERENCE,
    REMAKE,
    WEIGHTS,
    Manifest,
    check_sum,
    made_entry,
    missing_entry,
    read_bundle,
    read_manifest,
    write_manifest,
)
from deepmaker_jax.export.model import Model
from deepmaker_jax.export.parity import Expected, compare
from deepmaker_jax.files import remove_leftovers, storing, write_bytes

FILES = (*(format.path for format in FORMATS), REFERENCE)
NUM_REFERENCE_IMAGES = 100
# What writes and runs the files.
PACKAGES = (
    "deepmaker-jax", "jax", "tensorflow", "ai-edge-litert", "tflite", "jax2onnx", "onnx",
    "onnxruntime",
)  # fmt: skip


def export_bundle(
    out: pathlib.Path,
    *,
    id: str,
    arch: ArchSpec,
    variables: dict[str, Any],
    calibration_images: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    calibration_seed: int | None = None,
) -> Manifest:
    """Writes a trained network's bundle and returns its manifest.

    Every file is run on all test images and compared with JAX before the
    manifest names it. A file that cannot be made, or disagrees, is recorded as
    failed with its reason and does not stop the others; one whose maker is not
    installed is unsupported. Equal arguments give equal bytes. A bundle that
    is there already, whole, of the same arguments and by the same versions, is returned as it is.

    Args:
      out: the bundle's folder.
      id: of the candidate.
      arch: its architecture.
      variables: trained, of `Network(layers(arch))`.
      calibration_images: uint8[k, h, w, c], k >= 1, from the training split.
      test_images: uint8[n, h, w, c], n >= 1.
      test_labels: int[n], 0 <= label < classes.
      calibration_seed: what drew the calibration images, for the manifest.

    Raises:
      InputError: weights that are not the architecture's or not finite, or
        images and labels that do not fit.
      StorageError: `out` takes no more; what is there is whole, but no manifest names it yet.
    """
    _check_images(arch, "calibration_images", calibration_images)
    _check_images(arch, "test_images", test_images)
    if test_labels.shape != test_images.shape[:1]:
        raise InputError(
            f"test_labels {list(test_labels.shape)} must be one per test image, "
            f"[{len(test_images)}]"
        )
    weight_bytes = weights.to_bytes(arch, variables)
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, MANIFEST):
        remove_leftovers(out / name)
    made_from = digest(
        weight_bytes, calibration_images, test_images, np.asarray(test_labels, np.int64),
        calibration_seed, packages=PACKAGES,
    )  # fmt: skip
    done = _finished(out, id, made_from)
    if done is not None:
        return done
    model = Model.of(id, arch, variables)
    test = Expected(test_images, test_labels, model.logits(test_images))
    if not np.isfinite(test.logits).all():
        raise InputError(f"model {id} gives logits that are not finite: it cannot be exported")

    material = Material(arch, variables, calibration_images, calibration_seed)
    files, targets = _of_same_weights(out, weight_bytes)
    for format in FORMATS:
        files[format.path] = _attempt(
            out / format.path, lambda f=format: _make(f, out, material, test)
        )
    files[REFERENCE] = _attempt(out / REFERENCE, lambda: _make_reference(out / REFERENCE, test))
    manifest = {
        "id": id,
        "arch": architecture.to_json(arch),
        "input": {
            "shape": [1, *arch.input_shape],
            "dtype": "float32",
            "layout": "NHWC",
            "classes": arch.num_classes,
        },
        "made_from": made_from,
        "targets": targets,
        "files": files,
    }
    return write_manifest(out, manifest)


def load(bundle: str | pathlib.Path) -> Model:
    """Returns a bundle's network with its weights, in JAX.

    Example:
      model = deepmaker_jax.load("runs/r1/models/0123456789ab")
      model.logits(images).argmax(1)  # images: uint8[n, h, w, c]

    Raises:
      InputError: the bundle is missing or damaged.
    """
    path = pathlib.Path(bundle)
    manifest = read_bundle(path)
    if manifest["files"].get(WEIGHTS, {}).get("status") != "ok":
        raise InputError(f"{path / MANIFEST} lists no sound {WEIGHTS}: {REMAKE}")
    arch, variables = weights.load_weights(path / WEIGHTS)
    if arch != architecture.from_json(manifest["arch"]):
        raise InputError(f"{path}: manifest and weights have different architectures")
    return Model.of(manifest["id"], arch, variables)


def _check_images(arch: ArchSpec, name: str, images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != arch.input_shape or len(images) == 0:
        raise InputError(
            f"{name} ({images.dtype}{list(images.shape)}) must be uint8[n, "
            f"{', '.join(map(str, arch.input_shape))}] with n >= 1"
        )


def _finished(out: pathlib.Path, id: str, made_from: str) -> Manifest | None:
    """Returns the manifest of a whole bundle that was made from the same, or None."""
    try:
        manifest = read_bundle(out)
        all_ok = all(manifest["files"][name]["status"] == "ok" for name in FILES)
    except (InputError, KeyError):
        return None
    same = (manifest["id"], manifest.get("made_from")) == (id, made_from)
    return manifest if same and all_ok else None


def _of_same_weights(
    out: pathlib.Path, weight_bytes: bytes
) -> tuple[dict[str, Manifest], dict[str, Any]]:
    """Returns (entries, targets) of what else these weights gave and is whole; removes the rest.

    What was built for a device from other weights is of no use.
    """
    try:
        manifest = read_manifest(out)
    except InputError:
        return {}, {}
    listed = manifest["files"]
    # Not the file's own sum: a training may have written new weights since.
    same = listed.get(WEIGHTS, {}).get("sha256") == hashlib.sha256(weight_bytes).hexdigest()
    kept: dict[str, Manifest] = {}
    for name in sorted(listed.keys() - set(FILES)):
        try:
            if listed[name].get("sha256") is not None:
                check_sum(out / name, listed[name])
            whole = same
        except InputError:
            whole = False
        if whole:
            kept[name] = listed[name]
        elif (out / name).is_dir():  # of a backend that failed as a whole
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    return kept, manifest.get("targets", {}) if same else {}


def _attempt(path: pathlib.Path, make: Callable[[], Manifest]) -> Manifest:
    """Returns the file's entry; of a file that could not be made, the status and the reason."""
    try:
        with storing(path):  # converters write too, in temporary files
            return make()
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a converter raises is this file's alone
        if path.name != WEIGHTS:  # they cost a training
            path.unlink(missing_ok=True)
        if isinstance(error, MissingToolError):
            return missing_entry("unsupported", str(error))
        return missing_entry("failed", one_line(error))


def _make(format: Format, out: pathlib.Path, material: Material, test: Expected) -> Manifest:
    """Writes a file, runs it on all test images and returns its entry."""
    path, data = out / format.path, format.make(material)
    if not (path.is_file() and path.read_bytes() == data):
        write_bytes(path, data)
    entry = made_entry(path, tool=format.tool()) | format.describe(data, material)
    logits = format.run(data, test.images, material.arch)
    entry["parity"], entry["accuracy"], broken = compare(logits, test, format.rule)
    if broken is not None:
        entry |= {"status": "failed", "reason": broken}
    return entry


def _make_reference(path: pathlib.Path, test: Expected) -> Manifest:
    """Writes an .npz file of the first test images, their labels and JAX's logits."""
    part = slice(NUM_REFERENCE_IMAGES)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=test.images[part],
        labels=test.labels[part].astype(np.int32),
        logits=test.logits[part],
    )
    write_bytes(path, buffer.getvalue())
    return made_entry(path, tool=f"numpy {np.__version__}")
