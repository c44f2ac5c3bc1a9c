"""How one candidate trains: by its own program, or as a lane of a size class's."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from deepmaker_jax.arch import ArchSpec, layers
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes.size_class import SizeClass
from deepmaker_jax.lanes.wiring import fit
from deepmaker_jax.models import Network
from deepmaker_jax.train.lane import (
    Call,
    lane_feed,
    lane_state,
    run_in_turn,
    scratch,
    variables_of,
)
from deepmaker_jax.train.optimizer import Cycle, direction, rule_state
from deepmaker_jax.train.step import (
    PREDICTED,
    Feed,
    TrainState,
    compile_prediction,
    init_state,
    options,
    plain_steps,
    predict,
    score,
)

STEPS_A_CALL = 64
CALL_SECONDS = 1.0  # of a call, about
FIRST_STEPS = 4  # of the first call, whose speed is not known
MAX_KEPT = 16  # programs of size classes: every candidate that fits needs them again
MAX_OWN = 2  # of one architecture each, not needed again once its training is over: 50 MB each
CLEARED_AFTER = 8  # of those


class Runner(Protocol):
    """Trains and measures one candidate, whatever program does it."""

    state: TrainState

    def run(self, rows: np.ndarray, cycle: Cycle) -> None:
        """Does one step for each of `rows`, Int32[k, b], k at most STEPS_A_CALL, in one cycle."""
        ...

    def variables(self) -> dict[str, Any]:
        """Returns the plain network's `params` and `batch_stats` that training has led to."""
        ...

    def score(
        self, rows: np.ndarray, num_batches: int, on_call: Callable[[], None]
    ) -> tuple[float, float]:
        """Measures `variables` over rows of the data, about `num_batches` batches a call.

        Returns:
          (accuracy, mean cross-entropy), whose bits do not depend on `num_batches`.
        """
        ...


class Pace:
    """How many steps a call does: about a second's, up to STEPS_A_CALL.

    Nobody waits longer than a call for a Ctrl-C, a time limit, a checkpoint or a sign of life.

    Attributes:
      most: steps of the next call.
    """

    def __init__(self):
        self.most = FIRST_STEPS

    def took(self, num_steps: int, seconds: float) -> None:
        """Takes note of what a call took."""
        self.most = int(np.clip(CALL_SECONDS * num_steps / seconds, 1, STEPS_A_CALL))


_programs: dict[Any, Any] = {}
_own: dict[Any, Any] = {}
_dropped: list[Any] = []  # keys, since JAX was last told to forget


def compiled(key: Any, make: Callable[[], Any]) -> Any:
    """Returns the compiled program for a key; kept, so that a process compiles it once."""
    if key not in _programs:
        while len(_programs) >= MAX_KEPT:
            _programs.pop(next(iter(_programs)))
        _programs[key] = make()
    return _programs[key]


def compiled_once(key: Any, make: Callable[[], Any]) -> Any:
    """Returns the compiled program of one architecture; it takes the place of an earlier one's.

    JAX holds on to what it traced for a program: without this a process grows by
    15 MB a candidate for as long as it works.
    """
    if key not in _own:
        while len(_own) >= MAX_OWN:
            _dropped.append(next(iter(_own)))
            _own.pop(_dropped[-1])
        if len(_dropped) >= CLEARED_AFTER:
            _dropped.clear()
            jax.clear_caches()
        _own[key] = make()
    return _own[key]


def shapes_of(feed: Feed) -> tuple[Any, ...]:
    """Returns the shapes and types of the data: another program for others."""
    return tuple((leaf.shape, str(leaf.dtype)) for leaf in feed)


def padded(rows: np.ndarray) -> np.ndarray:
    """Returns up to STEPS_A_CALL steps' examples as a call takes them, Int32[STEPS_A_CALL, b]."""
    filled = np.zeros((STEPS_A_CALL, *rows.shape[1:]), np.int32)
    filled[: len(rows)] = rows
    return filled


def in_batches(rows: np.ndarray, size: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Returns what one call evaluates: (batches, how many of them, how many of each count).

    Args:
      rows: Int[k], at most STEPS_A_CALL batches.
      size: b, of a batch.

    Returns:
      (Int32[STEPS_A_CALL, b], number of batches, Int32[STEPS_A_CALL]).
    """
    filled = np.zeros(STEPS_A_CALL * size, np.int32)
    filled[: len(rows)] = rows
    num_valid = np.clip(len(rows) - np.arange(STEPS_A_CALL) * size, 0, size)
    return filled.reshape(STEPS_A_CALL, size), -(-len(rows) // size), num_valid.astype(np.int32)


def total(sums: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the sum over all batches, Float64[2], whatever calls they came in.

    Args:
      sums: of each call, Float[batches, 2].
    """
    return np.concatenate([np.zeros((0, 2)), *sums]).sum(0)


class Plain:
    """Two programs of the candidate's own: for its training, and to measure it if it will be."""

    def __init__(
        self,
        arch: ArchSpec,
        settings: TrainConfig,
        feed: Feed,
        variables: Any,
        *,
        measured: bool,
    ):
        self.network, self.feed = Network(layers(arch), compute=settings.compute), feed
        self._size = settings.batch_size
        params, batch_stats = variables["params"], variables["batch_stats"]
        start = rule_state(direction(arch.optimizer, settings), params)
        state = init_state(params, batch_stats, start)
        rows = np.zeros((STEPS_A_CALL, settings.batch_size), np.int32)

        def compile():
            steps = jax.jit(plain_steps(self.network, arch.optimizer, settings), donate_argnums=0)
            prediction = None
            if measured:
                prediction = compile_prediction(self.network, variables, feed.images)
            return steps.lower(state, feed, rows, np.int32(0)).compile(options()), prediction

        key = (self.network, arch.optimizer, settings, shapes_of(feed), measured)
        self._steps, self._prediction = compiled_once(key, compile)
        # A call gives its input buffers back: hand it some that nobody else holds.
        self.state = jax.device_put(state, may_alias=False)

    def run(self, rows: np.ndarray, cycle: Cycle) -> None:
        """See `Runner`."""
        feed = self.feed._replace(cycle=np.array(cycle, np.int32))
        self.state = self._steps(self.state, feed, padded(rows), np.int32(len(rows)))

    def variables(self) -> dict[str, Any]:
        """See `Runner`."""
        return jax.tree.map(np.asarray, self.state.trained)

    def score(
        self, rows: np.ndarray, num_batches: int, on_call: Callable[[], None]
    ) -> tuple[float, float]:
        """See `Runner`."""
        labels, images = np.asarray(self.feed.labels)[rows], np.asarray(self.feed.images)
        variables = self.variables() | {"constants": {"input_scale": self.feed.input_scale}}
        variables, parts = jax.device_put(variables), []
        # Whole predictions, so that each image is always among the same ones.
        a_call = max(1, num_batches * self._size // PREDICTED) * PREDICTED
        for start in range(0, len(rows), a_call):
            some = images[rows[start : start + a_call]]
            parts.append(predict(self.network, variables, some, program=self._prediction))
            on_call()
        return score(np.concatenate(parts), labels)


class _Program(NamedTuple):
    """A size class's compiled program and its scratch memory, in a cell that each call refills."""

    call: Any
    work: list[Any]


class InClass:
    """One lane of a size class's program, which this process may have compiled before."""

    def __init__(
        self,
        arch: ArchSpec,
        size_class: SizeClass,
        settings: TrainConfig,
        feed: Feed,
        variables: Any,
    ):
        self._lane, self._class, self._settings = fit(arch, size_class), size_class, settings
        self.state = lane_state(self._lane, size_class, variables, settings)
        self._size = settings.batch_size
        self._common = feed._replace(learning_rate=np.float32(0))
        lane = lane_feed(
            self._lane, size_class, arch.optimizer,
            learning_rate=float(feed.learning_rate), cycle=Cycle(0, 1),
        )  # fmt: skip
        self._feed = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], lane)
        call = self._call(np.zeros((STEPS_A_CALL, self._size), np.int32))

        def compile():
            run = jax.jit(run_in_turn(size_class, settings), donate_argnums=(1, 2))
            work = scratch(size_class, settings)
            lowered = run.lower(self._common, self._stacked(), work, self._feed, call)
            return _Program(lowered.compile(options(in_class=True)), [work])

        self._program = compiled((size_class, settings, shapes_of(self._common)), compile)

    def _stacked(self):
        return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True)[None], self.state)

    def _call(self, rows: np.ndarray, *, num_steps=0, num_batches=0, num_valid=None) -> Call:
        if num_valid is None:
            num_valid = np.zeros(STEPS_A_CALL, np.int32)
        counts = np.full(1, num_steps, np.int32), np.full(1, num_batches, np.int32)
        return Call(rows[None], *counts, num_valid[None])

    def _run(self, call: Call) -> np.ndarray:
        # A call takes the scratch memory and gives it back; one that failed has lost it.
        kept = self._program.work
        work = kept.pop() if kept else scratch(self._class, self._settings)
        states, work, sums = self._program.call(
            self._common, self._stacked(), work, self._feed, call
        )
        kept.append(work)
        self.state = jax.tree.map(lambda leaf: leaf[0], states)
        return np.asarray(sums[0])

    def run(self, rows: np.ndarray, cycle: Cycle) -> None:
        """See `Runner`."""
        self._feed = self._feed._replace(cycle=jnp.array([cycle], jnp.int32))
        self._run(self._call(padded(rows), num_steps=len(rows)))

    def variables(self) -> dict[str, Any]:
        """See `Runner`."""
        return variables_of(self._lane, self.state)

    def score(
        self, rows: np.ndarray, num_batches: int, on_call: Callable[[], None]
    ) -> tuple[float, float]:
        """See `Runner`."""
        sums, a_call = [], num_batches * self._size
        for start in range(0, len(rows), a_call):
            some, num, num_valid = in_batches(rows[start : start + a_call], self._size)
            call = self._call(some, num_batches=num, num_valid=num_valid)
            sums.append(self._run(call)[:num])
            on_call()
        accuracy, loss = (total(sums) / len(rows)).tolist()
        return accuracy, loss
