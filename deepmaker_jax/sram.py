"""Working memory of devices, from a network's layer list alone: which tensors are alive when.

`peak_activation_bytes` is the least that any runtime needs which runs the layers
in order, none in place. `arena_bytes` is what TensorFlow Lite Micro takes of it,
`ethos_u_sram_bytes` what an Ethos-U does. Both are compared with the tools' own
figures in `benchmarks/device_costs.py`.
"""

import collections
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from deepmaker_jax.arch import INPUT, Layer, split_activation

ALIGNMENT = 16  # bytes, of TFLM's arena and of Vela's tensors
# What TFLM keeps beside activations, on a 64-bit machine: for the model, a convolution or dense
# layer, any other operator. Fitted: benchmarks/results/device_costs.json. A channel's multiplier
# and shift are two int32.
ARENA_MODEL_BYTES = 574
ARENA_WEIGHTED_LAYER_BYTES = 278
ARENA_OPERATOR_BYTES = 168
ARENA_CHANNEL_BYTES = 8
# Ethos-U keeps maps in bricks of 16 channels, but for convolutions of fewer channels than this.
BRICK_CHANNELS, LEAST_BRICK_CHANNELS = 16, 8
TABLES = ("relu", "relu6", "hard_swish", "tanh", "sigmoid")  # activations that it looks up
ETHOS_CHANNEL_BYTES = 10  # bias, multiplier and shift of a channel, packed


WEIGHTED = ("conv", "dense")


class Step(NamedTuple):
    """One operator of the int8 file.

    Attributes:
      output: the tensor it writes, named after its layer.
      inputs: the tensors it reads.
      output_bytes: int8.
      layer: that it is of.
    """

    output: str
    inputs: tuple[str, ...]
    output_bytes: int
    layer: Layer


class Life(NamedTuple):
    """A tensor: its size and the first and the last step in which it is alive."""

    num_bytes: int
    first: int
    last: int


def steps(network: Iterable[Layer]) -> list[Step]:
    """Returns what a device runs, one operator after the other.

    relu and relu6 are fused into the step before them. Every other activation
    is a step of its own that reads one tensor and writes another; silu and
    swish are a sigmoid and a product, elu and selu a mask and four more. A
    two-sided activation computes a mask and both sides and selects. A batch
    norm that stands alone is a scale and a shift.
    """
    found: list[Step] = []
    for layer in network:
        size = math.prod(layer.shape)
        tail: list[tuple[str, tuple[str, ...]]] = []
        if layer.op == "norm":
            tail += [("scale", layer.inputs), ("shift", ("scale",))]
        else:
            tail += [("raw", layer.inputs)]
        negative, positive = split_activation(layer.activation)
        before = tail[-1][0]
        if layer.activation and negative != positive:
            tail.append(("mask", (before,)))
            sides = []
            for side, name in (("negative", negative), ("positive", positive)):
                tail += _activation_steps(name, before, side)
                sides.append(tail[-1][0])
            tail.append(("select", ("mask", *sides)))
        elif negative not in ("", "relu", "relu6"):
            tail += _activation_steps(negative, before, "only")
        own = {name: f"{layer.name}/{name}" for name, _ in tail}
        own[tail[-1][0]] = layer.name
        for name, reads in tail:
            found.append(Step(own[name], tuple(own.get(r, r) for r in reads), size, layer))
    return found


def _activation_steps(name: str, source: str, tag: str) -> list[tuple[str, tuple[str, ...]]]:
    if name in ("silu", "swish"):
        return [(f"{tag}_sigmoid", (source,)), (f"{tag}_product", (source, f"{tag}_sigmoid"))]
    if name in ("elu", "selu"):  # where(x > 0, x, exp(x where x <= 0) - 1): no int8 kernel has it
        mask, safe, power, below = (f"{tag}_{part}" for part in ("mask", "safe", "power", "below"))
        return [
            (mask, (source,)),
            (safe, (source, mask)),
            (power, (safe,)),
            (below, (power,)),
            (f"{tag}_{name}", (source, mask, below)),
        ]
    return [(f"{tag}_{name}", (source,))]


def lives(run: Sequence[Step], input_shape: tuple[int, ...]) -> dict[str, Life]:
    """Returns how long each tensor lives, the image included, in the order they are written.

    A tensor lives from the step that writes it to the last step that reads it,
    both included; a concatenation writes a new tensor.
    """
    last = {name: i for i, step in enumerate(run) for name in step.inputs}
    image = {INPUT: Life(math.prod(input_shape), 0, last.get(INPUT, 0))}
    return image | {
        step.output: Life(step.output_bytes, i, last.get(step.output, i))
        for i, step in enumerate(run)
    }


def _most_alive(tensors: Iterable[Life], extra: Sequence[int]) -> int:
    """Returns the largest sum of bytes alive in one step; `extra` is added step by step."""
    change = [0] * (len(extra) + 1)
    for tensor in tensors:
        change[tensor.first] += tensor.num_bytes
        change[tensor.last + 1] -= tensor.num_bytes
    alive, peak = 0, 0
    for delta, more in zip(change, extra, strict=False):
        alive += delta
        peak = max(peak, alive + more)
    return peak


def peak_activation_bytes(network: tuple[Layer, ...], input_shape: tuple[int, ...]) -> int:
    """Returns the largest sum of int8 tensors alive at once, in bytes.

    Steps run in the layer list's order, none in place. Weights are in flash, not
    counted; nor are the runtime's own structures. The int8 file has the same
    tensors, and sometimes a requantised copy of a map that several
    concatenations read.
    """
    run = steps(network)
    return _most_alive(lives(run, input_shape).values(), [0] * len(run))


def planned_bytes(tensors: Sequence[Life]) -> int:
    """Returns the bytes between the first and the last address of tensors as TFLM places them.

    The largest first, each at the lowest address that is free for as long as it
    lives; of equal ones the last first. Tensors that do not live at once may
    overlap, but gaps stay: no plan is below the peak, and some are above it.

    Source: TensorFlow Lite Micro, `memory_planner/greedy_memory_planner.cc`.
    """
    num_steps = 1 + max((tensor.last for tensor in tensors), default=0)
    alive: list[list[tuple[int, int]]] = [[] for _ in range(num_steps)]  # (start, end) by step
    top = 0
    for i in sorted(range(len(tensors)), key=lambda i: (-tensors[i].num_bytes, -i)):
        size, life = tensors[i].num_bytes, alive[tensors[i].first : tensors[i].last + 1]
        start = 0
        for taken, end in sorted({place for step in life for place in step}):
            if taken - start >= size:
                break
            start = max(start, end)
        for step in life:
            step.append((start, start + size))
        top = max(top, start + size)
    return top


def arena_bytes(network: tuple[Layer, ...], input_shape: tuple[int, ...]) -> int:
    """Returns the estimated arena that TensorFlow Lite Micro needs for the int8 file.

    Its plan of the activations, and its own structures. A requantised copy that
    trained ranges ask for is not foreseen.
    """
    run = steps(network)
    tensors = [
        life._replace(num_bytes=aligned(life.num_bytes, ALIGNMENT))
        for life in lives(run, input_shape).values()
    ]
    weighted = [layer for layer in network if layer.op in WEIGHTED]
    return (
        planned_bytes(tensors)
        + ARENA_MODEL_BYTES
        + ARENA_WEIGHTED_LAYER_BYTES * len(weighted)
        + ARENA_OPERATOR_BYTES * (len(run) - len(weighted))
        + ARENA_CHANNEL_BYTES * sum(layer.shape[-1] for layer in weighted)
    )


def ethos_u_sram_bytes(network: tuple[Layer, ...], input_shape: tuple[int, ...]) -> int:
    """Returns the estimated SRAM of an Ethos-U that Vela optimises for speed.

    An activation of one table is computed with its convolution. What a
    concatenation alone reads is written where it goes. Maps are bricks of 16
    channels, except where a part of a concatenation would begin inside a brick,
    behind a convolution of few channels, and for elu. Weights are fetched into
    SRAM while the operator before theirs runs.
    """
    plain = _not_in_bricks(network)
    run = [
        step if step.layer.name in plain else step._replace(output_bytes=_brick_bytes(step.layer))
        for step in steps(map(_fused, network))
    ]
    readers = collections.Counter(name for step in run for name in step.inputs)
    place = {
        name: step.output
        for step in run
        if step.layer.op == "concat"
        for name in step.inputs
        if readers[name] == 1
    }
    tensors: dict[str, Life] = {}
    for name, life in lives(run, input_shape).items():
        while name in place:
            name = place[name]
        known = tensors.get(name, life)
        # A concatenation comes after its parts: its own size stays.
        tensors[name] = Life(
            life.num_bytes, min(known.first, life.first), max(known.last, life.last)
        )
    weights = [_ethos_weight_bytes(step) for step in run]
    fetched = [own + following for own, following in zip(weights, [*weights[1:], 0], strict=True)]
    return _most_alive(tensors.values(), fetched)


def _fused(layer: Layer) -> Layer:
    """Returns a layer with no step for an activation that an Ethos-U looks up in a table."""
    if layer.activation in TABLES:
        return layer._replace(activation="")
    if layer.activation in ("silu", "swish"):  # the product is written over the sigmoid: one step
        return layer._replace(activation="hard_swish")
    return layer


def _not_in_bricks(network: tuple[Layer, ...]) -> set[str]:
    """Returns the layers whose maps have no more channels than they should."""
    channels = {layer.name: layer.shape[-1] for layer in network}
    plain = set()
    for layer in network:
        starts = itertools.accumulate((channels[name] for name in layer.inputs[:-1]), initial=0)
        if (
            len(layer.shape) != 3
            or (layer.op == "conv" and layer.shape[-1] < LEAST_BRICK_CHANNELS)
            or (layer.op == "concat" and any(start % BRICK_CHANNELS for start in starts))
            or not set(split_activation(layer.activation)) <= {"", *TABLES, "silu", "swish"}
        ):
            plain.add(layer.name)
    return plain


def _brick_bytes(layer: Layer) -> int:
    h, w, channels = layer.shape
    return h * w * aligned(channels, BRICK_CHANNELS)


def _ethos_weight_bytes(step: Step) -> int:
    """Returns what a step's weights and biases take in SRAM; 0 for the activation behind them."""
    layer = step.layer
    if layer.op not in WEIGHTED or step.inputs != layer.inputs:
        return 0
    channels = layer.shape[-1]
    return (layer.kernel**2 * layer.in_channels + ETHOS_CHANNEL_BYTES) * channels


def aligned(size: int, alignment: int) -> int:
    """Returns the next multiple of `alignment` that is not below `size`."""
    return -(-size // alignment) * alignment
