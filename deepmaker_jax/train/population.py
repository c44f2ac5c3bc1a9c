"""Many candidates in the lanes of one program; as one ends, the next takes its slot."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepmaker_jax.config import TrainConfig
from deepmaker_jax.errors import InputError, StorageError, TimeLimitError
from deepmaker_jax.lanes.size_class import SizeClass
from deepmaker_jax.lanes.wiring import fit
from deepmaker_jax.train.candidate import Score, Split, Trained
from deepmaker_jax.train.course import Course, Job
from deepmaker_jax.train.init import init
from deepmaker_jax.train.lane import (
    Call,
    idle,
    lane_feed,
    lane_state,
    run_on_devices,
    scratch,
    variables_of,
)
from deepmaker_jax.train.optimizer import base_learning_rate
from deepmaker_jax.train.runner import (
    STEPS_A_CALL,
    Pace,
    compiled,
    in_batches,
    padded,
    shapes_of,
    total,
)
from deepmaker_jax.train.step import Feed, TrainState, options

Tree = Any


class Population:
    """The slots of a size class's program, on one or more devices."""

    def __init__(
        self,
        size_class: SizeClass,
        data: Split,
        *,
        settings: TrainConfig,
        seed: int,
        input_scale: np.ndarray,
        num_lanes: int,
        devices: Sequence[Any] | None = None,
    ):
        """Compiles the program, unless this process has it, and clears its memory.

        Args:
          size_class: what the candidates must fit.
          data: images; one program serves all rows of it.
          settings: the recipe.
          seed: of the initial weights, the examples' order and the augmentation.
          input_scale: Float[c], multiplies the raw pixels.
          num_lanes: slots, the same number on each device.
          devices: those of this process, if None.
        """
        self._class, self._settings, self._seed = size_class, settings, seed
        self._scale, self.num_lanes = np.asarray(input_scale, np.float32), num_lanes
        mesh = jax.sharding.Mesh(np.array(devices or jax.local_devices()), ("lanes",))
        spec = jax.sharding.PartitionSpec
        self._split = jax.sharding.NamedSharding(mesh, spec("lanes"))
        whole = jax.sharding.NamedSharding(mesh, spec())
        common = Feed(
            data.images,
            data.labels,
            self._scale,
            jax.random.key(seed),
            np.float32(0),
            np.zeros(2, np.int32),
        )
        self._common = jax.device_put(common, whole)
        began = time.perf_counter()
        self._run, cleared = compiled(
            ("lanes", size_class, settings, shapes_of(self._common), num_lanes, mesh),
            functools.partial(self._compile, mesh),
        )
        self._compile_seconds = time.perf_counter() - began
        self._states, self._work, self._feeds = cleared()
        self._slots: list[_Slot | None] = [None] * num_lanes
        self._spoilt = [False] * num_lanes  # scratch memory that may hold NaN
        self._pace = Pace()

    def _shapes(self) -> tuple[Tree, Tree, Tree]:
        """Returns the shapes of the lanes' states, scratch memory and feeds."""
        size_class, settings = self._class, self._settings

        def stacked(tree):
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(
                    (self.num_lanes, *x.shape), x.dtype, sharding=self._split
                ),
                tree,
            )

        work = jax.eval_shape(lambda: scratch(size_class, settings))
        state, feed = idle(size_class, settings)
        return stacked(state), stacked(work), stacked(feed)

    def _compile(self, mesh: jax.sharding.Mesh) -> tuple[Any, Any]:
        """Returns the program, and the one that makes what it is first called with."""
        shapes = states, work, feeds = self._shapes()

        def zeros():
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        run = jax.jit(run_on_devices(self._class, self._settings, mesh), donate_argnums=(1, 2))
        lowered = run.lower(self._common, states, work, feeds, self._call([]))
        cleared = jax.jit(zeros, out_shardings=self._split).lower()
        return lowered.compile(options(in_class=True)), cleared.compile()

    def memory(self) -> int:
        """Returns what the program needs of a device's memory by XLA's analysis, in bytes."""
        found = self._run.memory_analysis()
        shared = found.output_size_in_bytes - found.alias_size_in_bytes
        return found.argument_size_in_bytes + found.temp_size_in_bytes + shared

    def train(
        self,
        next_job: Callable[[], Job | None],
        on_call: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Job, Trained | Exception]]:
        """Trains what `next_job` gives, until it gives None and every slot is empty.

        Args:
          next_job: asked whenever a slot is free.
          on_call: called after each call; raises to leave.

        Yields:
          (job, what became of it) in the order in which they end; an exception
          if a job could not even begin, took too long, or its checkpoint not be written.
        """
        while True:
            for i in range(self.num_lanes):
                while self._slots[i] is None and (job := next_job()) is not None:
                    try:
                        slot = self._slots[i] = self._begin(i, job)
                    except Exception as error:  # noqa: BLE001 - one job must not end the others
                        yield job, error
                        continue
                    if self._has_ended(i, slot):  # its checkpoint was the last one
                        self._slots[i] = None
                        yield job, slot.result()
            if not any(self._slots):
                return
            self._go_on()
            on_call()
            for i, slot in enumerate(self._slots):
                if slot is not None and self._has_ended(i, slot):
                    self._slots[i] = None
                    yield slot.job, slot.result()

    def _begin(self, i: int, job: Job) -> "_Slot":
        """Puts a candidate into a slot."""
        course = Course(job, self._settings, seed=self._seed)
        lane = fit(job.arch, self._class)
        variables = job.start or init(job.arch, seed=self._seed, input_scale=self._scale)
        constants = variables["constants"]
        if not np.array_equal(constants["input_scale"], self._scale):
            raise InputError(
                f"start (input_scale={constants['input_scale']}) must have this run's scale, "
                f"{self._scale}: train it with --program plain"
            )
        feed = lane_feed(
            lane, self._class, job.arch.optimizer,
            learning_rate=base_learning_rate(job.arch, self._settings), cycle=course.cycle,
        )  # fmt: skip
        state = course.resume(lane_state(lane, self._class, variables, self._settings))
        self._states, self._feeds = _put((self._states, self._feeds), i, (state, feed))
        if self._spoilt[i]:  # 0 times NaN is NaN: it would reach this candidate
            self._work, self._spoilt[i] = _clear(self._work, i), False
        slot = _Slot(job, course, lane, constants, self._compile_seconds)
        self._compile_seconds = 0.0  # paid by the first
        return slot

    def _call(self, slots: Sequence["_Slot | None"]) -> Call:
        """Returns what the lanes do next; slots beyond the given ones do nothing."""
        size, num = self._settings.batch_size, self.num_lanes
        call = Call(
            rows=np.zeros((num, STEPS_A_CALL, size), np.int32),
            num_steps=np.zeros(num, np.int32),
            num_batches=np.zeros(num, np.int32),
            num_valid=np.zeros((num, STEPS_A_CALL), np.int32),
        )
        for i, slot in enumerate(slots):
            if slot is None:
                continue
            if slot.variables is None:
                rows = slot.course.rows(self._pace.most)
                call.rows[i], call.num_steps[i] = padded(rows), len(rows)
            else:
                some = slot.take(self._pace.most * size)
                call.rows[i], call.num_batches[i], call.num_valid[i] = in_batches(some, size)
        return jax.device_put(call, self._split)

    def _go_on(self) -> None:
        """Does the next steps of every lane."""
        sums, cycles = np.array(self._states.loss_sum), np.array(self._feeds.cycle)
        for i, slot in enumerate(self._slots):
            if slot is not None and slot.variables is None:
                cycles[i] = slot.course.cycle
                if slot.course.begins_epoch:
                    sums[i] = 0
        states = self._states._replace(loss_sum=jax.device_put(sums, self._split))
        feeds = self._feeds._replace(cycle=jax.device_put(cycles, self._split))
        call, began = self._call(self._slots), time.perf_counter()
        self._states, self._work, measured = self._run(
            self._common, states, self._work, feeds, call
        )
        sums, measured = np.asarray(self._states.loss_sum), np.asarray(measured)
        seconds = time.perf_counter() - began
        num_steps, num_batches = np.asarray(call.num_steps), np.asarray(call.num_batches)
        busy = [slot for slot in self._slots if slot is not None]
        self._pace.took(max(int(num_steps.max()), int(num_batches.max())), seconds)
        for i, slot in enumerate(self._slots):
            if slot is None:
                continue
            slot.took(seconds / len(busy))
            if slot.variables is None:
                state = functools.partial(self._state, i)
                try:
                    slot.course.advance(int(num_steps[i]), float(sums[i]), state)
                except (OSError, StorageError, TimeLimitError) as error:  # its own, not the others'
                    slot.error = error
            else:
                slot.sums[slot.measuring].append(measured[i, : num_batches[i]])

    def _state(self, i: int) -> TrainState:
        """Returns a lane's state as NumPy arrays."""
        return jax.device_get(_take(self._states, i))

    def _has_ended(self, i: int, slot: "_Slot") -> bool:
        """Whether a slot has nothing left to do; takes its variables out once it is trained."""
        if slot.error is not None:
            self._spoilt[i] = True  # for all that is known
            return True
        if slot.variables is None and slot.course.is_over:
            state = self._state(i)
            variables = variables_of(slot.lane, state) | {"constants": slot.constants}
            slot.variables, slot.diverged = variables, slot.course.diverged(variables)
        ended = slot.variables is not None and (slot.diverged or not any(map(len, slot.left)))
        if ended:  # finite weights may overflow on the images that they are measured on
            self._spoilt[i] = slot.diverged or not np.isfinite(slot.totals()).all()
        return ended


class _Slot:
    """A candidate in a lane: training as long as it has no variables, then being measured."""

    def __init__(self, job: Job, course: Course, lane: Any, constants: Tree, seconds: float):
        self.job, self.course, self.lane, self.constants = job, course, lane, constants
        # Rows to measure on, held out and corrupted; which of the two the next call is for.
        self.left = [np.asarray(rows, np.int32) for rows in self._measured_rows()]
        self.measuring = 0
        # Of each, by batch: correct answers, and the sum of the losses.
        self.sums: tuple[list[np.ndarray], ...] = ([], [])
        self.variables: Tree | None = None
        self.diverged = False
        self.error: Exception | None = None
        self.seconds = [seconds, 0.0, 0.0]  # compile, train, evaluate

    def _measured_rows(self) -> list[Any]:
        return [() if rows is None else rows for rows in (self.job.held_out, self.job.corrupted)]

    def take(self, most: int) -> np.ndarray:
        """Returns the next rows to measure on, all held out or all corrupted, and drops them."""
        self.measuring = 0 if len(self.left[0]) else 1
        some, self.left[self.measuring] = np.split(self.left[self.measuring], [most])
        return some

    def totals(self) -> list[np.ndarray]:
        """Returns correct answers and the sum of the losses, held out and corrupted."""
        return [total(sums) for sums in self.sums]

    def took(self, seconds: float) -> None:
        self.seconds[1 if self.variables is None else 2] += seconds

    def result(self) -> Trained | Exception:
        if self.error is not None:
            return self.error
        score, robust = (
            Score(*(found / len(rows)).tolist()) if len(rows) and not self.diverged else None
            for found, rows in zip(self.totals(), self._measured_rows(), strict=True)
        )
        assert self.variables is not None
        loss = self.course.loss
        return Trained(self.variables, loss, self.diverged, score, *self.seconds, robust=robust)


@functools.partial(jax.jit, donate_argnums=0)
def _put(lanes: Tree, i: jax.Array, one: Tree) -> Tree:
    """Returns the lanes with lane `i` replaced; in this form no device asks for another's."""

    def leaf(old, new):
        here = (jnp.arange(len(old)) == i).reshape(-1, *(1,) * (old.ndim - 1))
        return jnp.where(here, jnp.asarray(new, old.dtype)[None], old)

    return jax.tree.map(leaf, lanes, one)


@functools.partial(jax.jit, donate_argnums=0)
def _clear(lanes: Tree, i: jax.Array) -> Tree:
    def leaf(old):
        here = (jnp.arange(len(old)) == i).reshape(-1, *(1,) * (old.ndim - 1))
        return jnp.where(here, 0, old)

    return jax.tree.map(leaf, lanes)


@jax.jit
def _take(lanes: Tree, i: jax.Array) -> Tree:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), lanes)
