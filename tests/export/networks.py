"""Small networks with random weights, and what they export to."""

import functools

import numpy as np

from deepmaker_jax.arch import ArchSpec, Stage, layers
from deepmaker_jax.cost import cost
from deepmaker_jax.export import (
    Model,
    to_jax_export,
    to_onnx,
    to_stablehlo,
    to_tflite,
    to_tflite_int8,
)
from deepmaker_jax.spaces import SPACES
from deepmaker_jax.train.init import random_variables

NUM_IMAGES = 24


class Exported:
    """A network, its test images and its files, each made when it is first asked for.

    Attributes:
      arch, variables, model: the network.
      images: uint8[n, h, w, c].
    """

    def __init__(self, arch: ArchSpec):
        self.arch, self.variables = arch, random_variables(arch)
        self.images = random_images(arch)
        self.model = Model.of("x", self.arch, self.variables)

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """Float32[n, classes], JAX's."""
        return self.model.logits(self.images)

    @functools.cached_property
    def float32(self) -> bytes:
        return to_tflite(self.arch, self.variables)

    @functools.cached_property
    def float16(self) -> bytes:
        return to_tflite(self.arch, self.variables, "float16")

    @functools.cached_property
    def dynamic(self) -> bytes:
        return to_tflite(self.arch, self.variables, "dynamic")

    @functools.cached_property
    def int8(self) -> bytes:
        return to_tflite_int8(self.arch, self.variables, random_images(self.arch, num=8, seed=1))

    @functools.cached_property
    def stablehlo(self) -> bytes:
        return to_stablehlo(self.arch, self.variables)

    @functools.cached_property
    def jax_export(self) -> bytes:
        return to_jax_export(self.arch, self.variables)

    @functools.cached_property
    def onnx(self) -> bytes:
        return to_onnx(self.arch, self.variables)


def make(activation="relu", *, shape=(16, 16, 3), stem="none", order="post", depths=(2, 2),
         kernel=3, bottleneck=0, connectivity="full", compression=50) -> ArchSpec:  # fmt: skip
    stages = tuple(
        Stage(depth, 8, kernel, bottleneck, connectivity, compression if i else 0)
        for i, depth in enumerate(depths, 1 - len(depths))
    )
    return ArchSpec(shape, 10, 12, stem, order, activation, stages, "sgd", 0)


def genomes(name: str, shape: tuple[int, int, int], *, num: int, seed: int = 0) -> list[ArchSpec]:
    """Returns architectures of random genomes, small enough for a test."""
    space, rng, found = SPACES[name](shape, 10), np.random.default_rng(seed), []
    while len(found) < num:
        arch = space.decode(space.sample(rng, num=1)[0])
        if cost(arch).params < 70_000 and len(layers(arch)) < 50:
            found.append(arch)
    return found


# Each activation, connectivity, stem reduction and odd side once.
CASES = {
    "relu, stem stride": make(stem="stride"),
    "relu, stem stride, odd sides": make(stem="stride", shape=(15, 13, 3)),
    "relu6, window, bottleneck, 5x5": make(
        "relu6", connectivity="window", bottleneck=2, kernel=5, depths=(4,)
    ),
    "hard_swish, harmonic, stem pool, 28 to 3": make(
        "hard_swish", connectivity="harmonic", stem="pool", shape=(28, 28, 1), depths=(4, 1, 1)
    ),
    "silu": make("silu"),
    "elu": make("elu"),
    "elu and selu": make("elu/selu", order="pre", compression=100),
    "tanh and swish": make("tanh/swish", order="pre", compression=100),
    "sigmoid and relu": make("sigmoid/relu", order="pre", compression=100),
} | {
    f"{name} {shape} {i}": arch
    for name, shape, num in (
        ("deepmaker", (16, 16, 3), 3),
        ("deepmaker", (8, 8, 1), 2),
        ("neuropower", (16, 16, 3), 1),
    )
    for i, arch in enumerate(genomes(name, shape, num=num))
}


def random_images(arch: ArchSpec, *, num: int = NUM_IMAGES, seed: int = 0) -> np.ndarray:
    """Returns uint8[num, h, w, c], smooth enough to differ in more than noise."""
    rng = np.random.default_rng(seed)
    h, w, c = arch.input_shape
    noise = rng.normal(0, 30, (num, h, w, c)) + rng.normal(128, 60, (num, 1, 1, c))
    return np.clip(noise + np.linspace(-60, 60, w)[:, None], 0, 255).astype(np.uint8)
