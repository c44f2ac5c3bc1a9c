"""Fits the constants of `cost.flash_bytes` to the int8 files of random genomes.

    python -m benchmarks.flash_model [--genomes 64] [--out benchmarks/results/flash_model.json]

Weights are random: the size of a file does not depend on what they are, but for
a few QUANTIZE operators (`spread_over_weights`). Genomes from another seed,
which the fit has not seen, give the errors of the constants that stand in
`cost.py`. Two minutes on one core.
"""

import argparse
import pathlib
from collections.abc import Iterator

import numpy as np

from benchmarks.record import publish
from deepmaker_jax import cost
from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.export.tflite import tool_version
from deepmaker_jax.latency import int8_file
from deepmaker_jax.spaces import Space, deepmaker, neuropower

CONSTANTS = (
    "FLASH_FILE_BYTES", "FLASH_WEIGHTED_LAYER_BYTES", "FLASH_OPERATOR_BYTES", "FLASH_NORM_BYTES",
    "FLASH_REREAD_BYTES",
)  # fmt: skip
MAX_PARAMS = 300_000
MAX_MACS = 150_000_000


def sample(space: Space, rng: np.random.Generator, *, num: int) -> Iterator[ArchSpec]:
    """Yields `num` architectures of a space under the limits."""
    while num:
        arch = space.decode(space.sample(rng, num=1)[0])
        price = cost.cost(arch)
        if price.params <= MAX_PARAMS and price.macs <= MAX_MACS:
            yield arch
            num -= 1


def table(archs: list[ArchSpec]) -> tuple[np.ndarray, np.ndarray]:
    """Returns Float[n, constants], how often each constant counts, and Float[n], exact bytes."""
    counts = np.array([cost.flash_counts(layers(arch)) for arch in archs], float)
    return np.concatenate([np.ones((len(archs), 1)), counts[:, 1:]], axis=1), counts[:, 0]


def errors_percent(estimates: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    error = 100 * abs(estimates / sizes - 1)
    return {
        "median": round(float(np.median(error)), 2),
        "p90": round(float(np.quantile(error, 0.9)), 2),
        "max": round(float(error.max()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genomes", type=int, default=64, help="of each of the fit and the test")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()

    def draw(seed: int) -> list[ArchSpec]:
        rng, num = np.random.default_rng(seed), args.genomes
        return [
            *sample(deepmaker((32, 32, 3), 10), rng, num=num // 2),
            *sample(deepmaker((28, 28, 1), 10), rng, num=num // 4),
            *sample(neuropower((32, 32, 3), 10), rng, num=num // 4),
        ]

    fit, test = draw(1), draw(2)
    sizes = {name: np.array([len(int8_file(arch, seed=0)) for arch in archs], float)
             for name, archs in (("fit", fit), ("test", test))}  # fmt: skip
    counts, exact = table(fit)
    # Relative errors count, so each row is divided by its size.
    weight = 1 / sizes["fit"]
    fitted = np.linalg.lstsq(counts * weight[:, None], (sizes["fit"] - exact) * weight)[0]
    constants = {name: round(float(value)) for name, value in zip(CONSTANTS, fitted, strict=True)}
    counts, exact = table(test)
    stands = np.array([cost.flash_bytes(layers(arch)) for arch in test])
    spread = [[len(int8_file(arch, seed=seed)) for seed in range(4)] for arch in test[:8]]
    result = {
        "tool": tool_version(),
        "genomes": {"fit": len(fit), "test": len(test)},
        "bytes": {"smallest": int(sizes["test"].min()), "largest": int(sizes["test"].max())},
        "fitted_constants": constants,
        "fitted_error_percent_on_test": errors_percent(
            exact + counts @ np.array(list(constants.values())), sizes["test"]
        ),
        "constants_in_cost": {name: getattr(cost, name) for name in CONSTANTS},
        "error_percent_on_test": errors_percent(stands, sizes["test"]),
        "spread_over_weights_percent": [
            round(100 * (max(row) / min(row) - 1), 2) for row in spread
        ],
    }
    publish(result, args.out)


if __name__ == "__main__":
    main()
