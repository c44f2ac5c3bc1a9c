"""Pictures of one's own: `python -m experiments.images --data DIR --side 32`.

DIR holds train/CLASS/*.png (or .jpg) and perhaps test/CLASS/*, or is an .npz
with x_train, y_train and perhaps x_test, y_test.
"""

from collections.abc import Sequence

from configs import images
from deepmaker_jax import experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; returns the exit code."""
    return experiment(
        "images",
        presets=images.PRESETS,
        default="small",
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
