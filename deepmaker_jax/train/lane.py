"""Training in a size class: steps and evaluation of one lane, and of many side by side."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes.backward import value_and_grad as value_and_grad_of_lane
from deepmaker_jax.lanes.forward import predict
from deepmaker_jax.lanes.scratch import Work, make_work
from deepmaker_jax.lanes.size_class import SizeClass
from deepmaker_jax.lanes.wiring import STATISTICS, Counts, Lane, Wiring, empty, put, take, valid
from deepmaker_jax.models.network import running_average
from deepmaker_jax.train.optimizer import Cycle, direction, rule_state
from deepmaker_jax.train.step import Feed, Rule, TrainState, ValueAndGrad, init_state, make_step
from deepmaker_jax.types import Array

Tree = Any


class LaneFeed(NamedTuple):
    """What distinguishes a lane and does not change while it trains.

    Attributes:
      wiring: its network.
      valid: Bool, like its parameters: True where the plain network has an entry.
      optimizer: Int[], index into the size class's.
      learning_rate: Float[], at its peak.
      cycle: Int[2], of its learning rate, see `Feed`.
    """

    wiring: Wiring
    valid: dict[str, Array]
    optimizer: Array
    learning_rate: Array
    cycle: Array


class Call(NamedTuple):
    """What a lane does in one call.

    Attributes:
      rows: Int[k, b], examples of each step, or of each batch to evaluate.
      num_steps: Int[], steps to train, at most k.
      num_batches: Int[], batches to evaluate, at most k.
      num_valid: Int[k], examples of each batch that count.
    """

    rows: Array
    num_steps: Array
    num_batches: Array
    num_valid: Array


def of_lane(size_class: SizeClass, feed: LaneFeed, trips: Counts) -> ValueAndGrad:
    """Returns the loss and gradient of a lane's network; padding has none."""

    def value_and_grad(params, batch_stats, common, x, loss, work):
        value, gradient, found, work = value_and_grad_of_lane(
            size_class, params, feed.wiring, trips, work,
            x * common.input_scale[None, None, None, :], loss,
        )  # fmt: skip
        gradient = jax.tree.map(lambda g, real: jnp.where(real, g, 0), gradient, feed.valid)
        return value, gradient, jax.tree.map(running_average, batch_stats, found), work

    return value_and_grad


def optimizers(size_class: SizeClass, kind: Array, settings: TrainConfig) -> Rule:
    """Returns the update rule of a lane: one of the size class's, by number."""
    rules = {name: direction(name, settings) for name in size_class.optimizers}
    if len(rules) == 1:
        ((name, rule),) = rules.items()

        def only(gradient, opt_state, params):
            update, new = rule.update(gradient, opt_state[name], params)
            return update, {name: new}

        return only

    def one(name):
        def branch(gradient, opt_state, params):
            update, new = rules[name].update(gradient, opt_state[name], params)
            return update, opt_state | {name: new}

        return branch

    def rule_of(gradient, opt_state, params):
        return jax.lax.switch(kind, [one(name) for name in rules], gradient, opt_state, params)

    return rule_of


def lane_state(lane: Lane, size_class: SizeClass, variables: Tree, settings: TrainConfig):
    """Returns a lane's state before the first step, from the plain network's variables."""
    arrays = put(lane, size_class, variables)
    params = {name: value for name, value in arrays.items() if name not in STATISTICS}
    starts = {name: rule_state(direction(name, settings), params) for name in size_class.optimizers}
    return init_state(params, {name: arrays[name] for name in STATISTICS}, starts)


def variables_of(lane: Lane, state: TrainState) -> Tree:
    """Returns the plain network's `params` and `batch_stats` that a lane's training has led to."""
    return take(lane, {**state.params, **state.batch_stats})


def lane_feed(
    lane: Lane, size_class: SizeClass, optimizer: str, *, learning_rate: float, cycle: Cycle
) -> LaneFeed:
    """Returns what distinguishes a lane."""
    return LaneFeed(
        wiring=lane.wiring,
        valid=valid(lane, size_class),
        optimizer=np.int32(size_class.optimizers.index(optimizer)),
        learning_rate=np.float32(learning_rate),
        cycle=np.array(cycle, np.int32),
    )


def idle(size_class: SizeClass, settings: TrainConfig) -> tuple[TrainState, LaneFeed]:
    """Returns the state and the feed of a lane without a network."""
    lane, optimizer = empty(size_class), size_class.optimizers[0]
    state = lane_state(lane, size_class, {"params": {}, "batch_stats": {}}, settings)
    return state, lane_feed(lane, size_class, optimizer, learning_rate=0.0, cycle=Cycle(0, 1))


def scratch(size_class: SizeClass, settings: TrainConfig) -> Work:
    """Returns a lane's cleared scratch memory."""
    compute = jnp.dtype(settings.compute)
    return make_work(size_class, settings.batch_size, compute=compute)


class Trips(NamedTuple):
    """How often the loops of lanes that run side by side go round: as often as any needs."""

    counts: Counts
    num_steps: Array
    num_batches: Array


def run_lane(
    size_class: SizeClass, settings: TrainConfig, common: Feed, trips: Trips | None,
    state: TrainState, work: Work, feed: LaneFeed, call: Call,
):  # fmt: skip
    """Trains and evaluates one lane as a call says.

    Args:
      size_class: static shapes.
      settings: the recipe.
      common: the data; learning rate and length are the lane's own.
      trips: of the lanes beside it, or None if it runs alone.
      state: the lane's.
      work: scratch memory.
      feed: what distinguishes the lane.
      call: what it does now.

    Returns:
      (state, work, Float[k, 2]: correct answers and the sum of the losses in each
      batch of the call that was evaluated).
    """
    turns = trips or Trips(feed.wiring.counts, call.num_steps, call.num_batches)
    common = common._replace(learning_rate=feed.learning_rate, cycle=feed.cycle)
    step = make_step(
        of_lane(size_class, feed, turns.counts),
        optimizers(size_class, feed.optimizer, settings),
        settings,
    )

    def train(i, carry):
        before, work = carry
        state, work = step(before, work, common, call.rows[i])
        if trips is not None:
            live = i < call.num_steps
            state = jax.tree.map(lambda new, old: jnp.where(live, new, old), state, before)
        return state, work

    state, work = jax.lax.fori_loop(0, turns.num_steps, train, (state, work))

    def evaluate(i, carry):
        work, sums = carry
        rows = call.rows[i]
        x = common.images[rows].astype(jnp.float32) * common.input_scale[None, None, None, :]
        logits, work = predict(
            size_class, state.params, state.batch_stats, feed.wiring, turns.counts, work, x
        )
        labels = common.labels[rows]
        counts = (jnp.arange(len(rows)) < call.num_valid[i]) & (i < call.num_batches)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        right = jnp.where(counts & (logits.argmax(-1) == labels), 1.0, 0.0)
        found = jnp.stack([right.sum(), jnp.where(counts, losses, 0.0).sum()])
        return work, sums.at[i].set(found)

    sums = jnp.zeros((len(call.rows), 2))
    work, sums = jax.lax.fori_loop(0, turns.num_batches, evaluate, (work, sums))
    return state, work, sums


def run_in_turn(size_class: SizeClass, settings: TrainConfig):
    """Returns `run(common, states, work, feeds, calls)` for a CPU: lanes one after the other.

    Lanes share one scratch memory; each runs its own number of loops, steps and
    batches, and nothing of its neighbours'.
    """

    def run(common, states, work, feeds, calls):
        def lane(work, of):
            state, feed, call = of
            state, work, sums = run_lane(
                size_class, settings, common, None, state, work, feed, call
            )
            # What a diverged lane leaves would reach the next one: 0 times NaN is NaN. A gradient
            # that overflows in the last step shows in the weights alone.
            spoilt = jnp.where(_all_finite((state, sums)), 0, 1)
            work = jax.lax.fori_loop(
                0, spoilt, lambda _, work: jax.tree.map(jnp.zeros_like, work), work
            )
            return work, (state, sums)

        work, (states, sums) = jax.lax.scan(lane, work, (states, feeds, calls))
        return states, work, sums

    return run


def _all_finite(tree: Tree) -> Array:
    """Returns Bool[]: whether no number of a tree is NaN or infinite."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def shared_trips(counts: Counts, calls: Call) -> tuple[Counts, Trips]:
    """Returns the loop counts of lanes that run side by side.

    Args:
      counts: of each lane's network, [lane, ...]; a slot keeps those of the
        candidate that has left it.
      calls: what each lane does now.

    Returns:
      (each lane's own counts, 0 where it does nothing; the largest of each).
    """
    busy = (calls.num_steps > 0) | (calls.num_batches > 0)
    counts = jax.tree.map(lambda x: jnp.where(busy.reshape(-1, *[1] * (x.ndim - 1)), x, 0), counts)
    most = jax.tree.map(lambda x: x.max(0), counts)
    return counts, Trips(most, calls.num_steps.max(), calls.num_batches.max())


def run_side_by_side(size_class: SizeClass, settings: TrainConfig):
    """Returns `run(common, states, work, feeds, calls)` for an accelerator: lanes by `vmap`.

    Loops go round as often as the busy lane with most turns needs; the others'
    turns go to the trash, and steps beyond a lane's own leave its state as it is.
    """

    def run(common, states, work, feeds, calls):
        counts, trips = shared_trips(feeds.wiring.counts, calls)
        feeds = feeds._replace(wiring=feeds.wiring._replace(counts=counts))

        def lane(state, work, feed, call):
            return run_lane(size_class, settings, common, trips, state, work, feed, call)

        return jax.vmap(lane)(states, work, feeds, calls)

    return run


def run_on_devices(size_class: SizeClass, settings: TrainConfig, mesh: jax.sharding.Mesh):
    """Returns `run_side_by_side` with its lanes split over the devices of a mesh of one axis.

    Each device runs its own lanes' loops: nothing crosses between them, so a
    lane's bits depend on how many lanes its device has and on nothing else.
    """
    (axis,) = mesh.axis_names
    split, whole = jax.sharding.PartitionSpec(axis), jax.sharding.PartitionSpec()
    return jax.shard_map(
        run_side_by_side(size_class, settings),
        mesh=mesh,
        in_specs=(whole, split, split, split, split),
        out_specs=split,
        check_vma=False,  # loop counts differ between devices on purpose
    )
