"""What runs a bundle on this processor: each opens its file and gives a function."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax import machine
from deepmaker_jax.backends import tool
from deepmaker_jax.backends.backend import Member, Tool

IREE_FILES = {1: "cpu/model_host.vmfb", 64: "cpu/model_host_batch64.vmfb"}
OPENVINO_FILE = "cpu/openvino.xml"
Call = Callable[[np.ndarray], np.ndarray]


class Engine(NamedTuple):
    """A runtime for one file.

    Attributes:
      name: in the manifest.
      tools: that it needs.
      file: what it reads at batch 1, relative to the bundle.
      open: from (bundle, batch, threads or None for all) to a function from
        float32 pixels [batch, h, w, c] to logits [batch, classes].
      batch: the largest that it takes.
      exact: False where it computes in int8.
    """

    name: str
    tools: Callable[[], tuple[Tool, ...]]
    file: str
    open: Callable[[pathlib.Path, int, int | None], Call]
    batch: int = 64
    exact: bool = True


def _open_iree(bundle: pathlib.Path, batch: int, threads: int | None) -> Call:
    from iree import runtime

    path = bundle / IREE_FILES[batch]
    if not path.is_file():  # the runtime says nothing of use
        raise RuntimeError(f"{IREE_FILES[batch]} is not in the bundle")
    # `local-sync` runs in the calling thread, `local-task` on every core.
    driver = "local-sync" if threads == 1 else "local-task"
    context = runtime.SystemContext(config=runtime.Config(driver))
    module = runtime.VmModule.mmap(context.instance, str(path))
    context.add_vm_module(module)
    main: Any = context.modules[module.name].main
    return lambda pixels: main(pixels).to_host()


def _open_onnx(bundle: pathlib.Path, batch: int, threads: int | None) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # Threads that spin between calls would take the cores from whatever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    return lambda pixels: np.asarray(session.run(None, {entry.name: pixels})[0])


def _open_openvino(bundle: pathlib.Path, batch: int, threads: int | None) -> Call:
    import openvino

    core = openvino.Core()
    model = core.read_model(bundle / OPENVINO_FILE)
    model.reshape([batch, *model.input(0).shape[1:]])
    # Its default on processors with AMX is bfloat16: an error of 1 % of the logits' range.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", settings)
    return lambda pixels: np.array(compiled(pixels)[0])


def _open_tflite(name: str) -> Callable[[pathlib.Path, int, int | None], Call]:
    def open(bundle: pathlib.Path, batch: int, threads: int | None) -> Call:
        from deepmaker_jax.backends import litert

        del batch  # a file of the bundle takes one image
        interpreter = litert.open_tflite(bundle / name, num_threads=threads or machine.num_cores())
        (entry,), (leave,) = interpreter.get_input_details(), interpreter.get_output_details()
        scale, zero_point = leave["quantization"]

        def call(pixels: np.ndarray) -> np.ndarray:
            if entry["dtype"] == np.int8:
                pixels = (pixels - 128).astype(np.int8)
            interpreter.set_tensor(entry["index"], pixels)
            interpreter.invoke()
            logits = interpreter.get_tensor(leave["index"])
            return logits if not scale else (logits.astype(np.float32) - zero_point) * scale

        return call

    return open


def _packages(*names: str, install: str = tool.EXTRA) -> Callable[[], tuple[Tool, ...]]:
    return lambda: tuple(tool.package(name, install=install) for name in names)


EXPORT = "pip install 'deepmaker-jax[export]'"
ENGINES = (
    Engine("iree", _packages("iree-base-compiler", "iree-base-runtime"), IREE_FILES[1], _open_iree),
    Engine(
        "onnxruntime", _packages("onnxruntime", install=EXPORT), "model.onnx", _open_onnx, batch=1,
    ),
    Engine("openvino", _packages("openvino"), OPENVINO_FILE, _open_openvino),
    *(
        Engine(
            f"tflite_{kind}", _packages("ai-edge-litert", install=EXPORT), f"model_{kind}.tflite",
            _open_tflite(f"model_{kind}.tflite"), batch=1, exact=kind == "f32",
        )
        for kind in ("f32", "int8")
    ),
)  # fmt: skip


def run_engine(engine: Engine, member: Member) -> np.ndarray:
    """Returns what an engine gives for a member's reference images, Float32[n, classes]."""
    call = engine.open(member.bundle, 1, 1)
    return np.concatenate([call(image[None]) for image in member.images.astype(np.float32)])
