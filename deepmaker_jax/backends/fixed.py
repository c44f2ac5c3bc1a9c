"""Fixed-point types: from the ranges that the int8 file was calibrated to, and from weights.

An FPGA computes with as many bits as it is given. The integer bits of each
feature map follow from its range over the training images, which stand in the
int8 file as scales and zero points: no test image is looked at. What lies
between, sums of products, gets room for the worst case that the weights allow,
so that nothing ever overflows.
"""

import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax.arch import INPUT, Layer

MAP_BITS = 16
WEIGHT_BITS = 16
SUM_FRACTION_BITS = 20  # of sums: more than the 16 bits of the maps that come out of them
PIXEL = "ufixed<8,8>"
# TFLite's operators with weights; the depthwise one is a convolution of a single channel.
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


class Types(NamedTuple):
    """The types of one layer, as hls4ml writes them.

    Attributes:
      weight, bias: of a convolution or a dense layer; "" for others.
      accum: of sums; "" where there are none.
      result: of what leaves the layer before its activation.
      activated: of what leaves its activation; "" without one.
    """

    weight: str = ""
    bias: str = ""
    accum: str = ""
    result: str = ""
    activated: str = ""


def num_bits(kind: str) -> int:
    """Returns the width of a type, e.g. 16 of "ufixed<16,2,RND,SAT>"."""
    return int(kind.partition("<")[2].partition(",")[0])


def integer_bits(limit: float) -> int:
    """Returns the bits left of the point that hold 0..limit, unsigned; below 0 for small limits."""
    return math.floor(math.log2(limit)) + 1 if limit > 0 else 0


def signed(limit: float, bits: int) -> str:
    """Returns a signed type of `bits` that holds -limit..limit, rounding and saturating."""
    return f"fixed<{bits},{integer_bits(limit) + 1},RND,SAT>"


def unsigned(limit: float, bits: int) -> str:
    """Returns an unsigned type of `bits` that holds 0..limit, rounding and saturating."""
    return f"ufixed<{bits},{integer_bits(limit)},RND,SAT>"


def calibrated(model: pathlib.Path, network: tuple[Layer, ...]) -> dict[str, float]:
    """Returns each layer's largest value over the calibration images.

    Convolutions and dense layers stand in the int8 file in the network's order;
    pools and concatenations make nothing larger.

    Args:
      model: the int8 TFLite file.
      network: its layers.

    Raises:
      RuntimeError: the file's operators are not the network's.
    """
    found = _weighted_ranges(model)
    weighted = [layer.name for layer in network if layer.op in ("conv", "dense")]
    if len(found) != len(weighted):
        raise RuntimeError(f"{model.name} has {len(found)} weighted operators, not {len(weighted)}")
    limits = {INPUT: 255.0} | dict(zip(weighted, found, strict=True))
    for layer in network:
        if layer.name not in limits:
            limits[layer.name] = max(limits[name] for name in layer.inputs)
    return limits


def _weighted_ranges(model: pathlib.Path) -> list[float]:
    """Returns the largest absolute output of every convolution and dense layer in turn."""
    from ai_edge_litert import schema_py_generated as schema

    from deepmaker_jax.export.operators import operators

    data = model.read_bytes()
    root: Any = schema.Model.GetRootAsModel(data, 0)
    graph = root.Subgraphs(0)
    found = []
    for i, name in enumerate(operators(data)):
        if name in WEIGHTED:
            quantization = graph.Tensors(graph.Operators(i).Outputs(0)).Quantization()
            scale, zero = float(quantization.Scale(0)), int(quantization.ZeroPoint(0))
            found.append(scale * max(127 - zero, zero + 128))
    return found


def choose_types(
    network: tuple[Layer, ...], weights: dict[str, Any], limits: dict[str, float]
) -> dict[str, Types]:
    """Returns the types of every layer.

    Args:
      network: folded layers.
      weights: their parameters, by layer.
      limits: of what leaves each layer, and of the image.
    """
    return {layer.name: _types(layer, weights.get(layer.name, {}), limits) for layer in network}


def _types(layer: Layer, weights: dict[str, np.ndarray], limits: dict[str, float]) -> Types:
    limit, source = limits[layer.name], max(limits[name] for name in layer.inputs)
    if layer.op in ("conv", "dense"):
        kernel = np.abs(np.asarray(weights["kernel"], np.float64))
        bias = np.abs(np.asarray(weights.get("bias", [0.0]), np.float64))
        # A type's largest value may exceed the range that it was chosen for twofold.
        most = float(np.max(kernel.reshape(-1, kernel.shape[-1]).sum(0) * 2 * source + bias))
        total = integer_bits(most) + 1
        return Types(
            weight=signed(float(kernel.max()), WEIGHT_BITS),
            bias=signed(float(bias.max()), WEIGHT_BITS + 8),
            accum=f"fixed<{total + SUM_FRACTION_BITS},{total}>",
            result=f"fixed<{total + SUM_FRACTION_BITS},{total}>",
            activated=unsigned(limit, MAP_BITS) if layer.activation else "",
        )
    kept = PIXEL if layer.inputs == (INPUT,) else unsigned(limit, MAP_BITS)
    if layer.op == "concat":
        return Types(result=kept)
    # The mean of a whole map: the sum of as many values as 2^16.
    whole = integer_bits(limit) + 16
    return Types(accum=f"ufixed<{whole + MAP_BITS},{whole}>", result=kept)
