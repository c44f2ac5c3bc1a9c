"""Processors: IREE, ONNX Runtime, OpenVINO and TFLite, timed side by side."""

import pathlib
from collections.abc import Sequence

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
    OPENVINO_FILE,
    Call,
    Engine,
    run_engine,
)  # fmt: skip
from deepmaker_jax.backends.timing import Timing, interleaved
from deepmaker_jax.errors import MissingToolError, one_line
from deepmaker_jax.export.parity import FLOAT32, QUANTISED, Expected, compare
from deepmaker_jax.files import write_json

ENGINES_FILE = "cpu/engines.json"  # what was timed; how long it took is in the manifest
WEIGHTS = str(pathlib.PurePosixPath(OPENVINO_FILE).with_suffix(".bin"))
NUM_ROUNDS = 50
BATCH = 64
# what is measured -> (images a call where a file takes them, timed calls)
WORK = {"latency": (1, NUM_ROUNDS), "throughput": (BATCH, NUM_ROUNDS // 5)}


def probe() -> list[Tool]:
    """Returns the runtimes."""
    return list(dict.fromkeys(found for engine in ENGINES for found in engine.tools()))


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
    by_file = {engine.file: engine for engine in ENGINES}

    def run(artifact: Artifact) -> Entry:
        if artifact.path == ENGINES_FILE:
            return _time(member, artifact, found)
        if artifact.path == WEIGHTS:
            return entry(member, artifact)
        if artifact.path == IREE_FILES[BATCH]:
            tool.need(*ENGINES[0].tools())
            logits = ENGINES[0].open(member.bundle, BATCH, 1)(_batch(member))
            return _entry(member, artifact, logits[: len(member.images)])
        outcome = found[by_file[artifact.path]]
        if isinstance(outcome, Exception):
            raise outcome
        return _entry(member, artifact, outcome)

    return measure_each(member, artifacts, run)


def _entry(member: Member, artifact: Artifact, logits: np.ndarray) -> Entry:
    return entry(member, artifact, logits=logits, rule=FLOAT32)


def _batch(member: Member) -> np.ndarray:
    """Returns Float32[BATCH, h, w, c], the reference images from the first on."""
    return np.resize(member.images, (BATCH, *member.images.shape[1:])).astype(np.float32)


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
    batch = _batch(member)
    cost: Entry = {}
    for words, threads in _threads().items():
        figures, sizes = {}, {}
        for kind, (size, rounds) in WORK.items():
            calls, sizes = _open(engines, member, threads, size, left_out)
            figures[kind] = interleaved(
                {
                    name: lambda call=call, size=sizes[name]: call(batch[:size])
                    for name, call in calls.items()
                },
                num_rounds=rounds,
            )
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
    threads: int | None,
    batch: int,
    left_out: dict[str, str],
) -> tuple[dict[str, Call], dict[str, int]]:
    """Returns (functions, the batch that each takes) by name; TFLite and ONNX files take one image.

    A runtime that does not open at this batch is added to `left_out`.
    """
    calls: dict[str, Call] = {}
    sizes: dict[str, int] = {}
    for engine in engines:
        size = min(batch, engine.batch)
        try:
            calls[engine.name] = engine.open(member.bundle, size, threads)
            sizes[engine.name] = size
        except Exception as error:  # noqa: BLE001 - one runtime's failure is its own
            left_out[f"{engine.name}, batch {size}"] = one_line(error)
    return calls, sizes


def _costs(figures: dict[str, dict[str, Timing]], sizes: dict[str, int], words: str) -> Entry:
    """Returns the manifest's costs for a number of threads, in words."""
    tag, cost = words.replace(" ", "_"), {}
    for name, timing in figures["latency"].items():
        how = f"batch 1, {words}, median of {timing.num_calls} in turn; p95 {timing.p95_ms:.4f}"
        cost[f"{name}_latency_{tag}"] = measured(timing.median_ms, "ms", how)
    for name, timing in figures["throughput"].items():
        rate = 1000 * sizes[name] / timing.median_ms
        how = f"batch {sizes[name]}, {words}, median of {timing.num_calls} in turn"
        cost[f"{name}_throughput_{tag}"] = measured(rate, "images/s", how)
    fastest = min(figures["latency"].items(), key=lambda item: item[1].median_ms)
    how = f"{fastest[0]}, batch 1, {words}"
    cost[f"fastest_latency_{tag}"] = measured(fastest[1].median_ms, "ms", how)
    return cost


BACKEND = Backend(
    "cpu", "IREE, ONNX Runtime, OpenVINO and TFLite, timed in turn", probe, build, measure,
    timed=True,
)  # fmt: skip
