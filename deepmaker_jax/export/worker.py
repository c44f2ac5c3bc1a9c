"""Writing and measuring bundles in processes of their own, which may import TensorFlow.

What unpickles these functions imports this module: nothing here may start JAX, as
evosax does when it is imported, before the process has its own settings.
"""

import pathlib
from typing import Any

from deepmaker_jax.execute import runtime
from deepmaker_jax.files import load_arrays


def do_export(folder: str, id: str, bundle: str, export: bool, seed: int) -> dict[str, Any]:
    """Writes and runs a bundle whose weights are there.

    Args:
      folder: holds the images and labels, each as NAME.npy.
      id: of the candidate.
      bundle: the bundle's folder.
      export: write the other files; False only measures the weights.
      seed: what drew the calibration images.

    Returns:
      The manifest; without export, only the weights' accuracy in its form.
    """
    from deepmaker_jax.export import export_bundle, load_weights
    from deepmaker_jax.train import Split, evaluate

    runtime.keep_programs()
    arrays = load_arrays(folder)
    arch, variables = load_weights(pathlib.Path(bundle) / "weights.safetensors")
    images, labels = arrays["test_images"], arrays["test_labels"]
    if not export:
        accuracy, _ = evaluate(arch, variables, Split(images, labels))
        size = (pathlib.Path(bundle) / "weights.safetensors").stat().st_size
        entry = {"status": "ok", "reason": None, "bytes": size, "accuracy": accuracy}
        return {"files": {"weights.safetensors": entry}}
    return export_bundle(
        pathlib.Path(bundle),
        id=id,
        arch=arch,
        variables=variables,
        calibration_images=arrays["calibration_images"],
        test_images=images,
        test_labels=labels,
        calibration_seed=seed,
    )


def do_measure(folder: str, weights: dict[str, str], int8: str | None, out: str) -> dict[str, Any]:
    """Measures a member's networks on clean and corrupted images; see `robustness.measure`.

    Args:
      folder: holds the test images and labels, each as NAME.npy.
      weights: {seed: file} of the float networks.
      int8: the TFLite file, if there is one.
      out: for the figures.
    """
    from deepmaker_jax.export.robustness import measure

    runtime.keep_programs()
    arrays = load_arrays(folder)
    return measure(
        pathlib.Path(out),
        {seed: pathlib.Path(path) for seed, path in weights.items()},
        None if int8 is None else pathlib.Path(int8),
        arrays["test_images"],
        arrays["test_labels"],
    )
