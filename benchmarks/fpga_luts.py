"""Fits the LUTs that `resource.estimate` counts to published reports of AMD's tools.

    python -m benchmarks.fpga_luts [--out benchmarks/results/fpga_luts.json]

No vendor tool runs here. Two networks by hls4ml with io_stream have their reports in public: each
row below is a function of the project, with the LUTs that C synthesis estimated. Of one of them
logic synthesis is published too; it took about half. A second on one core.
"""

import argparse
import pathlib
from typing import NamedTuple

import numpy as np

from benchmarks.record import publish
from deepmaker_jax.backends import resource

CONSTANTS = ("FUNCTION_LUTS", "BIT_LUTS", "WINDOW_LUTS", "PRODUCT_LUTS")
SOURCES = {
    "picar": "https://github.com/tsopeter/753-FPGA at 15644be, best/best_model_prj: Vitis HLS "
    "2024.2, strategy Resource, 6-bit weights",
    "svhn": "https://github.com/fastmachinelearning/hls4ml-tutorial at 5a2b7c8, pruned_cnn: "
    "Vivado HLS 2020.1, fixed<16,6>, a DSP for each product that was not pruned",
}
# Of "svhn", whole: what C synthesis estimated, what logic synthesis took.
C_SYNTHESIS_LUTS, LOGIC_SYNTHESIS_LUTS = 245_466, 123_948


class Function(NamedTuple):
    """A function of a project.

    Attributes:
      source: a name of `SOURCES`.
      kind: what it does.
      bits: of a pixel that it reads and of one that it writes.
      windows: 1 if it holds a window of pixels.
      products: DSPs.
      luts: as C synthesis estimated them.
    """

    source: str
    kind: str
    bits: int
    windows: int
    products: int
    luts: int


FUNCTIONS = (
    Function("picar", "conv 5x5, 1 to 2", 1 * 8 + 2 * 20, 1, 1, 1903),
    Function("picar", "conv 5x5, 2 to 4", 2 * 6 + 4 * 19, 1, 4, 2496),
    Function("picar", "conv 5x5, 4 to 5", 4 * 6 + 5 * 20, 1, 5, 4502),
    Function("picar", "conv 3x3, 5 to 6", 5 * 6 + 6 * 19, 1, 6, 2450),
    Function("picar", "dense 54 to 1", 54 * 6 + 16, 0, 1, 1425),
    Function("picar", "linear, 1", 8 + 8, 0, 0, 118),
    Function("picar", "relu, 2", 2 * (20 + 6), 0, 0, 310),
    Function("picar", "relu, 4", 4 * (19 + 6), 0, 0, 514),
    Function("picar", "relu, 5", 5 * (20 + 6), 0, 0, 627),
    Function("picar", "relu, 6", 6 * (19 + 6), 0, 0, 724),
    Function("svhn", "conv 3x3, 3 to 16", 16 * (3 + 16), 1, 208, 6334),
    Function("svhn", "conv 3x3, 16 to 16", 16 * (16 + 16), 1, 786, 38710),
    Function("svhn", "conv 3x3, 16 to 24", 16 * (16 + 24), 1, 1300, 53724),
    Function("svhn", "dense 96 to 42", 16 * (96 + 42), 0, 1394, 59765),
    Function("svhn", "dense 42 to 64", 16 * (42 + 64), 0, 1167, 35083),
    Function("svhn", "dense 64 to 10", 16 * (64 + 10), 0, 549, 17875),
    Function("svhn", "relu, 16", 16 * (16 + 16), 0, 0, 855),
    Function("svhn", "relu, 16", 16 * (16 + 16), 0, 0, 859),
    Function("svhn", "relu, 24", 16 * (24 + 24), 0, 0, 1231),
    Function("svhn", "relu, 42", 16 * (42 + 42), 0, 0, 1998),
    Function("svhn", "relu, 64", 16 * (64 + 64), 0, 0, 3032),
    Function("svhn", "pool 2x2, 16", 16 * (16 + 16), 1, 0, 2705),
    Function("svhn", "pool 2x2, 16", 16 * (16 + 16), 1, 0, 2709),
    Function("svhn", "pool 2x2, 24", 16 * (24 + 24), 1, 0, 3803),
)


def main() -> None:
    """Fits, prints the constants beside those that are used, and how far these are off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    counts = np.array([(1, f.bits, f.windows, f.products) for f in FUNCTIONS], float)
    luts = np.array([f.luts for f in FUNCTIONS], float)
    # Errors relative to each function's own, as a relu has a fiftieth of a dense layer's.
    fitted, *_ = np.linalg.lstsq(counts / luts[:, None], np.ones(len(luts)), rcond=None)
    used = [getattr(resource, name) for name in CONSTANTS]
    predicted = counts @ used
    off = predicted / luts - 1
    publish(
        {
            "sources": SOURCES,
            "fitted": dict(zip(CONSTANTS, fitted.round(2).tolist(), strict=True)),
            "used": dict(zip(CONSTANTS, used, strict=True)),
            "logic_synthesis_share": round(LOGIC_SYNTHESIS_LUTS / C_SYNTHESIS_LUTS, 3),
            "error_percent": {
                "median": round(float(np.median(100 * abs(off))), 1),
                "max": round(float(100 * abs(off).max()), 1),
            },
            "functions": [
                f._asdict() | {"predicted": round(float(p))}
                for f, p in zip(FUNCTIONS, predicted, strict=True)
            ],
        },
        args.out,
    )


if __name__ == "__main__":
    main()
