"""A size class's program with as many lanes as one likes, ready to be timed."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepmaker_jax.arch import ArchSpec, Stage
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes.size_class import A_CACHE, WHOLE_BATCH, SizeClass, table
from deepmaker_jax.lanes.wiring import choose, fit
from deepmaker_jax.train.init import init
from deepmaker_jax.train.lane import (
    Call,
    lane_feed,
    lane_state,
    run_in_turn,
    run_on_devices,
    scratch,
)
from deepmaker_jax.train.optimizer import Cycle
from deepmaker_jax.train.runner import Plain
from deepmaker_jax.train.step import Feed, options

NUM_IMAGES = 512
CYCLE = Cycle(0, 1000)
SCALE = np.full(3, 1 / 64, np.float32)
KINDS = {"activations": ("relu",), "optimizers": ("sgd",)}  # as a search for deployable networks


def network(side: int, *, layers: int = 2, growth: int = 16, stages: int = 3) -> ArchSpec:
    """Returns a dense network of 3x3 layers whose stages are equally deep and wide."""
    stage = Stage(layers, growth, 3, 0, "full", 50)
    return ArchSpec((side, side, 3), 10, 16, "none", "post", "relu", (stage,) * stages, "sgd", 0)


def size_class_of(arch: ArchSpec, kinds: dict[str, tuple[str, ...]] = KINDS) -> SizeClass:
    """Returns the size class that an architecture trains in on this machine."""
    on_cpu = jax.default_backend() == "cpu"
    classes = table(
        arch.input_shape, arch.num_classes, num_pixels=A_CACHE if on_cpu else WHOLE_BATCH, **kinds
    )
    found = choose(arch, classes)
    if found is None:
        raise RuntimeError(f"no size class has room for {arch}")
    return found


class Figures(NamedTuple):
    """What a program costs: the best and the worst of some calls, and XLA's analysis of memory."""

    ms_a_lane_step: float
    worst_ms: float
    compile_seconds: float
    memory_mb: float

    def rounded(self) -> dict[str, float]:
        """Returns them as they are published."""
        return {
            "ms_a_lane_step": round(self.ms_a_lane_step, 3),
            "worst_ms": round(self.worst_ms, 3),
            "compile_seconds": round(self.compile_seconds, 1),
            "memory_mb": round(self.memory_mb, 1),
        }


def timed(go: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Returns (best, worst) seconds of some calls after one that warms up."""
    go()
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        go()
        spent.append(time.perf_counter() - began)
    return min(spent), max(spent)


class LaneProgram:
    """Lanes of random pixels: a step costs the same on any picture."""

    def __init__(
        self,
        archs: Sequence[ArchSpec],
        *,
        size_class: SizeClass,
        batch_size: int,
        strategy: str,
        steps: int = 4,
        devices: Sequence[Any] | None = None,
    ):
        """Compiles; `archs` are the lanes' networks, `strategy` is "map" or "vmap"."""
        settings = TrainConfig(batch_size=batch_size, crop=1, flip=True)
        rng = np.random.default_rng(0)
        shape = size_class.input_shape
        self._class, self._settings = size_class, settings
        self._steps, self._num = steps, len(archs)
        mesh = jax.sharding.Mesh(np.array(devices or jax.devices()[:1]), ("lanes",))
        spec = jax.sharding.PartitionSpec
        split = jax.sharding.NamedSharding(mesh, spec("lanes"))
        whole = jax.sharding.NamedSharding(mesh, spec())
        in_turn = strategy == "map"
        self._place = whole if in_turn else split
        self.load(archs)
        rows = rng.integers(0, NUM_IMAGES, (steps, batch_size)).astype(np.int32)
        call = Call(rows, np.int32(steps), np.int32(0), np.zeros(steps, np.int32))
        self._calls = self._stacked([call] * len(archs))
        images = rng.integers(0, 256, (NUM_IMAGES, *shape), dtype=np.uint8)
        labels = rng.integers(0, 10, NUM_IMAGES).astype(np.int32)
        self._common = jax.device_put(
            Feed(images, labels, SCALE, jax.random.key(0), np.float32(0), np.int32([0, 0])), whole
        )

        def work():
            one = scratch(size_class, settings)
            if in_turn:
                return one
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (len(archs), *x.shape)), one)

        self._work = jax.jit(work, out_shardings=self._place)()
        run = (
            run_in_turn(size_class, settings)
            if in_turn
            else run_on_devices(size_class, settings, mesh)
        )
        began = time.perf_counter()
        self.lowered = jax.jit(run, donate_argnums=(1, 2)).lower(
            self._common, self._states, self._work, self._feeds, self._calls
        )
        self._run = self.lowered.compile(options(in_class=True))
        self.compile_seconds = time.perf_counter() - began

    def _stacked(self, trees: Sequence[Any]) -> Any:
        return jax.device_put(
            jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *trees),
            self._place,
        )

    def load(self, archs: Sequence[ArchSpec]) -> None:
        """Puts other networks, as many as before, into the lanes."""
        of, settings = self._class, self._settings
        lanes = [fit(arch, of) for arch in archs]
        self._states = self._stacked([
            lane_state(lane, of, init(arch, seed=0, input_scale=SCALE), settings)
            for lane, arch in zip(lanes, archs, strict=True)
        ])  # fmt: skip
        self._feeds = self._stacked([
            lane_feed(lane, of, arch.optimizer, learning_rate=1e-3, cycle=CYCLE)
            for lane, arch in zip(lanes, archs, strict=True)
        ])  # fmt: skip

    def go(self) -> None:
        """Does the steps of one call."""
        self._states, self._work, _ = self._run(
            self._common, self._states, self._work, self._feeds, self._calls
        )
        jax.block_until_ready(self._states)

    def measure(self, repeats: int) -> Figures:
        """Times some calls after one that warms up."""
        best, worst = timed(self.go, repeats)
        found = self._run.memory_analysis()
        memory = found.argument_size_in_bytes + found.temp_size_in_bytes
        steps = self._num * self._steps
        return Figures(1e3 * best / steps, 1e3 * worst / steps, self.compile_seconds, memory / 1e6)

    def measure_all(self, archs: Sequence[ArchSpec], repeats: int) -> Figures:
        """Times groups of networks, as many at once as there are lanes; returns their mean."""
        found = []
        for first in range(0, len(archs), self._num):
            self.load(archs[first : first + self._num])
            found.append(self.measure(repeats))
        return Figures(*np.mean(found, axis=0).tolist())


class PlainProgram:
    """One network's own program, to be timed beside `LaneProgram`."""

    def __init__(self, arch: ArchSpec, *, batch_size: int, steps: int = 4):
        """Compiles."""
        settings = TrainConfig(batch_size=batch_size, crop=1, flip=True)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (NUM_IMAGES, *arch.input_shape), dtype=np.uint8)
        labels = rng.integers(0, 10, NUM_IMAGES).astype(np.int32)
        key, scale = jax.random.key(0), jax.device_put(SCALE)
        feed = Feed(
            jax.device_put(images), jax.device_put(labels), scale, key,
            np.float32(1e-3), np.array(CYCLE, np.int32),
        )  # fmt: skip
        variables = init(arch, seed=0, input_scale=SCALE)
        began = time.perf_counter()
        self._plain = Plain(arch, settings, feed, variables, measured=False)
        self.compile_seconds = time.perf_counter() - began
        self._rows = rng.integers(0, NUM_IMAGES, (steps, batch_size)).astype(np.int32)

    def go(self) -> None:
        """Does the steps of one call."""
        self._plain.run(self._rows, CYCLE)
        jax.block_until_ready(self._plain.state)
