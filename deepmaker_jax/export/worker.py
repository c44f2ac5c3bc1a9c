"""Writing a bundle in a process of its own, which may import TensorFlow.

What unpickles `do_export` imports this module: nothing here may start JAX, as
evosax does when it is imported, before the process has its own settings.
"""

import pathlib
from typing import Any

import numpy as np

from deepmaker_jax.execute import runtime


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
    arrays = {
        path.stem: np.load(path, mmap_mode="r") for path in pathlib.Path(folder).glob("*.npy")
    }
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
