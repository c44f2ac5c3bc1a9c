"""CIFAR-10: `python -m experiments.cifar10 [smoke | small | night | neuropower | full]`."""

from collections.abc import Sequence

from configs import cifar10
from deepmaker_jax import experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; returns the exit code."""
    return experiment(
        "cifar10",
        presets=cifar10.PRESETS,
        default="small",
        references=cifar10.REFERENCES,
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
