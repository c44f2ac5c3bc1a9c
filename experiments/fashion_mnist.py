"""Fashion-MNIST: `python -m experiments.fashion_mnist [smoke | small]`."""

from collections.abc import Sequence

from configs import mnist
from deepmaker_jax import experiment, load_data


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; returns the exit code."""
    return experiment(
        "fashion_mnist",
        presets=mnist.PRESETS,
        default="small",
        load=lambda config: load_data("fashion_mnist", path=config.data, side=config.side),
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
