"""The operators of a TFLite file: those it has, and those that its network may have."""

from typing import Any, Literal

from deepmaker_jax.arch import ArchSpec, Layer, layers, split_activation

Form = Literal["float32", "float16", "dynamic", "int8"]
OPERATIONS = {
    "conv": {"CONV_2D"},
    "norm": {"MUL", "ADD"},
    "concat": {"CONCATENATION"},
    "max_pool": {"MAX_POOL_2D"},
    "avg_pool": {"AVERAGE_POOL_2D"},
    "global_pool": {"AVERAGE_POOL_2D"},
    "dense": {"FULLY_CONNECTED"},
}
# elu and selu are comparisons, selections and an exponential: TFLite's own ELU is float only.
_ELU = {"GREATER", "SELECT", "SELECT_V2", "EXP", "SUB"}
ACTIVATIONS = {
    "relu": {"RELU"},
    "relu6": {"RELU6"},
    "hard_swish": {"HARD_SWISH"},
    "silu": {"LOGISTIC", "MUL"},
    "swish": {"LOGISTIC", "MUL"},
    "tanh": {"TANH"},
    "sigmoid": {"LOGISTIC"},
    "elu": _ELU,
    "selu": _ELU | {"MUL"},
}
FUSED = ("relu", "relu6")  # into the operator before, where they are the whole activation
TWO_SIDED = {"LESS", "SELECT"}
FORMS: dict[Form, set[str]] = {
    "float32": set(),
    "float16": {"DEQUANTIZE"},  # weights, once, when the file is loaded
    "dynamic": set(),
    "int8": {"QUANTIZE"},  # to another scale, before a concatenation for example
}


def allowed_operators(arch: ArchSpec, form: Form) -> frozenset[str]:
    """Returns the operators that the TFLite file of an architecture may have.

    Args:
      arch: the architecture; its batch norms are folded.
      form: of the file's numbers.

    Returns:
      Names of built-in operators, e.g. "CONV_2D".
    """
    return frozenset(FORMS[form].union(*map(_of_layer, layers(arch))))


def _of_layer(layer: Layer) -> set[str]:
    names = set(OPERATIONS[layer.op])
    if layer.op == "conv" and layer.in_channels == 1:
        names.add("DEPTHWISE_CONV_2D")  # which a convolution of one channel is
    negative, positive = split_activation(layer.activation)
    if negative != positive:
        return names | TWO_SIDED | ACTIVATIONS[negative] | ACTIVATIONS[positive]
    if positive and positive not in FUSED:
        names |= ACTIVATIONS[positive]
    return names


def operators(model: bytes) -> list[str]:
    """Returns the names of a TFLite file's operators in execution order, e.g. "CONV_2D"."""
    import tflite

    names = {
        value: name for name, value in vars(tflite.BuiltinOperator).items() if type(value) is int
    }
    root: Any = tflite.Model.GetRootAsModel(model, 0)
    graph = root.Subgraphs(0)
    codes = [root.OperatorCodes(i) for i in range(root.OperatorCodesLength())]
    builtin = [names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes]
    return [builtin[graph.Operators(i).OpcodeIndex()] for i in range(graph.OperatorsLength())]


def check_operators(model: bytes, arch: ArchSpec, form: Form) -> None:
    """Raises RuntimeError if a TFLite file has an operator that its network does not need."""
    more = sorted(set(operators(model)) - allowed_operators(arch, form))
    if more:
        raise RuntimeError(
            f"the converter used {', '.join(more)}: this network needs only "
            f"{', '.join(sorted(allowed_operators(arch, form)))}"
        )
