"""CIFAR-100: `python -m experiments.cifar100 [smoke | small]`."""

from collections.abc import Sequence

from configs import cifar100
from deepmaker_jax import experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; returns the exit code."""
    return experiment(
        "cifar100",
        presets=cifar100.PRESETS,
        default="small",
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
