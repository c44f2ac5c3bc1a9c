"""What a network costs on a device, from its layer list alone.

Parameters and multiply-accumulates are exact. Working memory is `sram`'s. The
size of the int8 TFLite file is an estimate whose constants were fitted to real
files (`benchmarks/flash_model.py`).
"""

import collections
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from deepmaker_jax import sram
from deepmaker_jax.arch import ArchSpec, Layer, layers, split_activation


class Cost(NamedTuple):
    """The costs that limits and objectives can name.

    Attributes:
      params: trainable parameters, batch norm's included, before folding.
      macs: multiply-accumulates of convolutions and dense layers, one image.
      peak_activation_bytes: int8 activations alive at once, at the worst moment.
      arena_bytes: estimated arena of TensorFlow Lite Micro, its structures included.
      ethos_u_sram_bytes: estimated SRAM on an Ethos-U, compiled by Vela for speed.
      flash_bytes: estimated size of the int8 TFLite file.
    """

    params: int
    macs: int
    peak_activation_bytes: int
    arena_bytes: int
    ethos_u_sram_bytes: int
    flash_bytes: int


def layer_params(layer: Layer) -> int:
    """Returns the trainable parameters of one layer."""
    channels = layer.shape[-1]
    count = 0
    if layer.op in ("conv", "dense"):
        count += layer.kernel**2 * layer.in_channels * channels + layer.bias * channels
    return count + 2 * layer.norm * channels


def layer_macs(layer: Layer) -> int:
    """Returns the multiply-accumulates of one layer for one image."""
    if layer.op not in ("conv", "dense"):
        return 0
    return layer.kernel**2 * layer.in_channels * math.prod(layer.shape)


# Operators of the int8 file for one activation where it is not fused. elu and selu become
# comparisons, selections and an exponential, because TFLite's own ELU is float only.
ACTIVATION_OPERATORS = {
    "hard_swish": 1, "tanh": 1, "sigmoid": 1, "silu": 2, "swish": 2, "elu": 6, "selu": 8,
}  # fmt: skip
# One side of a two-sided activation; where its scale is its own, it needs a QUANTIZE before the
# selection. A comparison and the selection come once, what both sides compute is shared.
SIDE_OPERATORS = {
    "relu": 1, "relu6": 1, "hard_swish": 1, "tanh": 2, "sigmoid": 2, "silu": 2, "swish": 2,
    "elu": 6, "selu": 8,
}  # fmt: skip
TWO_SIDED_OPERATORS = 2
SHARED_OPERATORS = {("elu", "selu"): 4, ("sigmoid", "swish"): 1, ("sigmoid", "silu"): 1}
BUFFER_ALIGNMENT = 16  # bytes

# Bytes that each of `FlashCounts` adds, besides the vectors that `flash_counts` adds up
# exactly. Fitted to real files: benchmarks/results/flash_model.json.
FLASH_FILE_BYTES = 512
FLASH_WEIGHTED_LAYER_BYTES = 266
FLASH_OPERATOR_BYTES = 92
FLASH_NORM_BYTES = 132
FLASH_REREAD_BYTES = 27


class FlashCounts(NamedTuple):
    """What takes room in an int8 TFLite file.

    Attributes:
      vector_bytes: int8 weights, int32 biases, and per output channel a float32
        scale of weights and of biases; equal vectors of zeros once.
      weighted_layers: convolutions and dense layers.
      operators: of everything else: concatenations, pools, batch norms that
        stand alone (a product and a sum), activations that are not fused.
      norms: batch norms that stand alone, for their constants.
      rereads: reads of a tensor by concatenations after the first one; each may
        need a QUANTIZE, because a concatenation has one scale for all inputs.
    """

    vector_bytes: int
    weighted_layers: int
    operators: int
    norms: int
    rereads: int


def flash_counts(network: tuple[Layer, ...]) -> FlashCounts:
    """Returns what takes room in the int8 file of a plain network, after folding."""
    weighted = [layer for layer in network if layer.op in ("conv", "dense")]
    concats = [layer for layer in network if layer.op == "concat"]
    num_pools = sum("pool" in layer.op for layer in network)
    norms = [layer for layer in network if layer.op == "norm"]
    # A zero point is an int64, zero for weights and biases: one vector for each length.
    vectors = sum(8 * channels for channels in {layer.shape[-1] for layer in weighted})
    zero_biases = set()
    for layer in weighted:
        channels = layer.shape[-1]
        vectors += _aligned(layer.kernel**2 * layer.in_channels * channels) + 2 * 4 * channels
        if layer.norm or layer.bias:
            vectors += _aligned(4 * channels)
        else:
            zero_biases.add(channels)
    vectors += sum(_aligned(4 * channels) for channels in zero_biases)
    vectors += sum(2 * _aligned(layer.shape[-1]) for layer in norms)
    reads = collections.Counter(name for layer in concats for name in layer.inputs)
    return FlashCounts(
        vector_bytes=vectors,
        weighted_layers=len(weighted),
        operators=len(concats)
        + num_pools
        + 2 * len(norms)
        + sum(_activation_operators(layer.activation) for layer in network),
        norms=len(norms),
        rereads=reads.total() - len(reads),
    )


def _aligned(size: int) -> int:
    return sram.aligned(size, BUFFER_ALIGNMENT)


def _activation_operators(activation: str) -> int:
    negative, positive = split_activation(activation)
    if negative == positive:
        return ACTIVATION_OPERATORS.get(positive, 0)
    sides = SIDE_OPERATORS[negative] + SIDE_OPERATORS[positive] + TWO_SIDED_OPERATORS
    low, high = sorted((negative, positive))
    return sides - SHARED_OPERATORS.get((low, high), 0)


def flash_bytes(network: tuple[Layer, ...]) -> int:
    """Returns the estimated size of the int8 TFLite file that `deepmaker_jax.export` writes.

    Whole numbers only, so that it is the same everywhere.

    Args:
      network: the plain network's layers.
    """
    counts = flash_counts(network)
    return (
        FLASH_FILE_BYTES
        + counts.vector_bytes
        + FLASH_WEIGHTED_LAYER_BYTES * counts.weighted_layers
        + FLASH_OPERATOR_BYTES * counts.operators
        + FLASH_NORM_BYTES * counts.norms
        + FLASH_REREAD_BYTES * counts.rereads
    )


_network = functools.lru_cache(maxsize=1024)(layers)
_COSTS: dict[str, Callable[[tuple[Layer, ...], tuple[int, ...]], int]] = {
    "params": lambda network, _: sum(map(layer_params, network)),
    "macs": lambda network, _: sum(map(layer_macs, network)),
    "peak_activation_bytes": sram.peak_activation_bytes,
    "arena_bytes": sram.arena_bytes,
    "ethos_u_sram_bytes": sram.ethos_u_sram_bytes,
    "flash_bytes": lambda network, _: flash_bytes(network),
}


@functools.lru_cache(maxsize=32_768)
def cost_of(arch: ArchSpec, name: str) -> int:
    """Returns one cost of an architecture, by its name in `Cost`."""
    return _COSTS[name](_network(arch), arch.input_shape)


def cost(arch: ArchSpec) -> Cost:
    """Returns every cost of an architecture."""
    return Cost(**{name: cost_of(arch, name) for name in Cost._fields})
