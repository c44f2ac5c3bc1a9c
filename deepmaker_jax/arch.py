"""Architectures: what a genome decodes to, and the layer list of a network.

`ArchSpec` is the compact, hashable description that stands in the ledger, in
`front.json` and in every bundle. `layers` turns it into a flat list of
operations in execution order, and everything that looks at a network reads that
one list: the Flax module, the cost model, the exporters and the drawings.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from deepmaker_jax.errors import InputError

Connectivity = Literal["full", "harmonic", "window"]
StemReduction = Literal["none", "stride", "pool"]
LayerOrder = Literal["post", "pre"]
Op = Literal["conv", "norm", "concat", "max_pool", "avg_pool", "global_pool", "dense"]

WINDOW = 3  # maps that a layer of a `window` stage sees
INPUT = "input"
ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu", "elu", "tanh", "sigmoid", "selu", "swish")
OPTIMIZERS = ("sgd", "adam", "adamw", "adagrad", "adamax", "nadam")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One dense stage: `num_layers` convolutions at one resolution.

    Attributes:
      num_layers: layers, each adding `growth` channels; at least 1.
      growth: channels that a layer adds.
      kernel: side of the layers' kernel in pixels, 3 or 5.
      bottleneck: a 1x1 convolution to `bottleneck * growth` channels goes
        before each layer; 0 for none.
      connectivity: which earlier maps a layer reads, see `sources`.
      compression_percent: channels that the transition after this stage keeps;
        0 in the last stage, which has no transition.
    """

    num_layers: int
    growth: int
    kernel: int
    bottleneck: int
    connectivity: Connectivity
    compression_percent: int


@dataclasses.dataclass(frozen=True)
class ArchSpec:
    """A network and how it is trained: everything that a genome decides.

    Attributes:
      input_shape: (h, w, c) of one image.
      num_classes: logits.
      stem_width: channels of the first 3x3 convolution.
      stem_reduction: "none", "stride" (the stem has stride 2) or "pool" (a 2x2
        max pool follows it).
      order: "post" puts batch norm and activation after each convolution, so
        that the norm folds into it; "pre" before it (DenseNet's own order).
      activation: a name, or "NEGATIVE/POSITIVE" for a different function on
        each side of zero.
      stages: at least one.
      optimizer: name of the update rule.
      learning_rate_log2: the optimizer's base learning rate is multiplied by 2
        to this power.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    stem_width: int
    stem_reduction: StemReduction
    order: LayerOrder
    activation: str
    stages: tuple[Stage, ...]
    optimizer: str
    learning_rate_log2: int


class Layer(NamedTuple):
    """One operation of a network.

    Attributes:
      name: unique in the network; its parameters' key.
      op: "conv" (then batch norm if `norm`, then `activation`), "norm" (batch
        norm, then `activation`), "concat", "max_pool" and "avg_pool" (2x2,
        stride 2, odd rims dropped), "global_pool" (mean over h, w), "dense".
      inputs: names of the layers it reads; "input" is the image.
      shape: (h, w, c) of the output; (c,) after the global pool.
      in_channels: channels it reads.
      kernel, stride: of a convolution.
      norm: batch norm between convolution and activation.
      bias: has a bias vector.
      activation: "" for none.
      stage: 1, 2, ... inside a stage, 0 outside; for drawings.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    in_channels: int
    kernel: int = 1
    stride: int = 1
    norm: bool = False
    bias: bool = False
    activation: str = ""
    stage: int = 0


@functools.cache
def sources(connectivity: Connectivity, layer: int) -> tuple[int, ...]:
    """Returns which maps layer `layer` (from 1) of a stage reads; 0 is the stage's input.

    "full" reads all (Huang et al. 2017); "window" the last three; "harmonic"
    map `layer - 2**i` for every i where 2**i divides `layer` (HarDNet, Chao et
    al. 2019, section 3; its width multiplier is left out, so that one growth
    holds for the stage).
    """
    if connectivity == "full":
        return tuple(range(layer))
    if connectivity == "window":
        return tuple(range(max(0, layer - WINDOW), layer))
    steps = [2**i for i in range(layer.bit_length()) if layer % 2**i == 0]
    return tuple(sorted(layer - step for step in steps))


@functools.cache
def outputs(connectivity: Connectivity, num_layers: int) -> tuple[int, ...]:
    """Returns the maps that leave a stage; 0 is its input.

    HarDNet drops the even maps but the last: they were read where they matter.
    """
    if connectivity == "harmonic":
        return tuple(i for i in range(1, num_layers + 1) if i % 2 == 1 or i == num_layers)
    return sources(connectivity, num_layers + 1)


def stage_channels(connectivity: Connectivity, channels: int, *, growth: int, depth: int) -> int:
    """Returns the channels that leave a stage of `depth` layers that `channels` enter."""
    return sum(growth if i else channels for i in outputs(connectivity, depth))


def transition_channels(channels: int, compression_percent: int) -> int:
    """Returns the channels after a transition: a multiple of 4, at least 4, rounded half up.

    A compression of 100 keeps the count as it is.
    """
    if compression_percent == 100:
        return channels
    return max(4, 4 * math.floor(channels * compression_percent / 400 + 0.5))


class _Builder:
    """Collects layers and their shapes while a network is laid out."""

    def __init__(self, arch: ArchSpec):
        self.arch = arch
        self.layers: list[Layer] = []
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: arch.input_shape}

    def add(
        self, name: str, op: Op, inputs: tuple[str, ...], shape: tuple[int, ...], **rest
    ) -> str:
        in_channels = sum(self.shapes[i][-1] for i in inputs)
        self.layers.append(Layer(name, op, inputs, shape, in_channels, **rest))
        self.shapes[name] = shape
        return name

    def conv(self, name: str, source: str, channels: int, *, kernel=3, stride=1, stage=0) -> str:
        h, w, _ = self.shapes[source]
        shape = (-(-h // stride), -(-w // stride), channels)
        post = self.arch.order == "post"
        activation = self.arch.activation if post else ""
        return self.add(
            name, "conv", (source,), shape, kernel=kernel, stride=stride, norm=post,
            activation=activation, stage=stage,
        )  # fmt: skip

    def norm(self, name: str, source: str, *, stage=0) -> str:
        """Pre-activation batch norm; nothing in a post-activation network."""
        if self.arch.order == "post":
            return source
        activation = self.arch.activation
        return self.add(
            name, "norm", (source,), self.shapes[source], norm=True, activation=activation,
            stage=stage,
        )  # fmt: skip

    def pool(self, name: str, op: Op, source: str, *, stage=0) -> str:
        h, w, c = self.shapes[source]
        return self.add(name, op, (source,), (h // 2, w // 2, c), stage=stage)

    def concat(self, name: str, inputs: tuple[str, ...], *, stage: int) -> str:
        if len(inputs) == 1:
            return inputs[0]
        h, w, _ = self.shapes[inputs[0]]
        channels = sum(self.shapes[i][-1] for i in inputs)
        return self.add(name, "concat", inputs, (h, w, channels), stage=stage)

    def dense_stage(self, index: int, stage: Stage, source: str) -> str:
        maps = [source]
        joined = source
        for i in range(1, stage.num_layers + 1):
            name = f"s{index}l{i}"
            if stage.connectivity == "full" and i > 1:
                # One growing concatenation: each map is copied as the last one's extension.
                joined = self.concat(f"{name}_in", (joined, maps[-1]), stage=index)
            elif stage.connectivity != "full":
                reads = tuple(maps[j] for j in sources(stage.connectivity, i))
                joined = self.concat(f"{name}_in", reads, stage=index)
            x = joined
            if stage.bottleneck:
                x = self.norm(f"{name}_squeeze_norm", x, stage=index)
                width = stage.bottleneck * stage.growth
                x = self.conv(f"{name}_squeeze", x, width, kernel=1, stage=index)
            x = self.norm(f"{name}_norm", x, stage=index)
            maps.append(self.conv(name, x, stage.growth, kernel=stage.kernel, stage=index))
        if stage.connectivity == "full":
            return self.concat(f"s{index}_out", (joined, maps[-1]), stage=index)
        leaving = tuple(maps[j] for j in outputs(stage.connectivity, stage.num_layers))
        return self.concat(f"s{index}_out", leaving, stage=index)


def layers(arch: ArchSpec) -> tuple[Layer, ...]:
    """Returns the network's operations in execution order; the last one gives the logits."""
    build = _Builder(arch)
    stride = 2 if arch.stem_reduction == "stride" else 1
    x = build.conv("stem", INPUT, arch.stem_width, stride=stride)
    if arch.stem_reduction == "pool":
        x = build.pool("stem_pool", "max_pool", x)
    for index, stage in enumerate(arch.stages, 1):
        x = build.dense_stage(index, stage, x)
        if index < len(arch.stages):
            width = transition_channels(build.shapes[x][-1], stage.compression_percent)
            x = build.norm(f"t{index}_norm", x)
            x = build.conv(f"t{index}", x, width, kernel=1)
            x = build.pool(f"t{index}_pool", "avg_pool", x)
    x = build.norm("head_norm", x)
    x = build.add("pool", "global_pool", (x,), build.shapes[x][-1:])
    build.add("logits", "dense", (x,), (arch.num_classes,), bias=True)
    return tuple(build.layers)


def conv_paths(found: tuple[Layer, ...]) -> tuple[int, int]:
    """Returns how many convolutions lie on the shortest and on the longest way through."""
    ways = {INPUT: (0, 0)}
    for layer in found:
        shortest, longest = zip(*(ways[name] for name in layer.inputs), strict=True)
        step = layer.op == "conv"
        ways[layer.name] = min(shortest) + step, max(longest) + step
    return ways[found[-1].name]


def smallest_side(arch: ArchSpec) -> int:
    """Returns the shorter side, in pixels, of the last feature map; 0 if it vanished."""
    return min(next(layer.shape[:2] for layer in reversed(layers(arch)) if len(layer.shape) == 3))


def split_activation(name: str) -> tuple[str, str]:
    """Returns the activation's names for x < 0 and x >= 0."""
    negative, _, positive = name.partition("/")
    return negative, positive or negative


def to_json(arch: ArchSpec) -> dict[str, Any]:
    """Returns the architecture as plain JSON values; `from_json` is its inverse."""
    value = dataclasses.asdict(arch)
    value["input_shape"] = list(arch.input_shape)
    value["stages"] = list(value["stages"])
    return value


def from_json(value: Any) -> ArchSpec:
    """Rebuilds an architecture from `to_json`'s object.

    Raises:
      InputError: a key is missing, unknown or out of range.
    """
    try:
        fields = dict(value)
        shape = tuple(_whole(n, "input_shape") for n in fields.pop("input_shape"))
        stages = tuple(_stage(stage) for stage in fields.pop("stages"))
        arch = ArchSpec(input_shape=shape, stages=stages, **fields)  # type: ignore[arg-type]
        check(arch)
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise InputError(f"not an architecture: {error}") from error
    return arch


def _stage(value: Mapping[str, Any]) -> Stage:
    return Stage(**dict(value))


def _whole(value: Any, name: str, low: int = 1, high: int = 1 << 16) -> int:
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{name} (={value!r}) must be a whole number in {low}..{high}")
    return value


def check(arch: ArchSpec) -> None:
    """Raises InputError unless every field of `arch` is in its range and the image survives."""
    if len(arch.input_shape) != 3:
        raise InputError(f"input_shape (={arch.input_shape}) must be (height, width, channels)")
    _whole(arch.num_classes, "num_classes", 2)
    _whole(arch.stem_width, "stem_width")
    _one_of(arch.stem_reduction, "stem_reduction", get_args(StemReduction))
    _one_of(arch.order, "order", get_args(LayerOrder))
    for name in split_activation(arch.activation):
        _one_of(name, "activation", ACTIVATIONS)
    _one_of(arch.optimizer, "optimizer", OPTIMIZERS)
    _whole(arch.learning_rate_log2, "learning_rate_log2", -20, 20)
    if not 1 <= len(arch.stages) <= 16:
        raise InputError(f"stages (={len(arch.stages)}) must be 1..16")
    for index, stage in enumerate(arch.stages, 1):
        last = index == len(arch.stages)
        _whole(stage.num_layers, "num_layers", 1, 512)
        _whole(stage.growth, "growth", 1, 4096)
        _one_of(stage.kernel, "kernel", (1, 3, 5, 7))
        _whole(stage.bottleneck, "bottleneck", 0, 16)
        _one_of(stage.connectivity, "connectivity", get_args(Connectivity))
        _whole(stage.compression_percent, "compression_percent", 0 if last else 1, 100)
    if smallest_side(arch) < 1:
        h, w, _ = arch.input_shape
        raise InputError(
            f"images of {h}x{w} are too small for {len(arch.stages)} stages with stem "
            f"{arch.stem_reduction}: use fewer stages or larger images"
        )


def _one_of(value: Any, name: str, allowed: tuple) -> None:
    if value not in allowed:
        raise InputError(f"{name} (={value!r}) must be one of {', '.join(map(str, allowed))}")
