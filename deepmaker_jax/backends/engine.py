"""What runs a bundle on this processor: each opens its file and gives a function."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax import machine
from deepmaker_jax.backends import tool
from deepmaker_jax.backends.backend import Member, Tool

IREE_FILES = {1: "cpu/model_host.vmfb", 64: "cpu/model_host_batch64.vmfb"}
ONNX_FILES = {1: "model.onnx", 64: "cpu/model_batch64.onnx"}
OPENVINO_FILE = "cpu/openvino.xml"
# From what `Engine.pixels` returns to logits [batch, classes], int8 ones of a file in int8.
Call = Callable[[np.ndarray], np.ndarray]


class Engine(NamedTuple):
    """A runtime for one file.

    Attributes:
      name: in the manifest.
      tools: that it needs to run.
      file: what it reads at batch 1, relative to the bundle.
      open: from (bundle, batch, threads or None for all) to a `Call`.
      batch: the largest that it takes.
      exact: False where it computes in int8.
    """

    name: str
    tools: Callable[[], tuple[Tool, ...]]
    file: str
    open: Callable[[pathlib.Path, int, int | None], Call]
    batch: int = 64
    exact: bool = True

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """Returns camera bytes, uint8[n, h, w, c], as its calls take them."""
        return images.astype(np.float32) if self.exact else (images ^ 0x80).view(np.int8)


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
    # A copy: the module's own memory is used for something else once the module is gone.
    return lambda pixels: np.array(main(pixels).to_host())


def _open_onnx(bundle: pathlib.Path, batch: int, threads: int | None) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # Threads that spin between calls would take the cores from whatever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        str(bundle / ONNX_FILES[batch]), options, providers=["CPUExecutionProvider"]
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
        from deepmaker_jax.export import litert

        del batch  # a file of the bundle takes one image
        interpreter = litert.open_tflite(bundle / name, num_threads=threads or machine.num_cores())
        (entry,), (leave,) = interpreter.get_input_details(), interpreter.get_output_details()

        def call(pixels: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(entry["index"], pixels)
            interpreter.invoke()
            return interpreter.get_tensor(leave["index"])

        return call

    return open


def _packages(*names: str, install: str = tool.EXTRA) -> Callable[[], tuple[Tool, ...]]:
    return lambda: tuple(tool.package(name, install=install) for name in names)


ENGINES = (
    Engine("iree", _packages("iree-base-runtime"), IREE_FILES[1], _open_iree),
    Engine(
        "onnxruntime", _packages("onnxruntime", install=tool.EXPORT), ONNX_FILES[1], _open_onnx,
    ),
    Engine("openvino", _packages("openvino"), OPENVINO_FILE, _open_openvino),
    *(
        Engine(
            f"tflite_{kind}", lambda: (tool.litert(),), f"model_{kind}.tflite",
            _open_tflite(f"model_{kind}.tflite"), batch=1, exact=kind == "f32",
        )
        for kind in ("f32", "int8")
    ),
)  # fmt: skip


def repeated(images: np.ndarray, batch: int) -> np.ndarray:
    """Returns uint8[batch, h, w, c]: images from the first on, and again where they are fewer."""
    return np.resize(images, (batch, *images.shape[1:]))


def run_engine(engine: Engine, member: Member, *, batch: int = 1) -> np.ndarray:
    """Returns what an engine gives for a member's reference images, Float32[n, classes].

    Args:
      engine: to run.
      member: whose file.
      batch: images a call; above 1, only as many images as one call takes.
    """
    from deepmaker_jax.export import litert

    call = engine.open(member.bundle, batch, 1)
    if batch > 1:
        logits = call(engine.pixels(repeated(member.images, batch)))
        return logits[: len(member.images)]
    found = np.concatenate([call(image[None]) for image in engine.pixels(member.images)])
    if engine.exact:
        return found
    return litert.dequantize(litert.open_tflite(member.bundle / engine.file), found)
