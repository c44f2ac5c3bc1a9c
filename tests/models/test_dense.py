"""A stage done as one operation gives what its layers give one by one, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepmaker_jax.arch import ArchSpec, Stage, layers
from deepmaker_jax.models import Network, network, stages


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def make(side, *stages, activation="relu", order="post", stem="none"):
    return ArchSpec((side, side, 3), 10, 6, stem, order, activation, stages, "sgd", 0)


def stage(num_layers=3, growth=6, kernel=3, connectivity="full", bottleneck=0):
    return Stage(num_layers, growth, kernel, bottleneck, connectivity, 50)


def step(arch, monkeypatch, pays):
    """Returns what a training step gives (logits, statistics, gradients), and what it asked."""
    asked = []

    def chosen(shape, stage):
        asked.append(pays)
        return pays

    monkeypatch.setattr(network, "pays", chosen)
    rng = np.random.default_rng(0)
    net = Network(layers(arch))
    x = jnp.asarray(rng.integers(0, 256, (6, *arch.input_shape)).astype(float))
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.1 * rng.standard_normal(leaf.shape)),
        net.init(jax.random.key(0), x),
    )
    variables["constants"]["input_scale"] = jnp.full(3, 1 / 64)

    def loss(params):
        known = variables | {"params": params}
        logits, new = net.apply(known, x, train=True, mutable=["batch_stats"])
        return (logits * jnp.arange(10)[None] + logits**2).sum(), (logits, new)

    (_, seen), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    return (seen, gradient), asked


@pytest.mark.parametrize(
    "arch",
    [
        make(16, stage(4), stage(1), activation="hard_swish"),
        make(32, stage(3, connectivity="harmonic"), stage(2, 3), activation="relu6"),
        make(16, stage(5, 4, connectivity="window"), activation="elu"),
        make(16, stage(2, 5, kernel=5), activation="tanh/relu"),
        make(64, stage(2), stem="pool"),
    ],
)
def test_a_stage_as_one_operation_is_its_layers_one_by_one(arch, monkeypatch):
    found, asked = step(arch, monkeypatch, True)
    wanted, _ = step(arch, monkeypatch, False)
    assert len(asked) == len(arch.stages)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-10 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(
    "arch",
    [
        make(16, stage(bottleneck=2)),
        make(16, stage(), order="pre"),
        make(16, stage(kernel=1)),
    ],
)
def test_other_stages_are_done_layer_by_layer(arch):
    assert stages.dense_stages(layers(arch)) == {}


@pytest.mark.parametrize(
    ("side", "num_layers", "growth", "pays"),
    [
        (32, 2, 8, True),
        (16, 2, 8, False),
        (8, 1, 16, True),
        (32, 1, 8, False),
        (4, 4, 16, False),
        (18, 4, 16, False),
    ],
)
def test_it_is_done_where_it_pays(side, num_layers, growth, pays):
    (found,) = stages.dense_stages(layers(make(side, stage(num_layers, growth)))).values()
    assert stages.pays((64, side, side, 6), found) == pays


def test_what_is_not_trained_in_float32_on_a_cpu_is_done_layer_by_layer(monkeypatch):
    arch = make(16, stage(4))
    monkeypatch.setattr(network, "dense", None)  # not called
    net = Network(layers(arch), compute="bfloat16")
    x = jnp.zeros((2, 16, 16, 3))
    variables = net.init(jax.random.key(0), x)
    net.apply(variables, x, train=True, mutable=["batch_stats"])
    Network(layers(arch)).apply(variables, x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    Network(layers(arch)).apply(variables, x, train=True, mutable=["batch_stats"])
