"""Fashion-MNIST: `python -m experiments.fashion_mnist [smoke | small]`."""

from collections.abc import Sequence

from configs import mnist
from deepmaker_jax import experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; returns the exit code."""
    return experiment(
        "fashion_mnist",
        presets=mnist.PRESETS,
        default="small",
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
