"""Processors: IREE, ONNX Runtime, OpenVINO and TFLite, timed side by side."""

import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from deepmaker_jax import machine
from deepmaker_jax.backends import iree, tool
from deepmaker_jax.backends.backend import (
    Artifact,
    Backend,
    Entry,
    Member,
    Tool,
    attempt,
    entry,
    measure_each,
    measured,
)  # fmt: skip
from deepmaker_jax.backends.engine import (
    ENGINES,
    IREE_FILES,
    ONNX_FILES,
    OPENVINO_FILE,
    Engine,
    repeated,
    run_engine,
)  # fmt: skip
from deepmaker_jax.backends.timing import Timing, interleaved
from deepmaker_jax.errors import MissingToolError, UnsupportedError, one_line
from deepmaker_jax.export.parity import FLOAT32, QUANTISED, Expected, compare
from deepmaker_jax.files import load_json, write_json

ENGINES_FILE = "cpu/engines.json"  # what was timed; how long it took is in the manifest
WEIGHTS = str(pathlib.PurePosixPath(OPENVINO_FILE).with_suffix(".bin"))
BATCH = 64
# Files for batches, and those of the same runtime for one image.
BATCHED = {IREE_FILES[BATCH]: IREE_FILES[1], ONNX_FILES[BATCH]: ONNX_FILES[1]}
BY_FILE = {engine.file: engine for engine in ENGINES}
FILES = (*IREE_FILES.values(), ONNX_FILES[BATCH], OPENVINO_FILE)  # its own that are networks
NUM_ROUNDS = 50
# what is measured -> (images a call where a file takes them, timed calls)
WORK = {"latency": (1, NUM_ROUNDS), "throughput": (BATCH, NUM_ROUNDS // 5)}


def probe() -> list[Tool]:
    """Returns IREE's compiler, the runtimes, and what writes the batches of 64."""
    runtimes = dict.fromkeys(found for engine in ENGINES for found in engine.tools())
    return [iree.compiler(), *runtimes, tool.package("jax"), *_onnx_writers()]


def _onnx_writers() -> list[Tool]:
    return [tool.package(name, install=tool.EXPORT) for name in ("jax2onnx", "onnx")]


def build(member: Member) -> list[Artifact]:
    """Compiles with IREE for this processor, and writes OpenVINO's form."""
    made = [
        attempt(
            member.bundle, path, tool.label(iree.compiler()),
            lambda path=path, batch=batch: iree.compile_module(
                iree.stablehlo(member, batch=batch), member.bundle / path,
                (*iree.LOCAL, "--iree-llvmcpu-target-cpu=host"),
            ),
        )
        for batch, path in IREE_FILES.items()
    ]  # fmt: skip

    def batched_onnx() -> None:
        tool.need(*_onnx_writers())
        from deepmaker_jax.export.onnx import to_onnx

        (member.bundle / ONNX_FILES[BATCH]).write_bytes(to_onnx(*member.weights(), batch=BATCH))

    by = tool.label(*_onnx_writers())
    made.append(attempt(member.bundle, ONNX_FILES[BATCH], by, batched_onnx))
    openvino = tool.package("openvino")

    def convert() -> None:
        tool.need(openvino)
        import openvino as ov

        model = ov.Core().read_model(member.file("model_f32.tflite"))
        ov.save_model(model, member.bundle / OPENVINO_FILE, compress_to_fp16=False)

    made.append(attempt(member.bundle, OPENVINO_FILE, tool.label(openvino), convert))
    made.append(made[-1]._replace(path=WEIGHTS))
    made.append(Artifact(ENGINES_FILE, tool.label(*probe())))
    return made


def measure(member: Member, artifacts: Sequence[Artifact]) -> dict[str, Entry]:
    """Runs every runtime on the reference images, then times those that agree with JAX."""
    found = {engine: _logits(engine, member) for engine in ENGINES}

    def run(artifact: Artifact) -> Entry:
        if artifact.path == ENGINES_FILE:
            return _time(member, artifact, found)
        if artifact.path == WEIGHTS:
            return entry(member, artifact)
        if artifact.path in BATCHED:
            return _entry(member, artifact, _run(artifact.path, member))
        outcome = found[BY_FILE[artifact.path]]
        if isinstance(outcome, Exception):
            raise outcome
        return _entry(member, artifact, outcome)

    return measure_each(member, artifacts, run)


def _entry(member: Member, artifact: Artifact, logits: np.ndarray) -> Entry:
    return entry(member, artifact, logits=logits, rule=FLOAT32)


def _run(path: str, member: Member) -> np.ndarray:
    """Returns the logits of one of this backend's files, where its runtime is here."""
    engine = BY_FILE[BATCHED.get(path, path)]
    tool.need(*engine.tools())
    if path in IREE_FILES.values() and (member.bundle / ENGINES_FILE).is_file():
        made_on = load_json(member.bundle / ENGINES_FILE)["processor"]
        if made_on != machine.processor():
            raise UnsupportedError(f"compiled for {made_on}, not for {machine.processor()}")
    return run_engine(engine, member, batch=BATCH if path in BATCHED else 1)


def _logits(engine: Engine, member: Member) -> np.ndarray | Exception:
    """Returns what a runtime gives, or why it does not: one runtime's failure is its own."""
    try:
        tool.need(*engine.tools())
        if "/" not in engine.file:
            member.file(engine.file)
        elif not (member.bundle / engine.file).exists():
            raise RuntimeError(f"{engine.file} is not in the bundle")
        return run_engine(engine, member)
    except Exception as error:  # noqa: BLE001 - see above
        return error


def _agreeing(
    member: Member, found: dict[Engine, np.ndarray | Exception]
) -> tuple[list[Engine], dict[str, str]]:
    """Returns (runtimes that say what JAX says, why the others are left out).

    Raises:
      MissingToolError: none is installed.
      RuntimeError: none agrees.
    """
    expected = Expected(member.images, member.labels, member.logits)
    agreeing: list[Engine] = []
    left_out: dict[str, str] = {}
    for engine, logits in found.items():
        if isinstance(logits, Exception):
            left_out[engine.name] = one_line(logits)
            continue
        _, _, broken = compare(logits, expected, FLOAT32 if engine.exact else QUANTISED)
        if broken is None:
            agreeing.append(engine)
        else:
            left_out[engine.name] = broken
    missing = [logits for logits in found.values() if isinstance(logits, MissingToolError)]
    if len(missing) == len(found):
        raise missing[0]
    if not agreeing:
        raise RuntimeError("no runtime gives JAX's logits: see the files' reasons")
    return agreeing, left_out


def _time(member: Member, artifact: Artifact, found: dict[Engine, np.ndarray | Exception]) -> Entry:
    """Times what agrees with JAX, writes what that is, and names the fastest."""
    engines, left_out = _agreeing(member, found)
    batch = repeated(member.images, BATCH)
    cost: Entry = {}
    for words, threads in _threads().items():
        figures, sizes = {}, {}
        for kind, (size, rounds) in WORK.items():
            calls, sizes = _open(engines, member, batch[:size], threads, left_out)
            figures[kind] = interleaved(calls, num_rounds=rounds)
        cost |= _costs(figures, sizes, words)
    document = {
        "engines": {engine.name: engine.file for engine in engines},
        "left_out": left_out,
        "processor": machine.processor(),
        "cores": machine.num_cores(),
        "calls": {kind: rounds for kind, (_, rounds) in WORK.items()},
    }
    write_json(member.bundle / ENGINES_FILE, document)
    return entry(member, artifact, cost=cost)


def _threads() -> dict[str, int | None]:
    """Returns {words: what runtimes are told}: None is all cores in their own words."""
    return {"1 thread": 1} | ({"all cores": None} if machine.num_cores() > 1 else {})


def _open(
    engines: Sequence[Engine],
    member: Member,
    images: np.ndarray,
    threads: int | None,
    left_out: dict[str, str],
) -> tuple[dict[str, Callable[[], np.ndarray]], dict[str, int]]:
    """Returns (calls of a batch, its images for each) by name; TFLite files take one image.

    A runtime that does not open at this batch is added to `left_out`.
    """
    calls: dict[str, Callable[[], np.ndarray]] = {}
    sizes: dict[str, int] = {}
    for engine in engines:
        size = min(len(images), engine.batch)
        try:
            call = engine.open(member.bundle, size, threads)
        except Exception as error:  # noqa: BLE001 - one runtime's failure is its own
            left_out[f"{engine.name}, batch {size}"] = one_line(error)
            continue
        calls[engine.name] = functools.partial(call, engine.pixels(images[:size]))
        sizes[engine.name] = size
    return calls, sizes


def _costs(figures: dict[str, dict[str, Timing]], sizes: dict[str, int], words: str) -> Entry:
    """Returns the manifest's costs for a number of threads, in words."""
    tag, cost = words.replace(" ", "_"), {}
    for name, timing in figures["latency"].items():
        how = f"batch 1, {words}, median of {timing.num_calls} in turn; p95 {timing.p95_ms:.4f}"
        cost[f"{name}_latency_{tag}"] = measured(timing.median_ms, "ms", how)
    for name, timing in figures["throughput"].items():
        rate = 1000 * sizes[name] / timing.median_ms
        slow = 1000 * sizes[name] / timing.p95_ms
        how = (
            f"batch {sizes[name]}, {words}, median of {timing.num_calls} in turn; 95 % of the "
            f"calls reached {slow:.1f}"
        )
        cost[f"{name}_throughput_{tag}"] = measured(rate, "images/s", how)
    fastest = min(figures["latency"].items(), key=lambda item: item[1].median_ms)
    how = f"{fastest[0]}, batch 1, {words}"
    cost[f"fastest_latency_{tag}"] = measured(fastest[1].median_ms, "ms", how)
    return cost


BACKEND = Backend(
    "cpu", "IREE, ONNX Runtime, OpenVINO and TFLite, timed in turn", probe, build, measure,
    timed=True, runs={path: functools.partial(_run, path) for path in FILES},
)  # fmt: skip
