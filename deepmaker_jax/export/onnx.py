"""From a trained network to an ONNX file."""

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np

from deepmaker_jax.arch import ArchSpec
from deepmaker_jax.errors import MissingToolError
from deepmaker_jax.export.quiet import quiet
from deepmaker_jax.models import folded_network

INPUT_NAME, OUTPUT_NAME = "image", "logits"
OPSET = 21


def to_onnx(arch: ArchSpec, variables: dict[str, Any], *, batch: int = 1) -> bytes:
    """Returns the ONNX file of a trained network; equal bytes for equal arguments.

    Args:
      arch: its architecture.
      variables: of the plain `Network(layers(arch))`; folded here.
      batch: images a call.

    Returns:
      A file that `onnx.checker` has passed, from "image", float32[batch, h, w, c],
      raw pixels 0..255, to "logits", float32[batch, classes].

    Raises:
      MissingToolError: onnx or jax2onnx is not installed.
    """
    onnx, convert = _tools()
    network, weights = folded_network(arch, variables)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = convert(
            lambda image: network.apply(weights, image),
            inputs=[jax.ShapeDtypeStruct((batch, *arch.input_shape), np.float32)],
            model_name="network",
            opset=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
        )
    _tidy(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def tool_version() -> str:
    """Returns what the manifest calls the converter, e.g. "jax2onnx 0.17.1"."""
    from importlib.metadata import version

    return f"jax2onnx {version('jax2onnx')}"


def _tools() -> tuple[ModuleType, Callable[..., Any]]:
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import onnx
            from jax2onnx import to_onnx as convert
    except ImportError as error:
        raise MissingToolError(
            f"ONNX export needs jax2onnx ({error}): pip install 'deepmaker-jax[export]'"
        ) from None
    return onnx, convert


def _tidy(model: Any) -> None:
    """Leaves what is computed: constants that are used, in the layout that is used, numbered.

    The converter transposes weights within the graph, keeps constants that
    nothing reads, and names values by counters that go on from file to file.
    """
    if model.functions:
        raise RuntimeError(f"the converter made {len(model.functions)} functions of its own")
    graph = model.graph
    _transpose_constants(graph)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    names = {INPUT_NAME: INPUT_NAME, OUTPUT_NAME: OUTPUT_NAME, "": ""}
    written = [name for node in graph.node for name in node.output]
    for value in [*(tensor.name for tensor in graph.initializer), *written]:
        names.setdefault(value, str(len(names)))
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for node in graph.node:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        node.ClearField("name")
    for message in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        message.ClearField("metadata_props")
        message.ClearField("doc_string")
    graph.ClearField("value_info")  # whoever needs the shapes infers them


def _transpose_constants(graph: Any) -> None:
    """Replaces each transposition of a constant by its result."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Transpose" and node.input[0] in constants:
            value = numpy_helper.to_array(constants[node.input[0]])
            turned = np.ascontiguousarray(value.transpose(node.attribute[0].ints))
            graph.initializer.append(numpy_helper.from_array(turned, node.output[0]))
            graph.node.remove(node)
