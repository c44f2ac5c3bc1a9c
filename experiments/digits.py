"""scikit-learn's bundled digits, 8x8: `python -m experiments.digits`."""

from collections.abc import Sequence

from configs import digits
from deepmaker_jax import experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; returns the exit code."""
    return experiment(
        "digits",
        presets=digits.PRESETS,
        default="demo",
        argv=argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
