"""The network of a wiring is the plain network: outputs, gradients, statistics, to rounding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify

from deepmaker_jax.arch import Stage, layers
from deepmaker_jax.lanes import pooling
from deepmaker_jax.lanes.backward import value_and_grad
from deepmaker_jax.lanes.forward import predict
from deepmaker_jax.lanes.level import levels, patches
from deepmaker_jax.lanes.scratch import make_work
from deepmaker_jax.lanes.size_class import WHOLE_BATCH, table
from deepmaker_jax.lanes.wiring import STATISTICS, fit, put, take, turns, valid
from deepmaker_jax.models import Network
from deepmaker_jax.models.network import BATCH_NORM_MOMENTUM
from tests.examples import SMALL
from tests.lanes.drawn import draw, named, random_variables

BATCH = 12
NAMES = [c.name for c in table((16, 16, 3), 10)]


@functools.cache
def compiled(size_class):
    def go(params, wiring, work, x, y):
        def loss(logits):
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        return value_and_grad(size_class, params, wiring, wiring.counts, work, x, loss)

    return jax.jit(go)


def plain(arch, variables, x, y):
    """Returns (loss, gradient, batch means and variances) of the plain network."""

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def go(params):
        whole = {
            "params": params,
            "batch_stats": variables["batch_stats"],
            "constants": {"input_scale": np.ones(x.shape[-1], x.dtype)},
        }
        logits, new = Network(layers(arch)).apply(whole, x, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new["batch_stats"]

    (value, running), gradient = go(variables["params"])
    keep = BATCH_NORM_MOMENTUM
    found = jax.tree.map(
        lambda new, old: (new - keep * old) / (1 - keep), running, variables["batch_stats"]
    )
    return value, gradient, found


def batch(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 256, (BATCH, *shape)) / 64).astype(dtype), rng.integers(0, 10, BATCH)


def check(arch, size_class, dtype, tolerance):
    lane, variables = fit(arch, size_class), random_variables(arch, dtype)
    arrays = put(lane, size_class, variables)
    params = {name: value for name, value in arrays.items() if name not in STATISTICS}
    x, y = batch(arch.input_shape, dtype)
    value, gradient, found, _ = compiled(size_class)(
        params, lane.wiring, make_work(size_class, BATCH, dtype), x, y
    )
    wanted = plain(arch, variables, x, y)
    np.testing.assert_allclose(value, wanted[0], rtol=tolerance)
    taken = take(lane, gradient | found)

    def close(ours, theirs):
        theirs = np.asarray(theirs)
        np.testing.assert_allclose(ours, theirs, atol=tolerance * max(1e-3, np.abs(theirs).max()))

    jax.tree.map(close, taken["params"], jax.device_get(wanted[1]))
    jax.tree.map(close, taken["batch_stats"], jax.device_get(wanted[2]))
    return lane, gradient, found


def various(archs, choices):
    """Returns the networks that have a choice which none before them has."""
    seen, chosen = set(), []
    for arch in archs:
        if not seen.issuperset(choices(arch).items()):
            chosen.append(arch)
        seen |= choices(arch).items()
    return chosen


@pytest.mark.parametrize("name", NAMES)
def test_padded_equals_plain_in_every_class(float64, name):
    size_class = named(name)
    sizes = {"small": (0, 60_000), "medium": (60_000, 200_000), "large": (200_000, 600_000)}
    low, high = sizes[name.split("-")[0]]
    (arch,) = draw((16, 16, 3), num=1, size_class=size_class, at_least=low, most=high,
        kernel=int(name[-1]))  # fmt: skip
    lane, _, found = check(arch, size_class, np.float64, 1e-10)
    inside = np.zeros(len(found["mean"]), bool)
    for (collection, _, leaf), (_, index) in lane.places.items():
        if collection == "batch_stats" and leaf == "mean":
            inside[index] = True
    for statistic in found.values():  # padding's running averages stay zero
        np.testing.assert_array_equal(np.asarray(statistic)[~inside], 0)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shape", [(13, 10, 1), (9, 24, 4)])
def test_padded_equals_plain_on_odd_sides(float64, shape, whole, monkeypatch):
    """In chunks of a few images, and in one as on an accelerator."""
    size_class = named("small-5x5", shape)
    if whole:
        monkeypatch.setattr(pooling, "WIDE", BATCH)
        size_class = size_class._replace(num_pixels=WHOLE_BATCH)
    archs = draw(shape, num=6, size_class=size_class, most=60_000, kernel=5)
    for arch in various(archs, lambda arch: {"stem": arch.stem_reduction}):
        check(arch, size_class, np.float64, 1e-10)
    assert {arch.stem_reduction for arch in archs} >= {"none", "pool"}


def test_the_draws_cover_the_space(float64):
    """One class, many networks: every connectivity, bottleneck, stem, activation."""
    size_class = named("small-3x3")
    archs = draw((16, 16, 3), num=18, size_class=size_class, most=60_000, kernel=3)

    def choices(arch):
        return {
            "connectivity": arch.stages[0].connectivity,
            "bottleneck": arch.stages[0].bottleneck,
            "stem": arch.stem_reduction,
            "activation": arch.activation,
        }

    chosen = various(archs, choices)
    for arch in chosen:
        check(arch, size_class, np.float64, 1e-10)
    wanted = {
        "connectivity": {"full", "harmonic", "window"},
        "bottleneck": {0, 2, 4},
        "stem": {"none", "stride", "pool"},
        "activation": {"relu", "relu6", "hard_swish", "silu", "elu"},
    }
    assert {gene: {choices(arch)[gene] for arch in chosen} for gene in wanted} == wanted


def test_float32_agrees_to_rounding():
    """Rounding flips relu masks, so single entries differ by more than the rounding itself."""
    size_class = named("small-3x3")
    for arch in draw((16, 16, 3), num=2, size_class=size_class, most=60_000, kernel=3, seed=3):
        check(arch, size_class, np.float32, 2e-2)


def test_prediction_uses_the_running_statistics(float64):
    size_class = named("small-3x3")
    run = jax.jit(functools.partial(predict, size_class))
    for arch in draw((16, 16, 3), num=3, size_class=size_class, most=60_000, kernel=3, seed=1):
        lane, variables = fit(arch, size_class), random_variables(arch, np.float64)
        arrays = put(lane, size_class, variables)
        params = {name: value for name, value in arrays.items() if name not in STATISTICS}
        statistics = {name: arrays[name] for name in STATISTICS}
        x, _ = batch(arch.input_shape, np.float64)
        work = make_work(size_class, BATCH, np.float64)
        logits, _ = run(params, statistics, lane.wiring, lane.wiring.counts, work, x)
        constants = {"constants": {"input_scale": np.ones(3)}}
        wanted = jax.jit(Network(layers(arch)).apply)(variables | constants, x)
        np.testing.assert_allclose(logits, wanted, atol=1e-10)


def test_what_stands_in_the_scratch_memory_changes_nothing():
    size_class = named("small-3x3")
    arch = draw((16, 16, 3), num=1, size_class=size_class, most=60_000, kernel=3)[0]
    lane, variables = fit(arch, size_class), random_variables(arch, np.float32)
    params = {
        name: value
        for name, value in put(lane, size_class, variables).items()
        if name not in STATISTICS
    }
    x, y = batch(arch.input_shape, np.float32)
    clean = make_work(size_class, BATCH)
    used = jax.tree.map(lambda leaf: jnp.full_like(leaf, 7.0), clean)
    results = [compiled(size_class)(params, lane.wiring, work, x, y)[:3] for work in (clean, used)]
    real = valid(lane, size_class)
    for a, b in zip(*results, strict=True):
        if isinstance(a, dict) and a.keys() == real.keys():
            a, b = ({n: np.where(real[n], v, 0) for n, v in t.items()} for t in (a, b))
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("batch_size", [1, 12, 64, 50])
def test_chunks_hold_the_whole_batch_and_each_other(batch_size):
    above = None
    for level in levels(named("small-3x3", (29, 30, 3)), batch_size):
        assert level.num_chunks * level.num_images == batch_size
        assert above is None or level.num_images % above.num_images == 0
        above = level


@pytest.mark.parametrize("side", [3, 5])
def test_patches_are_the_neighbourhoods(side):
    level = levels(named("small-3x3", (6, 5, 3)), 4)[0]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 5, level.num_images)).astype(np.float32)
    found = np.asarray(patches(jnp.asarray(x.reshape(2, -1)), level, side))
    reach = side // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    wanted = [padded[:, i : i + 6, j : j + 5] for i in range(side) for j in range(side)]
    np.testing.assert_array_equal(found, np.concatenate([w.reshape(2, -1) for w in wanted]))


def test_no_loop_reaches_beyond_an_array():
    """Beside a lane whose every loop is longer, in a class that leaves it no room to spare."""
    stage = Stage(2, 16, 3, 2, "full", 50)
    large = dataclasses.replace(SMALL, input_shape=(8, 8, 3), stem_width=16, stages=(stage, stage))
    small = dataclasses.replace(large, stem_width=8, stages=(dataclasses.replace(stage, growth=8),))
    kinds = {"activations": ("relu",), "optimizers": ("sgd",)}
    of = table((8, 8, 3), 10, **kinds)[0]._replace(
        num_rows=(160, 128), num_stem=2, num_convs=32, num_pointwise=16
    )
    lane = fit(small, of)
    beside = jax.tree.map(np.maximum, lane.wiring.counts, fit(large, of).wiring.counts)
    assert turns(fit(large, of)) > 2 * turns(lane)
    arrays = put(lane, of, random_variables(small, np.float32))
    params = {name: value for name, value in arrays.items() if name not in STATISTICS}
    statistics = {name: arrays[name] for name in STATISTICS}
    x, _ = batch((8, 8, 3), np.float32)

    def go(params, statistics, wiring, trips, work, x):
        def loss(logits):
            return (logits * logits).mean()

        value, _, _, work = value_and_grad(of, params, wiring, trips, work, x, loss)
        return value, predict(of, params, statistics, wiring, trips, work, x)[0]

    checked = jax.jit(checkify.checkify(go, errors=checkify.index_checks))
    error, (value, logits) = checked(
        params, statistics, lane.wiring, beside, make_work(of, BATCH), x
    )
    error.throw()
    alone = jax.jit(go)(
        params, statistics, lane.wiring, lane.wiring.counts, make_work(of, BATCH), x
    )
    np.testing.assert_allclose(value, alone[0], rtol=1e-5)
    np.testing.assert_allclose(logits, alone[1], rtol=1e-4, atol=1e-5)
