"""Batch norm and input scale fold into the convolutions."""

import jax
import numpy as np
import pytest

from deepmaker_jax.arch import layers
from deepmaker_jax.export import Model
from deepmaker_jax.models import Network, fold
from tests.export.networks import CASES, genomes, random_images, random_variables

RANDOM = [
    *genomes("deepmaker", (16, 16, 3), num=4, seed=3),
    *genomes("deepmaker", (8, 8, 1), num=3, seed=4),
    *genomes("neuropower", (8, 8, 3), num=2, seed=5),
]


@pytest.mark.parametrize("arch", [*CASES.values(), *RANDOM], ids=[*CASES, *range(len(RANDOM))])
def test_folded_equals_unfolded(arch):
    variables, images = random_variables(arch), random_images(arch)
    images[0], images[1] = 0, 255
    network, weights = fold(layers(arch), variables)
    folded = jax.jit(Network(network, folded=True).apply)(weights, images.astype(np.float32))
    logits = Model.of("x", arch, variables).logits(images)
    assert abs(np.asarray(folded) - logits).max() <= 1e-5 * np.ptp(logits)


@pytest.mark.parametrize("name", ["relu, stem stride", "silu"])
def test_post_activation_networks_fold_to_convolutions_with_bias_alone(name):
    arch = CASES[name]
    network, weights = fold(layers(arch), random_variables(arch))
    assert not any(layer.norm for layer in network)
    weighted = {layer.name for layer in network if layer.op in ("conv", "dense")}
    assert weights.keys() == {"params"}
    assert weights["params"].keys() == weighted
    assert all(tree.keys() == {"kernel", "bias"} for tree in weights["params"].values())
