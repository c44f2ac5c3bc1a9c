"""Packing: the same TFLite model in fewer bytes, and the same bytes every time.

The converter names each tensor after the source that made it, gives each
activation an empty buffer of its own, and writes every vector anew. A
microcontroller keeps all that in flash. Packed, tensors between input and
output are numbered, equal vectors are stored once (a FlatBuffer may refer to one
vector from many places), and notes about the conversion are gone. Weights,
operators, their order and every number that a kernel reads stay as they were.
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
    for tensor in graph.tensors:
        data = tree.buffers[tensor.buffer].data
        tensor.buffer = 0 if data is None else len(buffers)
        if data is not None:
            buffers.append(schema.BufferT(data=data))
        if tensor.quantization is not None and tensor.quantization.scale is None:
            tensor.quantization = None
    tree.buffers = buffers
    tree.metadata = tree.metadataBuffer = tree.signatureDefs = tree.description = None
    builder = _SharingBuilder()
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
