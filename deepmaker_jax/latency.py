"""Measured latency: a cost that only a clock tells, of one network at a time.

A network's int8 TFLite file is timed before the network is trained: latency
depends on the architecture, hardly on what the weights are.
"""

import errno
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.backends.timing import interleaved
from deepmaker_jax.errors import StorageError, one_line
from deepmaker_jax.execute import Outcome
from deepmaker_jax.execute.pool import BrokenProcessPool, pooled
from deepmaker_jax.export.litert import open_tflite
from deepmaker_jax.files import storing
from deepmaker_jax.ledger import WORKER_DIED

NAME = "latency_ms"
NUM_CALLS = 100
NUM_WARMUP = 10
FIDELITY = {"name": "latency", "calls": NUM_CALLS}
HOW = (
    f"median of {NUM_CALLS} calls of the int8 TFLite file on this machine, one thread, one image, "
    "before training"
)
BUSY = 0.05  # share of waiting from which a person is told
CALIBRATION_IMAGES = 4

# From {id: architecture} to an outcome each, whose `measured` is a `Latency`'s fields.
Timer = Callable[[Mapping[str, ArchSpec]], Iterator[Outcome]]


class Latency(NamedTuple):
    """What a clock said.

    Attributes:
      latency_ms: the median call.
      latency_p95_ms: 95 % of the calls were not slower.
      waiting_share: of the time in which the file was called, the share that its
        thread did not run: how much others disturbed the measurement.
    """

    latency_ms: float
    latency_p95_ms: float
    waiting_share: float


def time_file(
    model: pathlib.Path,
    *,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.thread_time,
) -> Latency:
    """Returns how long one image takes an int8 file, with one thread and XNNPACK's kernels.

    Args:
      model: the file.
      clock: seconds that never go back.
      cpu_clock: seconds that this thread has computed.
    """
    interpreter = open_tflite(model)
    began, ran = clock(), cpu_clock()
    calls = {"": interpreter.invoke}
    timing = interleaved(calls, num_rounds=NUM_CALLS, num_warmup=NUM_WARMUP, clock=clock)[""]
    passed, ran = clock() - began, cpu_clock() - ran
    return Latency(timing.median_ms, timing.p95_ms, max(0.0, 1 - ran / passed))


def measure(
    archs: Mapping[str, ArchSpec], *, folder: pathlib.Path, num_workers: int
) -> Iterator[Outcome]:
    """Yields every network's latency: files are made side by side, then timed one at a time.

    A network whose file cannot be made or run comes back as failed.

    Args:
      archs: {id: architecture}.
      folder: for the files while they are needed.
      num_workers: files that are made at once.
    """
    with storing(folder, errno.ENOENT):
        folder.mkdir(exist_ok=True)
    paths = {id: folder / f"{id}.tflite" for id in archs}
    begun = time.perf_counter()
    making = pooled(
        _make, {id: (archs[id], str(paths[id])) for id in archs}, num_workers=num_workers,
        JAX_PLATFORMS="cpu",
    )  # fmt: skip
    timing = None
    try:
        made = []
        for id, result in making:
            if isinstance(result, BaseException):
                yield _failed(id, result)
            else:
                made.append(id)
        order = [id for id in archs if id in made]
        timing = pooled(_time, {id: (str(paths[id]),) for id in order}, num_workers=1)
        for id, result in timing:
            if isinstance(result, BaseException):
                yield _failed(id, result)
                continue
            seconds = {"eval": time.perf_counter() - begun}
            begun = time.perf_counter()
            yield Outcome(id, "latency", "ok", None, result._asdict(), seconds)
    finally:
        making.close()
        if timing is not None:
            timing.close()
        shutil.rmtree(folder, ignore_errors=True)


def _failed(id: str, error: BaseException) -> Outcome:
    if isinstance(error, StorageError):
        raise error
    if isinstance(error, BrokenProcessPool):
        reason = f"{WORKER_DIED} while its latency was measured"
    else:
        reason = f"no latency: {one_line(error)}"
    return Outcome(id, "latency", "failed", reason, {}, {})


def int8_file(arch: ArchSpec, *, seed: int = 0) -> bytes:
    """Returns an architecture's int8 file with random weights, calibrated on random images.

    Its size and its speed are those of a trained network's file but for a few
    QUANTIZE operators.
    """
    from deepmaker_jax.export import to_tflite_int8
    from deepmaker_jax.train.init import random_variables

    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (CALIBRATION_IMAGES, *arch.input_shape)).astype(np.uint8)
    return to_tflite_int8(arch, random_variables(arch, seed=seed), images)


def _make(arch: ArchSpec, path: str) -> None:
    data = int8_file(arch)
    with storing(pathlib.Path(path), errno.ENOENT):
        pathlib.Path(path).write_bytes(data)


def _time(path: str) -> Latency:
    return time_file(pathlib.Path(path))
