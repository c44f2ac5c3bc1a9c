"""Which parts of a layer list are dense stages that can be done as one operation."""

import functools
import itertools
from typing import NamedTuple

from deepmaker_jax.arch import Layer
from deepmaker_jax.models.winograd import TILE


class StageWiring(NamedTuple):
    """How a stage's layers are joined. Map 0 is the stage's input, map l layer l's output.

    Attributes:
      side: of all kernels.
      reads: for each layer the maps that it reads, among them the one before it.
      leaves: the maps that leave, the last among them.
      activation: behind each norm.
      transition: what follows is a 1x1 convolution with norm and activation, and the mean
        of 2x2 pixels; else the mean of the whole map.
    """

    side: int
    reads: tuple[tuple[int, ...], ...]
    leaves: tuple[int, ...]
    activation: str
    transition: bool


class DenseStage(NamedTuple):
    """A stage of a layer list that can be done as one operation, with what follows it.

    Attributes:
      wiring: of its layers.
      convs: names of its convolutions, the transition's last if there is one.
      source: name of the layer that it reads.
      output: name of the pool that ends it.
      names: of all layers that it stands for.
      growth: channels of each layer.
    """

    wiring: StageWiring
    convs: tuple[str, ...]
    source: str
    output: str
    names: frozenset[str]
    growth: int


@functools.cache
def dense_stages(layers: tuple[Layer, ...]) -> dict[str, DenseStage]:
    """Returns the stages of post-activation layers without bottlenecks, by their first layer."""
    found = {}
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer)
    for number in sorted({layer.stage for layer in layers} - {0}):
        inside = {layer.name: layer for layer in layers if layer.stage == number}
        convs = [layer for layer in inside.values() if layer.op == "conv"]
        sides = {layer.kernel for layer in convs}
        others = any(layer.op not in ("conv", "concat") for layer in inside.values())
        if others or 1 in sides or not all(layer.norm for layer in convs):
            continue  # pre-activation, or bottlenecks

        def maps(name: str, inside: dict[str, Layer] = inside) -> list[str]:
            if name in inside and inside[name].op == "concat":
                return list(itertools.chain.from_iterable(map(maps, inside[name].inputs)))
            return [name]

        (source,) = maps(convs[0].inputs[0])
        place = {name: i for i, name in enumerate([source, *(layer.name for layer in convs)])}
        (last,) = {n for n in inside if any(r.stage != number for r in readers[n])}
        (end,) = readers[last]
        transition = end.op == "conv"
        (pool,) = readers[end.name] if transition else (end,)
        wiring = StageWiring(
            side=sides.pop(),
            reads=tuple(tuple(place[n] for n in maps(layer.inputs[0])) for layer in convs),
            leaves=tuple(place[n] for n in maps(last)),
            activation=convs[0].activation,
            transition=transition,
        )
        names = tuple(layer.name for layer in convs) + ((end.name,) if transition else ())
        alike = frozenset({*inside, *names, pool.name})
        found[convs[0].name] = DenseStage(
            wiring, names, source, pool.name, alike, growth=convs[0].shape[-1]
        )
    return found


def pays(shape: tuple[int, ...], stage: DenseStage) -> bool:
    """Whether training a stage by this form is faster (benchmarks/results/dense_stage.json).

    Narrow stages gain less than their program takes longer to compile, unless they are large. With
    5x5 kernels large stages gain about a tenth, deep ones 1.2 to 1.3 times.

    Args:
      shape: (b, h, w, c) of the stage's input.
      stage: the stage.
    """
    height, width = shape[1:3]
    whole = all(size % TILE == 0 and size >= 2 * TILE for size in (height, width))
    if stage.wiring.side == 3 and stage.growth >= 16:
        return whole
    num_layers = len(stage.wiring.reads)
    is_large = height * width >= 32 * 32 and num_layers * stage.growth >= 16
    is_deep = height * width >= 16 * 16 and num_layers >= 4 and stage.growth >= 8
    return whole and (is_large or (is_deep and stage.wiring.side == 5)) and stage.wiring.side <= 5
