"""Update rules and learning rates."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deepmaker_jax.arch import OPTIMIZERS
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.train.optimizer import base_learning_rate, direction, rule_state, schedule
from tests.examples import ARCH

PLAIN = TrainConfig(weight_decay=0.0)
PARAMS = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full((3,), 2.0)}
GRADIENT = {"kernel": jnp.full((2, 3), 0.5), "bias": jnp.full((3,), -0.25)}


def updates(name, settings, *, steps=3):
    rule = direction(name, settings)
    state = rule.init(PARAMS)
    for _ in range(steps):
        update, state = rule.update(GRADIENT, state, PARAMS)
    return update


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("sgd", optax.sgd(1.0, momentum=0.9, nesterov=True)),
        ("adam", optax.adam(1.0)),
        ("nadam", optax.nadam(1.0)),
        ("adamax", optax.adamax(1.0)),
        ("adagrad", optax.adagrad(1.0)),
        ("adamw", optax.adamw(1.0, weight_decay=0.0)),
    ],
)
def test_each_rule_is_optaxs_at_a_learning_rate_of_one(name, reference):
    state = reference.init(PARAMS)
    for _ in range(3):
        expected, state = reference.update(GRADIENT, state, PARAMS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(-a, b, rtol=1e-6), updates(name, PLAIN), expected
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_reaches_kernels_only(name):
    decayed = updates(name, TrainConfig(weight_decay=0.1), steps=1)
    plain = updates(name, PLAIN, steps=1)
    np.testing.assert_array_equal(decayed["bias"], plain["bias"])
    if name in ("sgd", "adamw"):  # the others divide by the gradient's own size
        assert (decayed["kernel"] > plain["kernel"]).all()


def test_adamws_decay_is_not_divided_by_the_gradients_size():
    decayed = updates("adamw", TrainConfig(weight_decay=0.01), steps=1)
    plain = updates("adamw", PLAIN, steps=1)
    np.testing.assert_allclose(decayed["kernel"] - plain["kernel"], 0.1 * 2.0, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_the_first_state_is_optaxs(name, strength):
    rule = direction(name, TrainConfig(weight_decay=strength, clip_norm=1.0))
    expected, found = rule.init(PARAMS), rule_state(rule, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
    chex.assert_trees_all_equal(found, jax.device_get(expected))


def test_clipping_bounds_the_whole_gradients_norm():
    settings = dataclasses.replace(PLAIN, clip_norm=0.1, momentum=0.0)
    update = updates("sgd", settings, steps=1)
    assert float(optax.tree.norm(update)) == pytest.approx(0.1, rel=1e-5)


def test_one_cycle_rises_for_a_quarter_and_falls_to_zero():
    values = [float(schedule("one_cycle", jnp.float32(p))) for p in (0, 0.125, 0.25, 0.625, 1)]
    np.testing.assert_allclose(values, [0, 0.5, 1, 0.5, 0], atol=1e-6)


def test_cosine_starts_at_the_peak_and_constant_stays_there():
    assert float(schedule("cosine", jnp.float32(0))) == 1
    assert float(schedule("cosine", jnp.float32(1))) == pytest.approx(0, abs=1e-6)
    assert float(schedule("constant", jnp.float32(0.7))) == 1


def test_the_learning_rate_gene_doubles_and_halves():
    settings = TrainConfig(sgd_learning_rate=0.2, adam_learning_rate=0.01)
    arch = dataclasses.replace(ARCH, optimizer="sgd", learning_rate_log2=1)
    assert base_learning_rate(arch, settings) == pytest.approx(0.4)
    arch = dataclasses.replace(ARCH, optimizer="adamw", learning_rate_log2=-1)
    assert base_learning_rate(arch, settings) == pytest.approx(0.005)
