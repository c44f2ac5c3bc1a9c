"""Folding: the same function without batch norm and without an input scale."""

from typing import Any

import numpy as np

from deepmaker_jax.arch import INPUT, ArchSpec, Layer, layers
from deepmaker_jax.models.network import Network
from deepmaker_jax.models.ops import BATCH_NORM_EPSILON

Tree = dict[str, Any]


def fold(network: tuple[Layer, ...], variables: Tree) -> tuple[tuple[Layer, ...], Tree]:
    """Folds every batch norm and the input scale into the weights.

    A norm behind a convolution becomes that convolution's weights and bias. A
    norm that stands alone (pre-activation) becomes a scale and a shift: its
    neighbours are concatenations and activations, so it cannot go further.

    Args:
      network: the plain network's layers.
      variables: `params`, `batch_stats` and `constants` of `Network(network)`.

    Returns:
      (layers, variables) for `Network(layers, folded=True)`; float32, computed
      in float64.
    """
    params: Tree = {}
    for layer in network:
        weights = {k: np.asarray(v, np.float64) for k, v in _get(variables, "params", layer.name)}
        if INPUT in layer.inputs:
            scale = np.asarray(variables["constants"]["input_scale"], np.float64)
            weights["kernel"] = weights["kernel"] * scale[:, None]
        if layer.norm:
            scale, shift = _norm(variables, f"{layer.name}_bn")
            if layer.op == "conv":
                bias = weights.get("bias", 0.0)
                weights = {"kernel": weights["kernel"] * scale, "bias": bias * scale + shift}
            else:
                params[f"{layer.name}_bn"] = _float32({"scale": scale, "bias": shift})
        if weights:
            params[layer.name] = _float32(weights)
    folded = tuple(
        layer._replace(norm=False, bias=layer.bias or (layer.op == "conv" and layer.norm))
        for layer in network
    )
    return folded, {"params": params}


def folded_network(arch: ArchSpec, variables: Tree) -> tuple[Network, Tree]:
    """Returns an architecture's folded network and its variables, as exporters take them.

    Args:
      arch: the architecture.
      variables: of the plain `Network(layers(arch))`.
    """
    network, weights = fold(layers(arch), variables)
    return Network(network, folded=True), weights


def _get(variables: Tree, collection: str, name: str):
    return variables[collection].get(name, {}).items()


def _norm(variables: Tree, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a batch norm as (scale, shift), Float64[c] each."""
    learned = {k: np.asarray(v, np.float64) for k, v in _get(variables, "params", name)}
    running = {k: np.asarray(v, np.float64) for k, v in _get(variables, "batch_stats", name)}
    scale = learned["scale"] / np.sqrt(running["var"] + BATCH_NORM_EPSILON)
    return scale, learned["bias"] - running["mean"] * scale


def _float32(tree: Tree) -> Tree:
    return {name: value.astype(np.float32) for name, value in tree.items()}
