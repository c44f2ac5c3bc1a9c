"""What a network takes of an FPGA: reuse factors that fit a part, and an estimate.

No vendor tool runs here, so these are counts by stated rules, not synthesis.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from deepmaker_jax.arch import Layer
from deepmaker_jax.backends.fixed import MAP_BITS, WEIGHT_BITS

BLOCK_BITS = 18 * 1024
BLOCK_WIDTH, BLOCK_DEPTH = 36, 512
SHARE = 0.8  # of a part that a design may take and still be routed
LAYER_LUTS = 1500
CLOCK_MHZ = 200
HOW = {
    "dsps": "one for each 16x16 product in parallel: kernel^2 x in x out / reuse, summed",
    "luts": f"32 for each product's share of the adder tree, {LAYER_LUTS} a layer; within 2x",
    "bram18s": "weights by reuse depth, line buffers, and FIFOs of a whole map, in 18 Kbit blocks",
    "cycles": f"pixels x reuse of the slowest layer; layers overlap; at {CLOCK_MHZ} MHz",
}


class Part(NamedTuple):
    """An FPGA.

    Attributes:
      part: its name in Vitis.
      dsps, luts, bram18s: what it has, from the maker's product tables.
    """

    part: str
    dsps: int
    luts: int
    bram18s: int


# The smallest first.
PARTS = {
    "pynq-z2": Part("xc7z020clg400-1", 220, 53_200, 280),
    "zcu104": Part("xczu7ev-ffvc1156-2-e", 1_728, 230_400, 624),
}


class Estimate(NamedTuple):
    """What a design takes."""

    dsps: int
    luts: int
    bram18s: int
    cycles: int


def fits(estimate: Estimate, part: Part) -> bool:
    """Whether a part holds the design and leaves room to route it."""
    pairs = zip(estimate[:3], part[1:], strict=True)
    return all(needed <= SHARE * there for needed, there in pairs)


def products(layer: Layer) -> int:
    """Returns the products for one output pixel of a convolution or dense layer."""
    return layer.kernel**2 * layer.in_channels * layer.shape[-1]


def _pixels(layer: Layer) -> int:
    """Returns the pixels that stream into a layer, its padding included."""
    if layer.op == "dense":
        return 1
    return math.prod(side * layer.stride + layer.kernel - 1 for side in layer.shape[:2])


def estimate(network: Sequence[Layer], reuse: Mapping[str, int]) -> Estimate:
    """Returns what a folded network takes with these reuse factors, by the rules in `HOW`."""
    dsps = luts = blocks = cycles = 0
    for layer in network:
        luts += LAYER_LUTS
        if layer.op in ("conv", "dense"):
            factor = reuse[layer.name]
            parallel = -(-products(layer) // factor)
            dsps += parallel
            luts += 32 * parallel
            blocks += _blocks(factor, parallel * WEIGHT_BITS)
            cycles = max(cycles, _pixels(layer) * factor)
        if layer.op == "conv" and layer.kernel > 1:
            row = layer.shape[1] * layer.stride + layer.kernel - 1
            blocks += (layer.kernel - 1) * _blocks(row, layer.in_channels * MAP_BITS)
        if len(layer.shape) == 3:
            blocks += _blocks(math.prod(layer.shape[:2]), layer.shape[-1] * MAP_BITS)
    return Estimate(dsps, luts, blocks, cycles)


def _blocks(depth: int, width: int) -> int:
    """Returns the block RAMs of a memory; below 64 words it is made of LUTs."""
    if depth < 64:
        return 0
    return -(-depth // BLOCK_DEPTH) * -(-width // BLOCK_WIDTH)


def choose_reuse(
    network: Sequence[Layer], valid: Callable[[int, int], Sequence[int]], part: Part
) -> dict[str, int] | None:
    """Returns the reuse factors of the fastest design that fits a part; None if none does.

    For a number of cycles each layer takes the largest factor that keeps to it,
    which is the fewest multipliers; the smallest number that fits is found by
    bisection.

    Args:
      network: folded layers.
      valid: from (inputs, outputs of a product with a matrix) to the factors that
        hls4ml accepts, rising.
      part: to fit.
    """
    weighted = [layer for layer in network if layer.op in ("conv", "dense")]
    factors = {
        layer.name: valid(products(layer) // layer.shape[-1], layer.shape[-1]) for layer in weighted
    }

    def design(cycles: int) -> dict[str, int]:
        return {
            layer.name: max(
                (f for f in factors[layer.name] if f * _pixels(layer) <= cycles),
                default=factors[layer.name][0],
            )
            for layer in weighted
        }

    low = 1
    high = max(_pixels(layer) * factors[layer.name][-1] for layer in weighted)
    if not fits(estimate(network, design(high)), part):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(estimate(network, design(middle)), part):
            high = middle
        else:
            low = middle + 1
    return design(high)
