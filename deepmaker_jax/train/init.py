"""Initial weights, drawn by NumPy: no program is compiled for them."""

import hashlib
from typing import Any

import jax
import numpy as np

from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.models import Network


def shapes(arch: ArchSpec) -> dict[str, Any]:
    """Returns the shapes and dtypes of the plain network's variables, nothing computed."""
    network = Network(layers(arch))
    image = jax.ShapeDtypeStruct((1, *arch.input_shape), np.float32)
    return jax.eval_shape(network.init, jax.random.key(0), image)


def init(arch: ArchSpec, *, seed: int, input_scale: np.ndarray) -> dict[str, Any]:
    """Returns the initial variables of an architecture, float32.

    Kernels are normal with variance 2 / fan-in (He et al. 2015), the last
    layer's with 1 / fan-in; scales and variances are 1, the rest 0. Every leaf
    has a stream of its own, so a layer's weights depend on (seed, name, shape)
    alone.

    Args:
      arch: the architecture.
      seed: the run's seed.
      input_scale: Float[c], multiplies the raw pixels.
    """

    def leaf(path, like):
        names = [part.key for part in path]
        if names[0] == "constants":
            return np.asarray(input_scale, np.float32)
        if names[-1] in ("scale", "var"):
            return np.ones(like.shape, np.float32)
        if names[-1] != "kernel":
            return np.zeros(like.shape, np.float32)
        digest = hashlib.sha256(f"{seed}/{'/'.join(names)}/{like.shape}".encode()).digest()
        rng = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little")))
        gain = 1.0 if len(like.shape) == 2 else 2.0
        deviation = np.sqrt(gain / np.prod(like.shape[:-1]))
        return (deviation * rng.standard_normal(like.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes(arch))


def random_variables(arch: ArchSpec, *, seed: int = 0) -> dict[str, Any]:
    """Returns initial kernels, and batch norms as a training may leave them, float32.

    What such a network exports to has the size and the speed of a trained one's
    files: with `init`'s norms every bias would be the same vector of zeros.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return np.asarray(rng.normal(0, deviation, leaf.shape), np.float32)
        if name == "input_scale":
            return np.full(leaf.shape, 1 / 64, np.float32)
        value = rng.normal(0, 0.3, leaf.shape)
        return np.asarray(abs(1 + value) if name in ("var", "scale") else value, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(arch))
