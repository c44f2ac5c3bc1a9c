"""Lanes train as plain networks do, and no lane feels its neighbours."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepmaker_jax.arch import layers
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes import pooling
from deepmaker_jax.lanes.scratch import make_work
from deepmaker_jax.lanes.size_class import WHOLE_BATCH, table
from deepmaker_jax.lanes.wiring import fit, take, valid
from deepmaker_jax.models import Network
from deepmaker_jax.train.lane import (
    Call,
    lane_feed,
    lane_state,
    run_in_turn,
    run_side_by_side,
    shared_trips,
)  # fmt: skip
from deepmaker_jax.train.optimizer import Cycle, direction
from deepmaker_jax.train.step import Feed, init_state, plain_steps
from tests.lanes.drawn import draw, named, random_variables

SHAPE, BATCH, STEPS = (8, 8, 3), 8, 12
CLASS = named("small-3x3", SHAPE)
SETTINGS = TrainConfig(batch_size=BATCH, crop=1, flip=True)
ARCHS = draw(SHAPE, num=6, size_class=CLASS, most=30_000, kernel=3)
SMALL_TABLE = table((4, 4, 3), 10)
OTHERS = [c.name for c in SMALL_TABLE if c.name != CLASS.name]
CYCLE = Cycle(0, 2 * STEPS)
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
def data(dtype=np.float32, shape=SHAPE):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, *shape), dtype=np.uint8)
    return Feed(
        images=images,
        labels=rng.integers(0, 10, 64).astype(np.int32),
        input_scale=np.full(3, 1 / 64, dtype),
        key=jax.random.key(1),
        learning_rate=dtype(RATE),
        cycle=np.array(CYCLE, np.int32),
    )


def start(arch, dtype=np.float32, size_class=CLASS):
    variables = random_variables(arch, dtype)
    return cast(lane_state(fit(arch, size_class), size_class, variables, SETTINGS), dtype)


def feed(arch, dtype=np.float32, size_class=CLASS):
    lane = fit(arch, size_class)
    rest = {"learning_rate": RATE, "cycle": CYCLE}
    return cast(lane_feed(lane, size_class, arch.optimizer, **rest), dtype)


def rows(seed):
    return np.random.default_rng(seed).integers(0, 64, (STEPS, BATCH)).astype(np.int32)


def call(seed=0, *, num_steps=STEPS, num_batches=2):
    num_valid = np.full(STEPS, BATCH - 3, np.int32)
    return Call(rows(seed), np.int32(num_steps), np.int32(num_batches), num_valid)


@functools.cache
def program(form, x64=False, size_class=CLASS):
    return jax.jit({"map": run_in_turn, "vmap": run_side_by_side}[form](size_class, SETTINGS))


def cleared(form, num, dtype=np.float32, size_class=CLASS):
    """Returns the scratch memory of a program of `num` lanes before its first call."""
    work = make_work(size_class, BATCH, dtype)
    return stacked([work] * num) if form == "vmap" else work


def run(form, states, feeds, calls, dtype=np.float32, size_class=CLASS):
    work = cleared(form, len(feeds), dtype, size_class)
    return run_on(work, form, states, feeds, calls, dtype, size_class)[:2]


def run_on(work, form, states, feeds, calls, dtype=np.float32, size_class=CLASS):
    """Does one call in scratch memory as the call before has left it; returns it last."""
    go = program(form, dtype == np.float64, size_class)
    common = data(dtype, size_class.input_shape)
    found, work, sums = go(common, stacked(states), work, stacked(feeds), stacked(calls))
    return [of(found, i) for i in range(len(feeds))], np.asarray(sums).sum(1), work


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


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_ten_steps_equal_the_plain_networks(float64, how, monkeypatch):
    """One after the other as a CPU runs them, and side by side as an accelerator does."""
    size_class = CLASS
    if how == "vmap":
        monkeypatch.setattr(pooling, "WIDE", BATCH)
        size_class = CLASS._replace(num_pixels=WHOLE_BATCH)
    archs = [*ARCHS[:3], dataclasses.replace(ARCHS[3], optimizer="adamw")]
    assert {arch.optimizer for arch in archs} == {"sgd", "adam", "adamw"}
    check_steps(how, archs, size_class)


@pytest.mark.parametrize("name", OTHERS)
def test_ten_steps_equal_the_plain_network_in_every_class(float64, name):
    """A small network, of images of 4x4, whose programs are small too."""
    size_class = next(c for c in SMALL_TABLE if c.name == name)
    wishes = {"kernel": size_class.kernel, "most": 30_000}
    check_steps("map", draw((4, 4, 3), num=1, size_class=size_class, **wishes), size_class)


@functools.cache
def plainly(arch):
    """Returns the state that a network's own program comes to, in float64."""
    variables = random_variables(arch, np.float64)
    params, batch_stats = variables["params"], variables["batch_stats"]
    opt_state = direction(arch.optimizer, SETTINGS).init(params)
    begin = cast(init_state(params, batch_stats, opt_state), np.float64)
    steps = jax.jit(plain_steps(Network(layers(arch)), arch.optimizer, SETTINGS))
    return steps(begin, data(np.float64, arch.input_shape), rows(0), STEPS)


def check_steps(how, archs, size_class):
    """Compares steps and the measurement behind them with the plain networks'."""
    common = data(np.float64, size_class.input_shape)
    states, sums = run(
        how,
        [start(a, np.float64, size_class) for a in archs],
        [feed(a, np.float64, size_class) for a in archs],
        [call()] * len(archs),
        np.float64,
        size_class,
    )
    for arch, state, measured in zip(archs, states, sums, strict=True):
        plain = plainly(arch)
        lane = fit(arch, size_class)

        def close(ours, theirs):
            np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-10)

        ours = take(lane, state.params | state.batch_stats)
        jax.tree.map(close, ours, {"params": plain.params, "batch_stats": plain.batch_stats})
        assert state.step == plain.step == STEPS
        assert state.loss_sum == pytest.approx(float(plain.loss_sum), abs=1e-9)
        scale = {"constants": {"input_scale": common.input_scale}}
        some = rows(0)[:2, : BATCH - 3].ravel()
        images = np.asarray(common.images)[some].astype(np.float64)
        logits = np.asarray(jax.jit(Network(layers(arch)).apply)(plain.trained | scale, images))
        labels = np.asarray(common.labels)[some]
        chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert measured[0] == (logits.argmax(-1) == labels).sum()
        assert measured[1] == pytest.approx(-chances[np.arange(10), labels].sum(), rel=1e-5)


def test_padding_stays_zero(four):
    """In the weights, what the optimizers remember and the running statistics."""
    archs, _, states, _ = four
    is_params = lambda x: isinstance(x, dict) and "conv" in x  # noqa: E731
    kinds = set()
    for arch, state in zip(archs, states, strict=True):
        lane = fit(arch, CLASS)
        remembered = [
            tree
            for tree in jax.tree.leaves(state.opt_state[arch.optimizer], is_leaf=is_params)
            if is_params(tree)
        ]
        assert len(remembered) == {"sgd": 1}.get(arch.optimizer, 2)
        kinds.add(arch.optimizer)
        for name, real in valid(lane, CLASS).items():
            for tree in (state.params, *remembered):
                assert tree[name][real].any() == real.any()
                assert not tree[name][~real].any()
        real = valid(lane, CLASS)["scale"]  # a norm's scale and its statistics lie alike
        for statistic in state.batch_stats.values():
            assert statistic[real].all()
            assert not statistic[~real].any()
    assert len(kinds) > 1


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
    """Slot 1 does 37 steps of one network, then the whole of another's, in the same memory."""
    archs, calls, states, _ = four
    feeds, work = [feed(a) for a in archs], cleared(form, 4)
    begun, _, work = run_on(work, form, [start(a) for a in archs], feeds, calls)
    same_bits(begun[1], states[1])
    for num in (12, 12, 8):
        begun, _, work = run_on(work, form, begun, feeds, [call(1, num_steps=num)] * 4)
    assert begun[1].step == 37
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(work))
    feeds[1], begun[1] = feed(archs[0]), start(archs[0])
    refilled, _, _ = run_on(work, form, begun, feeds, [calls[0]] * 4)
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


def test_a_slot_without_a_candidate_sets_nobodys_loops(four, form):
    """The candidate that has left slot 1 was the largest: its wiring still stands there."""
    archs, calls, states, sums = four
    archs, order = [archs[0], ARCHS[4], archs[2], archs[3]], [0, 2, 3]
    idle = call(num_steps=0, num_batches=0)
    calls, feeds = [calls[0], idle, *calls[2:]], [feed(a) for a in archs]
    begun = [start(a) for a in archs]
    found, found_sums = run(form, begun, feeds, calls)
    for i in order:
        same_bits(found[i], states[i])
        np.testing.assert_array_equal(found_sums[i], sums[i])
    same_bits(found[1], begun[1])
    own, trips = shared_trips(stacked(feeds).wiring.counts, stacked(calls))
    busy = [feeds[i].wiring.counts for i in order]
    jax.tree.map(lambda a, *b: np.testing.assert_array_equal(a, np.max(b, 0)), trips.counts, *busy)
    assert int(trips.counts.num_groups.max()) < int(feeds[1].wiring.counts.num_groups.max())
    same_bits(of(own, 0), busy[0])
    assert not any(np.asarray(leaf)[1].any() for leaf in jax.tree.leaves(own))


def test_a_gradient_that_overflows_in_the_last_step_spoils_nobody(four, form):
    """Its loss is a number, and nothing is measured: only its weights tell.

    It is the largest, so that what it leaves lies where the next ones read by blocks. Each of its
    norms divides by the root of epsilon: the maps keep their size, the gradients grow.
    """
    archs, calls, states, _ = four
    archs = [ARCHS[4], *archs[1:]]
    begun = [start(a) for a in archs]
    scale = np.where(valid(fit(archs[0], CLASS), CLASS)["scale"], np.float32(3e33), 0)
    params = begun[0].params
    begun[0] = begun[0]._replace(
        params=params
        | {name: params[name] * np.float32(1e-36) for name in ("stem", "conv", "pointwise")}
        | {"scale": scale, "head": params["head"] * np.float32(1e6)}
    )
    calls = [call(0, num_steps=1, num_batches=0), *calls[1:]]
    found, _ = run(form, begun, [feed(a) for a in archs], calls)
    assert np.isfinite(found[0].loss_sum)
    assert not np.isfinite(found[0].params["bias"]).all()
    for i in (1, 2, 3):
        same_bits(found[i], states[i])
