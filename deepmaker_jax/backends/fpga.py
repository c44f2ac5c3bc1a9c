"""FPGAs: an HLS project by hls4ml for Vitis, simulated in C."""

import collections
import ctypes
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax.arch import ArchSpec, Layer, layers
from deepmaker_jax.backends import fixed, resource, tool
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
)
from deepmaker_jax.errors import UnsupportedError
from deepmaker_jax.export.parity import Rule

PROJECT = "fpga/hls"
NAME = "network"
TOP = f"{PROJECT}/firmware/{NAME}.cpp"
MOST_READERS = 7  # copies of a stream that hls4ml makes
RULE = Rule(min_agreement=0.9)  # kept by networks that were not trained, in the tests
SIMULATION_SECONDS = 1200.0


def supports(arch: ArchSpec) -> list[str]:
    """Returns every reason why hls4ml cannot do a network."""
    reasons = []
    if arch.order != "post":
        reasons.append(
            "batch norms before activations do not fold: hls4ml's result differs from JAX's"
        )
    if arch.activation != "relu":
        reasons.append(f"activation {arch.activation}: only relu is exact in hls4ml's streams")
    readers = collections.Counter(name for layer in layers(arch) for name in layer.inputs)
    reasons += [
        f"{name} is read by {num} layers: hls4ml copies a stream {MOST_READERS} times"
        for name, num in readers.items()
        if num > MOST_READERS
    ]
    return reasons


def probe() -> list[Tool]:
    """Returns what writes the project, and the C++ compiler of the simulation."""
    return [*_writers(), _compiler()]


def _compiler() -> Tool:
    return tool.program("g++", install="apt-get install g++")


def _writers() -> list[Tool]:
    """Returns hls4ml, Keras, and what reads the ranges in the int8 file."""
    return [tool.package("hls4ml"), tool.package("keras"), tool.litert()]


def build(member: Member) -> list[Artifact]:
    """Writes the HLS project, or says why there is none."""
    words = tool.label(*_writers())
    made = attempt(member.bundle, TOP, words, lambda: _write_project(member))
    if made.problem is not None:
        shutil.rmtree(member.bundle / PROJECT, ignore_errors=True)
        return [made]
    files = sorted(p for p in (member.bundle / PROJECT).rglob("*") if p.is_file())
    return [Artifact(p.relative_to(member.bundle).as_posix(), words) for p in files]


def measure(member: Member, artifacts: Sequence[Artifact]) -> dict[str, Entry]:
    """Compiles the project with g++ and runs it on the reference images."""

    def run(artifact: Artifact) -> Entry:
        if artifact.path != TOP:
            return entry(member, artifact)
        tool.need(*probe())
        logits = _simulate(member)
        cost, part = _cost(member)
        return entry(member, artifact, logits=logits, rule=RULE, cost=cost) | {"part": part}

    return measure_each(member, artifacts, run)


def _folded(member: Member) -> tuple[tuple[Layer, ...], dict[str, Any]]:
    from deepmaker_jax.models import fold

    arch, variables = member.weights()
    network, weights = fold(layers(arch), variables)
    return network, weights["params"]


class Design(NamedTuple):
    """How a network is laid out.

    Attributes:
      part: name of the smallest part that holds it.
      reuse: factors by layer.
      types: of values, by layer.
      taken: what it takes of the part.
    """

    part: str
    reuse: dict[str, int]
    types: dict[str, fixed.Types]
    taken: resource.Estimate


def _design(member: Member, network: tuple[Layer, ...], weights: dict[str, Any]) -> Design:
    """Returns the fastest design on the smallest part.

    Raises:
      UnsupportedError: no part holds it.
    """
    from hls4ml.backends import get_backend

    valid = get_backend("Vitis").get_valid_reuse_factors
    limits = fixed.calibrated(member.file("model_int8.tflite"), network)
    types = fixed.choose_types(network, weights, limits)
    fifos = resource.streams(network, types)
    for name, part in resource.PARTS.items():
        reuse = resource.choose_reuse(network, fifos, valid, part)
        if reuse is not None:
            return Design(name, reuse, types, resource.estimate(network, reuse, fifos))
    raise UnsupportedError(f"it fits none of the parts {', '.join(resource.PARTS)}")


def _write_project(member: Member) -> None:
    tool.need(*_writers())
    network, weights = _folded(member)
    os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported, in this process alone
    import hls4ml

    from deepmaker_jax.backends.keras_form import to_keras

    design = _design(member, network, weights)
    model = to_keras(network, weights, member.arch.input_shape)
    folder = member.bundle / PROJECT
    converted = hls4ml.converters.convert_from_keras_model(
        model, hls_config=_configuration(network, design), output_dir=str(folder),
        project_name=NAME, backend="Vitis", io_type="io_stream",
        part=resource.PARTS[design.part].part, clock_period=1000 / resource.CLOCK_MHZ,
    )  # fmt: skip
    converted.write()
    _settle(folder)


def _settle(folder: pathlib.Path) -> None:
    """Takes from a project what tells where, when and by which build it was made.

    The simulation compiles a fifth sooner at -O1, and runs as fast.
    """
    for name in ("hls4ml_config.yml", "keras_model.keras"):  # Vitis reads neither
        (folder / name).unlink()
    script = folder / "build_lib.sh"
    text = script.read_text(encoding="utf-8").replace("-O3", "-O1")
    text = re.sub(r"(?m)^LIB_STAMP=.*$", f"LIB_STAMP={NAME}", text)
    script.write_text(text, encoding="utf-8")


def _configuration(network: tuple[Layer, ...], design: Design) -> dict[str, Any]:
    """Returns hls4ml's settings: a type for every value, a reuse factor for every matrix."""
    named: dict[str, Any] = {"image": {"Precision": {"result": fixed.PIXEL}}}
    for layer in network:
        kind = design.types[layer.name]
        precision = {k: v for k, v in kind._asdict().items() if v and k != "activated"}
        named[layer.name] = {"Precision": precision}
        # What `keras_form` calls the parts of a concatenation of more than two maps.
        for i in range(1, len(layer.inputs) - 1):
            named[f"{layer.name}_part{i}"] = {"Precision": {"result": kind.result}}
        if layer.name in design.reuse:
            named[layer.name] |= {"ReuseFactor": design.reuse[layer.name], "Strategy": "Resource"}
        if layer.activation:
            named[f"{layer.name}_{layer.activation}"] = {"Precision": {"result": kind.activated}}
    whole = {"Precision": {"default": "fixed<32,16>"}, "ReuseFactor": 1, "Strategy": "Resource"}
    return {"Model": whole, "LayerName": named}


def _simulate(member: Member) -> np.ndarray:
    """Returns the logits, Float32[n, classes], of the project compiled with g++."""
    tool.need(_compiler())
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(shutil.copytree(member.bundle / PROJECT, pathlib.Path(place) / "hls"))
        tool.run(["bash", "build_lib.sh"], folder=folder, timeout_seconds=SIMULATION_SECONDS)
        (library,) = (folder / "firmware").glob("*.so")
        function = getattr(ctypes.CDLL(str(library)), f"{NAME}_float")
        function.restype = None
        found = []
        for image in member.images:
            pixels = np.ascontiguousarray(image, np.float32).ravel()
            logits = np.zeros(member.arch.num_classes, np.float32)
            pointers = [a.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for a in (pixels, logits)]
            function(*pointers)
            found.append(logits)
        return np.stack(found)


def _cost(member: Member) -> tuple[Entry, str]:
    """Returns (the costs of a member's design, the part that it is for)."""
    name, _, _, taken = _design(member, *_folded(member))
    part = resource.PARTS[name]
    cost = {}
    for field, value in taken._asdict().items():
        room = f"; {name} ({part.part}) has {part.holds[field]:,}" if field in part.holds else ""
        cost[field] = measured(value, field, f"estimate: {resource.HOW[field]}{room}")
    for time, cycles in (("interval", taken.interval_cycles), ("latency", taken.latency_cycles)):
        how = f"estimate: {resource.HOW[f'{time}_cycles']}; at {resource.CLOCK_MHZ} MHz"
        cost[time] = measured(cycles / (1000 * resource.CLOCK_MHZ), "ms", how)
    return cost, f"{name} ({part.part})"


BACKEND = Backend(
    "fpga", "hls4ml for Vitis, simulated in C", probe, build, measure, supports=supports,
    runs={TOP: _simulate},
)  # fmt: skip
