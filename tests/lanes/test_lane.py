"""Lanes train as plain networks do, and no lane feels its neighbours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepmaker_jax.arch import layers
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes.scratch import make_work
from deepmaker_jax.lanes.wiring import fit, take, valid
from deepmaker_jax.models import Network
from deepmaker_jax.train.lane import (
    Call,
    lane_feed,
    lane_state,
    run_in_turn,
    run_side_by_side,
)  # fmt: skip
from deepmaker_jax.train.optimizer import direction
from deepmaker_jax.train.step import Feed, init_state, plain_steps
from tests.lanes.drawn import draw, named, random_variables

SHAPE, BATCH, STEPS = (8, 8, 3), 8, 12
CLASS = named("small-3x3", SHAPE)
SETTINGS = TrainConfig(batch_size=BATCH, crop=1, flip=True, average_decay=0.9)
ARCHS = draw(SHAPE, num=6, size_class=CLASS, most=30_000, kernel=3)
RATE = 2.0**-7  # the same in float32 and float64


def cast(tree, dtype):
    return jax.tree.map(
        lambda x: np.asarray(x, dtype) if np.issubdtype(np.asarray(x).dtype, np.floating) else x,
        tree,
    )


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *trees)


def of(tree, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], tree)


@functools.cache
def data(dtype=np.float32):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, *SHAPE), dtype=np.uint8)
    return Feed(
        images=images,
        labels=rng.integers(0, 10, 64).astype(np.int32),
        input_scale=np.full(3, 1 / 64, dtype),
        key=jax.random.key(1),
        learning_rate=dtype(RATE),
        num_steps=np.int32(2 * STEPS),
    )


def start(arch, dtype=np.float32):
    variables = random_variables(arch, dtype)
    return cast(lane_state(fit(arch, CLASS), CLASS, variables, SETTINGS), dtype)


def feed(arch, dtype=np.float32):
    lane = fit(arch, CLASS)
    rest = {"learning_rate": RATE, "num_steps": 2 * STEPS}
    return cast(lane_feed(lane, CLASS, arch.optimizer, **rest), dtype)


def rows(seed):
    return np.random.default_rng(seed).integers(0, 64, (STEPS, BATCH)).astype(np.int32)


def call(seed=0, *, num_steps=STEPS, num_batches=2):
    num_valid = np.full(STEPS, BATCH - 3, np.int32)
    return Call(rows(seed), np.int32(num_steps), np.int32(num_batches), num_valid)


@functools.cache
def program(form, x64=False):
    return jax.jit({"map": run_in_turn, "vmap": run_side_by_side}[form](CLASS, SETTINGS))


def run(form, states, feeds, calls, dtype=np.float32):
    work = make_work(CLASS, BATCH, dtype)
    if form == "vmap":
        work = stacked([work] * len(feeds))
    go = program(form, dtype == np.float64)
    found, _, sums = go(data(dtype), stacked(states), work, stacked(feeds), stacked(calls))
    return [of(found, i) for i in range(len(feeds))], np.asarray(sums)


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module", params=["map", "vmap"])
def form(request):
    return request.param


@pytest.fixture(scope="module")
def four(form):
    """Four networks side by side or one after the other: (archs, states, sums)."""
    archs = ARCHS[:4]
    calls = [call(0), call(0, num_steps=5), call(2), call(0, num_batches=1)]
    return archs, calls, *run(form, [start(a) for a in archs], [feed(a) for a in archs], calls)


def test_ten_steps_equal_the_plain_networks(float64):
    archs = ARCHS[:4]
    states, sums = run(
        "map",
        [start(a, np.float64) for a in archs],
        [feed(a, np.float64) for a in archs],
        [call()] * 4,
        np.float64,
    )
    for arch, state, measured in zip(archs, states, sums, strict=True):
        variables = random_variables(arch, np.float64)
        params, batch_stats = variables["params"], variables["batch_stats"]
        opt_state = direction(arch.optimizer, SETTINGS).init(params)
        begin = cast(init_state(params, batch_stats, opt_state, SETTINGS), np.float64)
        steps = jax.jit(plain_steps(Network(layers(arch)), arch.optimizer, SETTINGS))
        plain = steps(begin, data(np.float64), rows(0), STEPS)
        lane = fit(arch, CLASS)

        def close(ours, theirs):
            np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-10)

        ours = take(lane, state.params | state.batch_stats)
        jax.tree.map(close, ours, {"params": plain.params, "batch_stats": plain.batch_stats})
        averaged = take(lane, state.average["params"] | state.average["batch_stats"])
        jax.tree.map(close, averaged, plain.average)
        assert state.step == plain.step == STEPS
        assert state.loss_sum == pytest.approx(float(plain.loss_sum), abs=1e-9)
        scale = {"constants": {"input_scale": data(np.float64).input_scale}}
        some = rows(0)[:2, : BATCH - 3].ravel()
        images = np.asarray(data().images)[some].astype(np.float64)
        logits = np.asarray(Network(layers(arch)).apply(plain.average | scale, images))
        labels = np.asarray(data().labels)[some]
        chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert measured[0] == (logits.argmax(-1) == labels).sum()
        assert measured[1] == pytest.approx(-chances[np.arange(10), labels].sum(), rel=1e-5)


def test_padding_stays_zero(four):
    archs, _, states, _ = four
    for arch, state in zip(archs, states, strict=True):
        for name, real in valid(fit(arch, CLASS), CLASS).items():
            assert not state.params[name][~real].any()
            for tree in jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, dict)):
                if isinstance(tree, dict) and name in tree:
                    assert not np.asarray(tree[name])[~real].any()


def test_a_lane_is_the_same_in_every_place_and_with_every_neighbour(form, four):
    archs, calls, states, sums = four
    order = [2, 0, 3, 1]
    others = [ARCHS[5], ARCHS[4], archs[3], archs[1]]
    moved, moved_sums = run(
        form, [start(archs[i]) for i in order], [feed(archs[i]) for i in order],
        [calls[i] for i in order],
    )  # fmt: skip
    for place, i in enumerate(order):
        same_bits(moved[place], states[i])
        np.testing.assert_array_equal(moved_sums[place], sums[i])
    beside, _ = run(form, [start(a) for a in others], [feed(a) for a in others], calls)
    same_bits(beside[3], run(form, [start(a) for a in [archs[1]] * 4],
        [feed(a) for a in [archs[1]] * 4], [calls[3]] * 4)[0][0])  # fmt: skip


def test_both_forms_agree(four, form):
    other = {"map": "vmap", "vmap": "map"}[form]
    archs, calls, states, sums = four
    found, found_sums = run(other, [start(a) for a in archs], [feed(a) for a in archs], calls)
    for ours, theirs in zip(states, found, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), ours, theirs
        )
    np.testing.assert_array_equal(sums[:, 0], found_sums[:, 0])


def test_a_lane_that_is_refilled_trains_as_if_it_had_been_first(form, four):
    """Slot 1 does 5 steps of one network, then the whole of another's."""
    archs, calls, states, _ = four
    feeds = [feed(a) for a in archs]
    feeds[1] = feed(archs[0])
    begun = [*states]
    begun[1] = start(archs[0])
    refilled, _ = run(form, begun, feeds, [calls[0]] * 4)
    same_bits(refilled[1], states[0])


def test_steps_in_two_calls_are_the_steps_of_one(form, four):
    archs, _, states, _ = four
    feeds = [feed(a) for a in archs]
    begun, _ = run(form, [start(a) for a in archs], feeds, [call(0, num_steps=5)] * 4)
    rest = call(0, num_steps=STEPS - 5)
    rest = rest._replace(rows=np.roll(rest.rows, -5, axis=0))
    same_bits(run(form, begun, feeds, [rest] * 4)[0][0], states[0])


def test_a_diverging_neighbour_spoils_nobody(form, four):
    archs, calls, states, _ = four
    feeds = [feed(a) for a in archs]
    feeds[0] = feeds[0]._replace(learning_rate=np.float32(1e30))
    found, _ = run(form, [start(a) for a in archs], feeds, calls)
    assert not np.isfinite(found[0].loss_sum)
    for i in (1, 2, 3):
        same_bits(found[i], states[i])
