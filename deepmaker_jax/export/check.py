"""Checking bundles anywhere: sums, and what can be run again, without JAX or the data."""

import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from deepmaker_jax.errors import InputError, MissingToolError, UnsupportedError, one_line
from deepmaker_jax.export.manifest import (
    MANIFEST,
    REFERENCE,
    REMAKE,
    Manifest,
    check_sum,
    present,
    read_manifest,
)
from deepmaker_jax.export.parity import QUANTISED, RULES, Expected, Rule, compare
from deepmaker_jax.export.run import run_onnx, run_tflite

# Kernels of another processor round quantised sums otherwise. An allowance, not a measurement: of
# the range of the logits, added to the error that was measured at export.
SLACK = 0.02
MOST_REFERENCE_BYTES = 1 << 30
BAD = ("missing", "damaged", "disagrees")


class Runtime(NamedTuple):
    """What runs files of one kind.

    Attributes:
      where: in words.
      run: from the file and uint8[n, h, w, c] to Float32[k, classes] of the first
        k; a MissingToolError or an UnsupportedError says why it cannot be run here.
    """

    where: str
    run: Callable[[pathlib.Path, np.ndarray], np.ndarray]


# Of the portable files; those in a device's folder are its backend's to run.
RUNTIMES = {
    ".tflite": Runtime("in LiteRT", run_tflite),
    ".onnx": Runtime("in ONNX Runtime", run_onnx),
}


class Finding(NamedTuple):
    """What a check says about one file.

    Attributes:
      path: of the file.
      verdict: "agrees" (whole, run again, same as before), "whole" (its sum is
        right, and it is not run here), or what is wrong.
      text: more of it; "" for nothing.
      not_run: what is missing to run a file that ran when it was made; "" for nothing.
    """

    path: pathlib.Path
    verdict: Literal["agrees", "whole", "missing", "damaged", "disagrees"]
    text: str = ""
    not_run: str = ""


def damaged(path: pathlib.Path, error: InputError) -> Finding:
    """Returns the finding of what is wrong with a file; its path is said once."""
    text = str(error).removeprefix(str(path)).lstrip(": ")
    return Finding(path, "damaged" if path.exists() else "missing", text)


def check_bundle(bundle: pathlib.Path, *, sums_only: bool = False) -> Iterator[Finding]:
    """Yields what a check finds for each file of a bundle.

    Every file must have its sum. TFLite and ONNX files, and what was run of the
    devices' folders, are run on the reference images where that can be done, and
    compared with JAX's logits.

    Args:
      bundle: its folder.
      sums_only: run nothing.
    """
    try:
        manifest = read_manifest(bundle)
    except InputError as error:
        yield damaged(bundle / MANIFEST, error)
        return
    try:
        expected = _reference(bundle, manifest)
        yield Finding(bundle / REFERENCE, "whole")
    except InputError as error:
        expected = None
        yield damaged(bundle / REFERENCE, error)
    for name, entry in present(manifest):
        if name == REFERENCE:
            continue
        try:
            remedy = "deploy it again" if "/" in name else REMAKE
            check_sum(bundle / name, entry, remedy=remedy)
        except InputError as error:
            yield damaged(bundle / name, error)
            continue
        runtime = None if sums_only or expected is None else _runtime(bundle, name, entry)
        if runtime is None or expected is None:
            yield Finding(bundle / name, "whole")
        else:
            yield _run_again(bundle / name, entry, runtime, expected)


def _runtime(bundle: pathlib.Path, name: str, entry: Manifest) -> Runtime | None:
    """Returns what runs a whole file; None if it is not a network, or ran nowhere yet."""
    if entry["status"] != "ok":
        return None
    if "/" not in name:
        return RUNTIMES.get(pathlib.PurePosixPath(name).suffix)
    from deepmaker_jax.backends import again  # its modules look for tools when they are loaded

    if not entry.get("parity") or not again.runs(name):
        return None
    return Runtime(f"on {name.partition('/')[0]}", lambda path, images: again.run(bundle, name))


def _reference(bundle: pathlib.Path, manifest: Manifest) -> Expected:
    """Returns the reference images and logits.

    Raises:
      InputError: they are not what was written, or nothing to compare with.
    """
    path = bundle / REFERENCE
    if REFERENCE not in manifest["files"]:
        raise InputError(f"{MANIFEST} does not list it, so that nothing can be run again: {REMAKE}")
    check_sum(path, manifest["files"][REFERENCE])
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_REFERENCE_BYTES:
            raise ValueError(f"it unpacks to {size} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            expected = Expected(arrays["images"], arrays["labels"], arrays["logits"])
    except Exception as error:  # noqa: BLE001 - a damaged zip or header may raise anything
        raise InputError(f"{path} cannot be read ({one_line(error)}): {REMAKE}") from None
    images, labels, logits = expected
    if not (
        images.dtype == np.uint8
        and logits.dtype == np.float32
        and labels.dtype.kind in "iu"
        and (images.ndim, labels.ndim, logits.ndim) == (4, 1, 2)
        and len(images) == len(labels) == len(logits) > 0
        and logits.shape[1] > 1
        and np.isfinite(logits).all()
    ):
        raise InputError(f"{path} does not hold images, labels and finite logits: {REMAKE}")
    return expected


def _run_again(
    path: pathlib.Path, entry: Manifest, runtime: Runtime, expected: Expected
) -> Finding:
    # The contract promises a rule and a range to nobody: other writers' manifests have neither.
    parity = entry.get("parity")
    then: dict[str, Any] = parity if isinstance(parity, dict) else {}
    # A device may have run fewer images.
    num_images = int(_number(then.get("images")) or len(expected.images))
    part = Expected(*(array[:num_images] for array in expected))
    try:
        logits = runtime.run(path, expected.images)
        if logits.shape != part.logits.shape:
            raise InputError(
                f"logits {list(logits.shape)} must be {list(part.logits.shape)}, as JAX's"
            )
    except (MissingToolError, UnsupportedError) as problem:
        return Finding(path, "whole", not_run=f"{runtime.where}: {problem}")
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is this file's alone
        return Finding(path, "disagrees", f"it cannot be run {runtime.where}: {one_line(error)}")
    scale = _number(then.get("logit_range")) or float(np.ptp(expected.logits))
    rule = _rule(then.get("rule")) or RULES.get(path.name, QUANTISED)
    exact = rule.max_error is not None
    now, _, broken = compare(logits, part, rule if exact else QUANTISED, logit_range=scale)
    error, before = now["max_abs_error"], _number(then.get("max_abs_error"))
    if broken is None and not exact and before is not None and error > before + SLACK * scale:
        broken = f"logits differ from JAX's by {error:.3g}, at export by {before:.3g}"
    if broken is not None:
        return Finding(path, "disagrees", f"{runtime.where} {broken}")
    share = f"{now['top1_agreement']:.0%} of {now['images']} images with JAX's class"
    off = f"logits at most {error / scale:.1e} of their range from JAX's" if scale else "logits"
    return Finding(path, "agrees", f"{runtime.where}: {off}, {share}")


def _number(value: Any) -> float | None:
    """Returns a number that can be measured as float, anything else as None."""
    return float(value) if type(value) in (int, float) and 0 <= value < 1e30 else None


def _rule(value: Any) -> Rule | None:
    """Returns a manifest's rule; None if it says none."""
    if not isinstance(value, dict) or not value or not value.keys() <= set(Rule._fields):
        return None
    return Rule(**{name: _number(bound) for name, bound in value.items()})
