"""C++ sources for TensorFlow Lite Micro: the model, and a program around it."""

import pathlib
import re
from collections.abc import Sequence

from deepmaker_jax.arch import Layer
from deepmaker_jax.export.operators import operators
from deepmaker_jax.sram import aligned

# The operators that an int8 file may have (`operators.allowed_operators`), and what registers each;
# only those that it has are linked. SELECT is missing: TensorFlow Lite Micro has no kernel for it.
REGISTER = {
    "ADD": "Add", "AVERAGE_POOL_2D": "AveragePool2D", "CONCATENATION": "Concatenation",
    "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "EXP": "Exp",
    "FULLY_CONNECTED": "FullyConnected", "GREATER": "Greater", "HARD_SWISH": "HardSwish",
    "LESS": "Less", "LOGISTIC": "Logistic", "MAX_POOL_2D": "MaxPool2D", "MUL": "Mul",
    "QUANTIZE": "Quantize", "RELU": "Relu", "RELU6": "Relu6", "SELECT_V2": "SelectV2",
    "SUB": "Sub", "TANH": "Tanh",
}  # fmt: skip
ALIGNMENT = 16  # bytes, of TensorFlow Lite Micro's arena
BYTES_A_LINE = 12
FLAGS = "-std=c++17 -Os -fno-rtti -fno-exceptions -DTF_LITE_STATIC_MEMORY"  # as the library is made

HEADER = """\
// The network, an int8 TFLite file, and the memory that it needs. Generated.
#ifndef MODEL_H_
#define MODEL_H_

#include <cstddef>
#include <cstdint>

// Input: int8, pixel ^ 0x80 for each camera byte, height x width x channels.
extern const unsigned char kModel[];
extern const size_t kModelBytes;
// What it takes with TFLM's own kernels, and scratch memory for CMSIS-NN's: {scratch} bytes.
constexpr size_t kArenaBytes = {arena};

#endif  // MODEL_H_
"""
MODEL = """\
// An int8 TFLite file as an array: {num} bytes. Generated.
#include "model.h"

alignas(16) const unsigned char kModel[] = {{
{rows}
}};
const size_t kModelBytes = sizeof(kModel);
"""
PROGRAM = """\
// Runs the network on TensorFlow Lite Micro. Generated; give GetImage and Report your board's code.
//
// As it is, it reads frames from standard input and prints a line for each: label, int8 logits.
// With $TFLM a checkout of tflite-micro, its static library made for your target by
// `make -f tensorflow/lite/micro/tools/make/Makefile microlite`, and the libraries that this loads
// in $LOADED, $TFLM/tensorflow/lite/micro/tools/make/downloads:
//   $CXX {flags} \\
//     -I$TFLM -I$LOADED/flatbuffers/include -I$LOADED/gemmlowp \\
//     main.cc model.cc libtensorflow-microlite.a -Wl,--gc-sections -o network
#include <cstdio>

#include "model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {{
alignas(16) uint8_t arena[kArenaBytes];

// Writes one camera frame: uint8, height x width x channels. Returns whether there was one.
bool GetImage(uint8_t* pixels, size_t count) {{
  return std::fread(pixels, 1, count, stdin) == count;
}}

void Report(int label, const int8_t* logits, size_t count) {{
  std::printf("%d", label);
  for (size_t i = 0; i < count; ++i) std::printf(" %d", logits[i]);
  std::printf("\\n");
}}
}}  // namespace

int main() {{
  tflite::InitializeTarget();
  tflite::MicroMutableOpResolver<{num}> operators;
{register}
  tflite::MicroInterpreter interpreter(tflite::GetModel(kModel), operators, arena, kArenaBytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;

  TfLiteTensor* input = interpreter.input(0);
  const TfLiteTensor* output = interpreter.output(0);
  while (GetImage(input->data.uint8, input->bytes)) {{
    for (size_t i = 0; i < input->bytes; ++i) input->data.uint8[i] ^= 0x80;
    if (interpreter.Invoke() != kTfLiteOk) return 1;
    size_t best = 0;
    for (size_t i = 1; i < output->bytes; ++i) {{
      if (output->data.int8[i] > output->data.int8[best]) best = i;
    }}
    Report(static_cast<int>(best), output->data.int8, output->bytes);
  }}
  return 0;
}}
"""


def scratch_bytes(network: Sequence[Layer]) -> int:
    """Returns the most that one of CMSIS-NN's kernels for Cortex-M asks the arena for.

    TFLM's own kernels ask for none. For a convolution that is the columns of four
    products, rounded up to whole vectors; for sums, four bytes a channel.

    Source: CMSIS-NN 2.3, `arm_convolve_s8_get_buffer_size_mve` (what other processors
    take is no more), `arm_avgpool_s8_get_buffer_size`, `arm_fully_connected_s8_get_buffer_size`.
    """
    columns = [
        aligned(layer.kernel**2 * layer.in_channels, ALIGNMENT)
        for layer in network
        if layer.op == "conv"
    ]
    return 4 * max(*columns, *(layer.shape[-1] for layer in network))


def write_header(path: pathlib.Path, arena_bytes: int, *, scratch: int) -> None:
    """Writes the declarations: the model, and an arena that suffices for it.

    What the interpreter says that it used is all that an aligned arena needs
    (TensorFlow Lite Micro, `micro_interpreter.h`), and more than on 32 bits, whose
    pointers are half as long.

    Args:
      path: of the header.
      arena_bytes: as the interpreter used it here.
      scratch: of kernels that it did not use here, as `scratch_bytes`.
    """
    room = aligned(arena_bytes + scratch, ALIGNMENT)
    path.write_text(HEADER.format(arena=room, scratch=scratch), encoding="utf-8")


def write_model(path: pathlib.Path, model: bytes) -> None:
    """Writes the model as a C array."""
    parts = [model[i : i + BYTES_A_LINE] for i in range(0, len(model), BYTES_A_LINE)]
    rows = "\n".join("  " + " ".join(f"0x{byte:02x}," for byte in part) for part in parts)
    path.write_text(MODEL.format(num=len(model), rows=rows), encoding="utf-8")


def read_model(path: pathlib.Path) -> bytes:
    """Returns the model that `write_model` wrote."""
    return bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2}),", path.read_text("utf-8")))


def write_program(path: pathlib.Path, model: bytes) -> None:
    """Writes the program, with the operators that the model needs and no others.

    Raises:
      RuntimeError: the model has an operator that no bundle should.
    """
    names = sorted(set(operators(model)))
    unknown = [name for name in names if name not in REGISTER]
    if unknown:
        raise RuntimeError(f"no registration is known for operators {', '.join(unknown)}")
    lines = "\n".join(f"  operators.Add{REGISTER[name]}();" for name in names)
    path.write_text(PROGRAM.format(num=len(names), register=lines, flags=FLAGS), encoding="utf-8")
