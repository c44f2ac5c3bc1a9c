"""Packing: the same TFLite model in fewer bytes, and the same bytes every time.

The converter names each tensor after the source that made it, gives each
activation an empty buffer of its own, and writes every vector, every operator's
options and every quantization anew. A microcontroller keeps all that in flash.
Packed, tensors between input and output are numbered, what is equal is stored
once (a FlatBuffer may refer to one place from many), and notes about the
conversion are gone. Weights, operators, their order and every number that a
kernel reads stay as they were.
"""

from typing import Any

import flatbuffers
import numpy as np

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
BUFFER_ALIGNMENT = 16  # bytes; the schema's `force_align`, which the Python writer leaves out


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal numeric vectors once, and aligns the data of buffers."""

    def __init__(self):
        super().__init__(1 << 16)
        self._vectors: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x):  # noqa: N802 - flatbuffers' name
        key = (x.dtype.str, x.tobytes())
        if key not in self._vectors:
            alignment = BUFFER_ALIGNMENT if x.dtype == np.uint8 else x.dtype.itemsize
            self.StartVector(x.itemsize, x.size, alignment)
            self.head = self.Head() - len(key[1])
            self.Bytes[self.Head() : self.Head() + len(key[1])] = key[1]
            self._vectors[key] = self.EndVector()
        return self._vectors[key]


class _Once:
    """A table that is written once, however many refer to it."""

    def __init__(self, table: Any):
        self._table = table
        self._place: int | None = None

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 - flatbuffers' name
        place = self._place
        if place is None:
            place = self._place = self._table.Pack(builder)
        return place


class _Shared:
    """Gives equal tables as one."""

    def __init__(self):
        self._known: dict[tuple[type, bytes], _Once] = {}

    def __call__(self, table: Any) -> _Once:
        alone = flatbuffers.Builder()
        alone.Finish(table.Pack(alone))
        return self._known.setdefault((type(table), bytes(alone.Output())), _Once(table))


def pack(model: bytes) -> bytes:
    """Returns the same model, smaller; deterministic.

    Args:
      model: a TFLite file with one subgraph of one input and one output.

    Returns:
      The file with input "image", output "logits", all other tensors numbered.
    """
    from ai_edge_litert import schema_py_generated as schema

    tree: Any = schema.ModelT.InitFromPackedBuf(model, 0)
    (graph,) = tree.subgraphs
    for index, tensor in enumerate(graph.tensors):
        tensor.name = str(index)
    graph.tensors[graph.inputs[0]].name = INPUT_NAME
    graph.tensors[graph.outputs[0]].name = OUTPUT_NAME
    # Buffer 0 is empty by convention, and where every tensor without data points.
    buffers = [schema.BufferT()]
    shared = _Shared()
    for tensor in graph.tensors:
        data = tree.buffers[tensor.buffer].data
        tensor.buffer = 0 if data is None else len(buffers)
        if data is not None:
            buffers.append(schema.BufferT(data=data))
        # Tells a scalar from a tensor of unknown rank; what has dimensions needs no telling.
        tensor.hasRank = tensor.hasRank and (tensor.shape is None or len(tensor.shape) == 0)
        if tensor.quantization is not None:
            is_real = tensor.quantization.scale is not None
            tensor.quantization = shared(tensor.quantization) if is_real else None
    for operator in graph.operators:
        if operator.builtinOptions is not None:
            operator.builtinOptions = shared(operator.builtinOptions)
    tree.buffers = buffers
    tree.metadata = tree.metadataBuffer = tree.signatureDefs = tree.description = None
    builder = _SharingBuilder()
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
