"""Writing and measuring a bundle in a process of its own, which may import TensorFlow.

What unpickles `do_export` imports this module: nothing here may start JAX, as
evosax does when it is imported, before the process has its own settings.
"""

import pathlib
from typing import Any, NamedTuple

from deepmaker_jax.errors import StorageError, one_line
from deepmaker_jax.execute import runtime
from deepmaker_jax.export.manifest import WEIGHTS
from deepmaker_jax.files import load_arrays

INT8 = "model_int8.tflite"


class Made(NamedTuple):
    """What became of a member.

    Attributes:
      manifest: of its bundle; without export, only the weights' accuracy in that form.
      figures: see `robustness.measure`; None if they were not asked for, or failed.
      problem: why they failed.
    """

    manifest: dict[str, Any]
    figures: dict[str, Any] | None = None
    problem: str | None = None


def do_export(
    folder: str,
    id: str,
    bundle: str,
    export: bool,
    seed: int,
    weights: dict[str, str],
    figures: str,
) -> Made:
    """Writes and runs a bundle whose weights are there, and measures how robust it is.

    Args:
      folder: holds the images and labels, each as NAME.npy.
      id: of the candidate.
      bundle: the bundle's folder.
      export: write the other files; False only measures the weights.
      seed: what drew the calibration images.
      weights: {seed: file} of the networks to measure on corrupted images; {} for none.
      figures: file for what that finds.
    """
    from deepmaker_jax.export import export_bundle, load_weights
    from deepmaker_jax.export.robustness import measure
    from deepmaker_jax.train import Split, evaluate

    runtime.keep_programs()
    arrays = load_arrays(folder)
    path = pathlib.Path(bundle) / WEIGHTS
    arch, variables = load_weights(path)
    images, labels = arrays["test_images"], arrays["test_labels"]
    if export:
        manifest = export_bundle(
            pathlib.Path(bundle),
            id=id,
            arch=arch,
            variables=variables,
            calibration_images=arrays["calibration_images"],
            test_images=images,
            test_labels=labels,
            calibration_seed=seed,
        )
    else:
        accuracy, _ = evaluate(arch, variables, Split(images, labels))
        entry = {"status": "ok", "reason": None, "bytes": path.stat().st_size, "accuracy": accuracy}
        manifest = {"files": {WEIGHTS: entry}}
    if not weights:
        return Made(manifest)
    is_int8 = manifest["files"].get(INT8, {}).get("status") == "ok"
    networks = {name: pathlib.Path(file) for name, file in weights.items()}
    int8 = pathlib.Path(bundle) / INT8 if is_int8 else None
    try:
        return Made(manifest, measure(pathlib.Path(figures), networks, int8, images, labels))
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - the bundle stands
        return Made(manifest, problem=one_line(error))
