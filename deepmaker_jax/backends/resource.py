"""What a network takes of an FPGA: reuse factors that fit a part, and an estimate.

No vendor tool runs here, so these are counts by stated rules, not synthesis.
"""

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from deepmaker_jax.arch import INPUT, Layer
from deepmaker_jax.backends.fixed import MAP_BITS, PIXEL, WEIGHT_BITS, Types, num_bits

BLOCK_WIDTH, BLOCK_DEPTH = 36, 512  # of an 18 Kb block RAM: AMD's UG953, RAMB18E1
LEAST_DEPTH = 64  # words from which a memory is taken to be block RAM, not LUTs: a rule of thumb
SHARE = 0.8  # of a part that a design may take and still be routed: a rule of thumb
# LUTs of a function of the project, of a bit of the pixels that it reads and writes, of a window of
# pixels that it holds, and of a product's adders: fitted to what AMD's C synthesis reported of two
# public networks by hls4ml, and the share of it that logic synthesis took of one of them
# (benchmarks/fpga_luts.py, benchmarks/results/fpga_luts.json: 14 % off in the median, to twofold).
FUNCTION_LUTS, BIT_LUTS, WINDOW_LUTS, PRODUCT_LUTS = 130, 1.6, 1900, 30
LOGIC_SHARE = 0.5
CLOCK_MHZ = 200  # hls4ml's default
HOW = {
    "dsps": "one for each 16x16 product in parallel: kernel^2 x in x out / reuse, summed",
    "luts": (
        f"{LOGIC_SHARE} times what C synthesis would report: {FUNCTION_LUTS} a function, "
        f"{BIT_LUTS} a bit of its pixels, {WINDOW_LUTS} a window, {PRODUCT_LUTS} a product; fitted "
        "to published reports, within a factor of about 2"
    ),
    "bram18s": (
        "weights by reuse depth, line buffers, FIFOs of a whole map for every stream; none for "
        f"under {LEAST_DEPTH} words"
    ),
    "interval_cycles": "from image to image: pixels x reuse of the slowest layer; layers overlap",
    "latency_cycles": "of one image at most: pixels x reuse, summed as if no layers overlapped",
}


class Part(NamedTuple):
    """An FPGA.

    Attributes:
      part: its name in Vitis.
      dsps, luts, bram18s: what it has: AMD's DS190 (Zynq-7000), DS891 (Zynq UltraScale+),
        DS890 (Virtex UltraScale+).
    """

    part: str
    dsps: int
    luts: int
    bram18s: int

    @property
    def holds(self) -> dict[str, int]:
        """What it has, by the names of an `Estimate`."""
        return {"dsps": self.dsps, "luts": self.luts, "bram18s": self.bram18s}


# The smallest first: two boards for embedded work, then the part that hls4ml takes by default.
PARTS = {
    "pynq-z2": Part("xc7z020clg400-1", 220, 53_200, 280),
    "zcu104": Part("xczu7ev-ffvc1156-2-e", 1_728, 230_400, 624),
    "vu13p": Part("xcvu13p-flga2577-2-e", 12_288, 1_728_000, 5_376),
}


class Estimate(NamedTuple):
    """What a design takes, by the rules in `HOW`."""

    dsps: int
    luts: int
    bram18s: int
    interval_cycles: int
    latency_cycles: int


def fits(estimate: Estimate, part: Part) -> bool:
    """Whether a part holds the design and leaves room to route it."""
    return all(getattr(estimate, name) <= SHARE * there for name, there in part.holds.items())


def products(layer: Layer) -> int:
    """Returns the products for one output pixel of a convolution or dense layer."""
    return layer.kernel**2 * layer.in_channels * layer.shape[-1]


def _pixels(layer: Layer) -> int:
    """Returns the pixels that stream into a layer, its padding included."""
    if layer.op == "dense":
        return 1
    return math.prod((side - 1) * layer.stride + layer.kernel for side in layer.shape[:2])


class Stream(NamedTuple):
    """A FIFO between two functions of the project.

    Attributes:
      depth: pixels, those of a whole map.
      width: bits of a pixel, all channels.
    """

    depth: int
    width: int


def streams(network: Sequence[Layer], types: Mapping[str, Types]) -> list[Stream]:
    """Returns the streams of a project by hls4ml, but for those that lead in and out.

    Each layer writes one; so do the padding before a convolution, what comes
    before an activation, every part of a concatenation, and every copy for the
    readers of a map that has several.
    """
    found: list[Stream] = []
    readers = collections.Counter(name for layer in network for name in layer.inputs)
    channels, bits = {INPUT: network[0].in_channels}, {INPUT: num_bits(PIXEL)}

    def copies(name: str, depth: int) -> list[Stream]:
        return [Stream(depth, channels[name] * bits[name])] * (readers[name] > 1) * readers[name]

    first = network[0]
    found += copies(INPUT, math.prod(side * first.stride for side in first.shape[:2]))
    for layer in network:
        kind, depth, width = types[layer.name], math.prod(layer.shape[:-1]), layer.shape[-1]
        channels[layer.name], bits[layer.name] = width, num_bits(kind.activated or kind.result)
        if layer.op == "conv" and layer.kernel > 1:
            source = layer.inputs[0]
            found.append(Stream(_pixels(layer), channels[source] * bits[source]))
        if layer.op == "concat":
            joined = channels[layer.inputs[0]]
            for name in layer.inputs[1:]:
                joined += channels[name]
                found.append(Stream(depth, joined * num_bits(kind.result)))
        elif layer is not network[-1]:
            found.append(Stream(depth, width * num_bits(kind.result)))
        if kind.activated:
            found.append(Stream(depth, width * num_bits(kind.activated)))
        found += copies(layer.name, depth)
    return found


def estimate(
    network: Sequence[Layer], reuse: Mapping[str, int], fifos: Sequence[Stream]
) -> Estimate:
    """Returns what a folded network takes with these reuse factors and its `streams`."""
    dsps = interval = latency = 0
    blocks = sum(_blocks(stream.depth, stream.width) for stream in fifos)
    # Each function writes one stream, and another reads it.
    luts = sum(FUNCTION_LUTS + BIT_LUTS * 2 * stream.width for stream in fifos)
    for layer in network:
        luts += WINDOW_LUTS * (layer.kernel > 1 if layer.op == "conv" else "pool" in layer.op)
        if layer.op in ("conv", "dense"):
            factor = reuse[layer.name]
            parallel = -(-products(layer) // factor)
            dsps += parallel
            luts += PRODUCT_LUTS * parallel
            blocks += _blocks(factor, parallel * WEIGHT_BITS)
            cycles = _pixels(layer) * factor
            interval, latency = max(interval, cycles), latency + cycles
        if layer.op == "conv" and layer.kernel > 1:
            row = (layer.shape[1] - 1) * layer.stride + layer.kernel
            blocks += (layer.kernel - 1) * _blocks(row, layer.in_channels * MAP_BITS)
    return Estimate(dsps, round(LOGIC_SHARE * luts), blocks, interval, latency)


def _blocks(depth: int, width: int) -> int:
    """Returns the block RAMs of a memory; a shallow one is made of LUTs."""
    if depth < LEAST_DEPTH:
        return 0
    return -(-depth // BLOCK_DEPTH) * -(-width // BLOCK_WIDTH)


def choose_reuse(
    network: Sequence[Layer],
    fifos: Sequence[Stream],
    valid: Callable[[int, int], Sequence[int]],
    part: Part,
) -> dict[str, int] | None:
    """Returns the reuse factors of the fastest design that fits a part; None if none does.

    For a number of cycles each layer takes the largest factor that keeps to it,
    which is the fewest multipliers; the first number that fits, from the fastest
    on, is taken.

    Args:
      network: folded layers.
      fifos: their `streams`.
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

    # Larger factors need not take less: a deep, narrow memory may fill more blocks than a wide one.
    for cycles in sorted({f * _pixels(layer) for layer in weighted for f in factors[layer.name]}):
        reuse = design(cycles)
        if fits(estimate(network, reuse, fifos), part):
            return reuse
    return None
