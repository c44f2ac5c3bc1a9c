"""Bundles: a front member's deployable files, each run and compared with JAX."""

import io
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax import arch as architecture
from deepmaker_jax import cost
from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.errors import InputError, one_line
from deepmaker_jax.export import tflite, weights
from deepmaker_jax.export.model import Model
from deepmaker_jax.export.run import run_tflite
from deepmaker_jax.files import load_json, remove_leftovers, sha256, write_bytes, write_json

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
FLOAT32 = "model_f32.tflite"
INT8 = "model_int8.tflite"
REFERENCE = "reference.npz"
FILES = (WEIGHTS, FLOAT32, INT8, REFERENCE)
STATUSES = ("ok", "unsupported", "failed")
ENTRY_KEYS = (
    "status", "reason", "bytes", "sha256", "tool", "parity", "accuracy", "cost",
)  # fmt: skip
NUM_REFERENCE_IMAGES = 100
# Of the range of JAX's logits on the test images: float32 leaves about 1e-6.
FLOAT32_TOLERANCE = 1e-3
Manifest = dict[str, Any]


class Expected(NamedTuple):
    """What each file is run on, and what JAX says.

    Attributes:
      images: uint8[n, h, w, c].
      labels: int[n].
      logits: Float32[n, classes], of the plain unfolded network.
    """

    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


def export_bundle(
    out: pathlib.Path,
    *,
    id: str,
    arch: ArchSpec,
    variables: dict[str, Any],
    calibration_images: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
) -> Manifest:
    """Writes a trained network's bundle and returns its manifest.

    Every file is run on all test images and compared with JAX before the
    manifest names it. A file that cannot be made, or disagrees, is recorded as
    failed with its reason and does not stop the others; without TensorFlow the
    TFLite files are unsupported. Equal arguments give equal bytes. A bundle that
    is there already, whole and of these weights and images, is returned as it is.

    Args:
      out: the bundle's folder.
      id: of the candidate.
      arch: its architecture.
      variables: trained, of `Network(layers(arch))`.
      calibration_images: uint8[k, h, w, c], k >= 1, from the training split.
      test_images: uint8[n, h, w, c], n >= 1.
      test_labels: int[n], 0 <= label < classes.

    Raises:
      InputError: weights that are not the architecture's or not finite, or
        images and labels that do not fit.
    """
    _check_images(arch, "calibration_images", calibration_images)
    _check_images(arch, "test_images", test_images)
    if test_labels.shape != test_images.shape[:1]:
        raise InputError(
            f"test_labels {list(test_labels.shape)} must be one per test image, "
            f"[{len(test_images)}]"
        )
    weight_bytes = weights.to_bytes(arch, variables)
    for name in (*FILES, MANIFEST):
        remove_leftovers(out / name)
    done = _finished(out, id, weight_bytes, test_images, test_labels)
    if done is not None:
        return done
    model = Model.of(id, arch, variables)
    test = Expected(test_images, test_labels, model.logits(test_images))
    if not np.isfinite(test.logits).all():
        raise InputError(f"model {id} gives logits that are not finite: it cannot be exported")

    def make_weights() -> Manifest:
        if not _holds(out / WEIGHTS, weight_bytes):
            write_bytes(out / WEIGHTS, weight_bytes)
        again = Model.of(id, *weights.load_weights(out / WEIGHTS))
        return _entry(
            out / WEIGHTS, tool=weights.FORMAT, logits=again.logits(test.images), test=test,
            tolerance=0.0,
        )  # fmt: skip

    def make_float32() -> Manifest:
        file = tflite.to_tflite(arch, variables)
        write_bytes(out / FLOAT32, file)
        return _tflite_entry(out / FLOAT32, arch, test, tolerance=FLOAT32_TOLERANCE)

    def make_int8() -> Manifest:
        file = tflite.to_tflite_int8(arch, variables, calibration_images)
        write_bytes(out / INT8, file)
        return _tflite_entry(out / INT8, arch, test)

    def make_reference() -> Manifest:
        write_bytes(out / REFERENCE, _reference(test))
        return _entry(out / REFERENCE, tool=f"numpy {np.__version__}")

    makers = (make_weights, make_float32, make_int8, make_reference)
    manifest = {
        "id": id,
        "arch": architecture.to_json(arch),
        "input": {
            "shape": [1, *arch.input_shape],
            "dtype": "float32",
            "layout": "NHWC",
            "classes": arch.num_classes,
        },
        "files": {
            name: _attempt(out / name, make) for name, make in zip(FILES, makers, strict=True)
        },
    }
    write_json(out / MANIFEST, manifest)
    return manifest


def read_bundle(path: pathlib.Path) -> Manifest:
    """Returns a bundle's manifest after comparing every file with it.

    Raises:
      InputError: the manifest is missing, damaged or not a manifest, or a file
        is missing or does not match its sum.
    """
    source = path / MANIFEST
    manifest = load_json(source)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not isinstance(manifest.get("id"), str):
        raise InputError(f"{source} is not a bundle's manifest: export it again")
    architecture.from_json(manifest.get("arch"))
    for name, entry in files.items():
        inside = pathlib.PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise InputError(f"{source} names {name!r}, which is outside of the bundle")
        if not isinstance(entry, dict) or entry.get("status") not in STATUSES:
            raise InputError(f"{source}: {name} has no status: export it again")
        if entry["status"] == "ok" or entry.get("sha256") is not None:
            _check_sum(path / name, entry)
    return manifest


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
        raise InputError(f"{path / MANIFEST} lists no sound {WEIGHTS}: export it again")
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


def _check_sum(path: pathlib.Path, entry: Manifest) -> None:
    try:
        same = sha256(path) == entry.get("sha256") and path.stat().st_size == entry.get("bytes")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): export it again") from None
    if not same:
        raise InputError(f"{path} does not match its sum in {MANIFEST}: export it again")


def _finished(
    out: pathlib.Path, id: str, weight_bytes: bytes, images: np.ndarray, labels: np.ndarray
) -> Manifest | None:
    """Returns the manifest of a whole bundle of these weights and images, or None."""
    try:
        manifest = read_bundle(out)
        entries = [manifest["files"][name] for name in FILES]
        with np.load(out / REFERENCE) as reference:
            same = (
                manifest["id"] == id
                and all(entry["status"] == "ok" for entry in entries)
                and (out / WEIGHTS).read_bytes() == weight_bytes
                and np.array_equal(reference["images"], images[:NUM_REFERENCE_IMAGES])
                and np.array_equal(reference["labels"], labels[:NUM_REFERENCE_IMAGES])
            )
    except (InputError, KeyError, OSError):
        return None
    return manifest if same else None


def _holds(path: pathlib.Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _attempt(path: pathlib.Path, make: Callable[[], Manifest]) -> Manifest:
    """Returns the file's entry; of a file that could not be made, the status and the reason."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - whatever a converter raises is this file's alone
        if path.name != WEIGHTS:  # they cost a training
            path.unlink(missing_ok=True)
        missing_tool = isinstance(error, InputError) and "pip install" in str(error)
        entry: Manifest = dict.fromkeys(ENTRY_KEYS)
        entry["status"] = "unsupported" if missing_tool else "failed"
        entry["reason"] = one_line(error)
        return entry


def _tflite_entry(
    path: pathlib.Path, arch: ArchSpec, test: Expected, *, tolerance: float | None = None
) -> Manifest:
    model = path.read_bytes()
    entry = _entry(
        path, tool=tflite.tool_version(), logits=run_tflite(model, test.images), test=test,
        tolerance=tolerance,
    )  # fmt: skip
    names = tflite.operators(model)
    entry["cost"] = {
        "flash_bytes": {"value": len(model), "unit": "bytes", "how": "size of the file"},
        "operators": {"value": len(names), "unit": "operators", "how": "counted in the file"},
    }
    if path.name == INT8:
        estimate = cost.flash_bytes(layers(arch))
        peak = cost.cost(arch).peak_activation_bytes
        entry["cost"] |= {
            "flash_bytes_estimate": {"value": estimate, "unit": "bytes", "how": "cost model"},
            "peak_activation_bytes": {"value": peak, "unit": "bytes", "how": "cost model"},
            "quantize_operators": {
                "value": names.count("QUANTIZE"),
                "unit": "operators",
                "how": "counted in the file",
            },
        }
    return entry


def _entry(
    path: pathlib.Path,
    *,
    tool: str,
    logits: np.ndarray | None = None,
    test: Expected | None = None,
    tolerance: float | None = None,
) -> Manifest:
    """Returns the manifest's entry of a file that exists.

    Args:
      path: of the file.
      tool: its maker and version.
      logits: Float32[n, classes], what the file gives for the test images.
      test: what to compare them with.
      tolerance: largest error allowed, as a part of the range of JAX's logits;
        None for any finite one (int8).
    """
    entry: Manifest = dict.fromkeys(ENTRY_KEYS)
    entry |= {"status": "ok", "bytes": path.stat().st_size, "sha256": sha256(path), "tool": tool}
    if logits is None or test is None:
        return entry
    error = float(np.max(np.abs(logits - test.logits)))
    scale = float(np.ptp(test.logits))
    chosen = logits.argmax(1)
    entry["parity"] = {
        "max_abs_error": error,
        "top1_agreement": float(np.mean(chosen == test.logits.argmax(1))),
        "images": len(test.images),
    }
    entry["accuracy"] = float(np.mean(chosen == test.labels))
    if not np.isfinite(error) or (tolerance is not None and error > tolerance * scale):
        entry["status"] = "failed"
        entry["reason"] = (
            f"logits differ from JAX's by {error:.3g}: more than {tolerance} of their range, "
            f"{scale:.3g}"
        )
    return entry


def _reference(test: Expected) -> bytes:
    """Returns an .npz file of the first test images, their labels and JAX's logits."""
    part = slice(NUM_REFERENCE_IMAGES)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=test.images[part],
        labels=test.labels[part].astype(np.int32),
        logits=test.logits[part],
    )
    return buffer.getvalue()
