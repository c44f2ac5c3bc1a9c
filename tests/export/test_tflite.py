"""TFLite files against JAX, and against what a device can run."""

import itertools
import math

import numpy as np
import pytest
import tflite as reader
from ai_edge_litert import schema_py_generated as schema

from benchmarks.measure_tflite import macs
from deepmaker_jax.arch import layers
from deepmaker_jax.config import LimitConfig
from deepmaker_jax.cost import cost, flash_bytes, flash_counts
from deepmaker_jax.errors import InputError
from deepmaker_jax.export import run_tflite, to_tflite, to_tflite_int8
from deepmaker_jax.export import tflite as writer
from deepmaker_jax.export.operators import allowed_operators
from deepmaker_jax.export.operators import operators as list_operators
from deepmaker_jax.feasible import make
from deepmaker_jax.spaces import SPACES
from deepmaker_jax.spaces.neuropower import ACTIVATIONS
from tests.export.networks import CASES, random_images, random_variables
from tests.export.networks import make as network

SIZES = (600, 3_000, 10_000, 30_000, 100_000, 300_000)  # parameters
OPERATORS = {v: k for k, v in vars(reader.BuiltinOperator).items() if isinstance(v, int)}
FORMS = ("float32", "float16", "dynamic", "int8")
every_case = pytest.mark.parametrize("name", CASES)


def graph_of(model):
    root = reader.Model.GetRootAsModel(model, 0)
    assert root.SubgraphsLength() == 1
    return root, root.Subgraphs(0)


def operators(model):
    root, graph = graph_of(model)
    codes = [root.OperatorCodes(graph.Operators(i).OpcodeIndex())
             for i in range(graph.OperatorsLength())]  # fmt: skip
    assert all(code.CustomCode() is None for code in codes)
    return [OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes]


def tensors(graph):
    return [graph.Tensors(i) for i in range(graph.TensorsLength())]


@every_case
def test_float32_file_equals_jax(exported, name):
    case = exported(name)
    error = abs(run_tflite(case.float32, case.images) - case.logits).max()
    assert error <= 1e-5 * np.ptp(case.logits)


@every_case
def test_int8_file_is_near_jax(exported, name):
    case = exported(name)
    error = abs(run_tflite(case.int8, case.images) - case.logits)
    assert np.sqrt(np.mean(error**2)) <= 0.05 * np.ptp(case.logits)


@every_case
def test_float16_file_is_near_jax_and_a_fifth_smaller_at_least(exported, name):
    case = exported(name)
    logits = run_tflite(case.float16, case.images)
    assert abs(logits - case.logits).max() <= 5e-3 * np.ptp(case.logits)
    assert len(case.float16) < 0.8 * len(case.float32)


@every_case
def test_dynamic_range_file_is_near_jax_and_takes_pixels(exported, name):
    case = exported(name)
    logits = run_tflite(case.dynamic, case.images)
    assert np.sqrt(np.mean((logits - case.logits) ** 2)) <= 0.05 * np.ptp(case.logits)
    assert len(case.dynamic) <= len(case.float32)


@every_case
def test_int8_input_has_scale_1_and_zero_point_minus_128(exported, name):
    _, graph = graph_of(exported(name).int8)
    quantization = graph.Tensors(graph.Inputs(0)).Quantization()
    assert quantization.ScaleAsNumpy().tolist() == [1.0]
    assert quantization.ZeroPointAsNumpy().tolist() == [-128]


@every_case
@pytest.mark.parametrize("kind", FORMS)
def test_files_go_from_one_image_to_logits(exported, name, kind):
    case = exported(name)
    _, graph = graph_of(getattr(case, kind))
    assert graph.InputsLength() == graph.OutputsLength() == 1
    entry, leave = graph.Tensors(graph.Inputs(0)), graph.Tensors(graph.Outputs(0))
    assert (entry.Name(), leave.Name()) == (b"image", b"logits")
    assert entry.ShapeAsNumpy().tolist() == [1, *case.arch.input_shape]
    assert leave.ShapeAsNumpy().tolist() == [1, case.arch.num_classes]
    wanted = reader.TensorType.INT8 if kind == "int8" else reader.TensorType.FLOAT32
    assert entry.Type() == leave.Type() == wanted


@every_case
@pytest.mark.parametrize("kind", FORMS)
def test_only_allowed_operators(exported, name, kind):
    case = exported(name)
    used = operators(getattr(case, kind))
    assert set(used) <= allowed_operators(case.arch, kind)
    assert used[-1] == "FULLY_CONNECTED"
    assert list_operators(getattr(case, kind)) == used


@every_case
def test_int8_file_computes_in_whole_numbers(exported, name):
    _, graph = graph_of(exported(name).int8)
    floats = {reader.TensorType.FLOAT32, reader.TensorType.FLOAT16}
    assert not floats & {tensor.Type() for tensor in tensors(graph)}


@every_case
def test_a_dense_block_has_one_scale_without_operators_for_it(exported, name):
    case = exported(name)
    used = operators(case.int8)
    full = {stage.connectivity for stage in case.arch.stages} == {"full"}
    if full and case.arch.activation in ("relu", "relu6", "hard_swish"):
        assert "QUANTIZE" not in used
    _, graph = graph_of(case.int8)
    for i, operator in enumerate(used):
        if operator == "CONCATENATION":
            joined = graph.Operators(i)
            ends = [*joined.InputsAsNumpy(), *joined.OutputsAsNumpy()]
            quantizations = [graph.Tensors(end).Quantization() for end in ends]
            assert len({(q.Scale(0), q.ZeroPoint(0)) for q in quantizations}) == 1


@every_case
def test_post_activation_norms_leave_no_products(exported, name):
    case = exported(name)
    if case.arch.order == "post" and case.arch.activation != "silu":
        assert not {"MUL", "ADD"} & set(operators(case.float32))


def test_strided_stem_is_one_same_padded_convolution(exported):
    case = exported("relu, stem stride, odd sides")
    _, graph = graph_of(case.int8)
    options = reader.Conv2DOptions()
    table = graph.Operators(0).BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    assert operators(case.int8)[0] == "CONV_2D"
    assert options.Padding() == reader.Padding.SAME
    assert (options.StrideH(), options.StrideW()) == (2, 2)


@every_case
def test_flash_estimate_is_within_10_percent_of_the_file(exported, name):
    case = exported(name)
    assert flash_bytes(layers(case.arch)) == pytest.approx(len(case.int8), rel=0.1)


def int8_file(arch):
    return to_tflite_int8(arch, random_variables(arch), random_images(arch, num=2))


@pytest.mark.parametrize(("smallest", "largest"), list(itertools.pairwise(SIZES)))
def test_deepmakers_flash_estimate_is_within_10_percent_at_every_size(smallest, largest):
    space = SPACES["deepmaker"]((32, 32, 3), 10)
    feasible = make(space, LimitConfig(params=largest), spread="params")
    drawn = feasible.sample(np.random.default_rng(smallest), num=20)
    fitting = [a for a in map(space.decode, drawn) if cost(a).params >= smallest]
    assert len(fitting) >= 2
    for arch in fitting[:2]:
        assert cost(arch).flash_bytes == pytest.approx(len(int8_file(arch)), rel=0.1)


@pytest.mark.parametrize("depth", [16, 28, 40])
@pytest.mark.parametrize("blocks", [2, 3])
def test_neuropowers_flash_estimate_is_within_10_percent_at_every_depth(depth, blocks):
    space = SPACES["neuropower"]((32, 32, 3), 10)
    drawn = np.random.default_rng(depth + blocks).choice(ACTIVATIONS, 2)
    row = dict(zip(("activation_negative", "activation_positive"), map(str, drawn), strict=True))
    arch = space.decode(space.genome({"depth": depth, "blocks": blocks, **row}))
    assert cost(arch).flash_bytes == pytest.approx(len(int8_file(arch)), rel=0.1)


def peak_of(model):
    """Returns the most bytes of tensors without data that a file keeps alive, in its own order."""
    root, graph = graph_of(model)
    sizes = {
        i: math.prod(tensor.ShapeAsNumpy().tolist())
        for i, tensor in enumerate(tensors(graph))
        if not root.Buffers(tensor.Buffer()).DataLength()
    }
    steps = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    reads = [[t for t in step.InputsAsNumpy().tolist() if t in sizes] for step in steps]
    alive, peak = set(graph.InputsAsNumpy().tolist()), 0
    for i, step in enumerate(steps):
        alive |= set(step.OutputsAsNumpy().tolist())
        peak = max(peak, sum(sizes[t] for t in alive))
        alive -= {t for t in reads[i] if not any(t in later for later in reads[i + 1 :])}
    return peak


def assert_peak(arch, model):
    peak, found = cost(arch).peak_activation_bytes, peak_of(model)
    if flash_counts(layers(arch)).rereads:  # copies for concatenations of other scales
        assert peak <= found <= 4 / 3 * peak
    else:
        assert peak == found


@every_case
def test_peak_activations_are_those_of_the_file(exported, name):
    case = exported(name)
    assert_peak(case.arch, case.int8)


NEUROPOWER = SPACES["neuropower"]((16, 16, 3), 10)


@pytest.mark.parametrize(
    "activation",
    sorted({NEUROPOWER.decode([0, 0, i, j, 0]).activation for i, j in np.ndindex(6, 6)}),
)
def test_peak_activations_of_two_sided_activations_are_those_of_the_file(activation):
    arch = network(activation, order="pre", compression=100, depths=(2,))
    if activation == "sigmoid/swish":  # the file computes one sigmoid for both
        assert cost(arch).peak_activation_bytes > peak_of(int8_file(arch))
    else:
        assert_peak(arch, int8_file(arch))


def test_file_size_hardly_depends_on_weights():
    arch = CASES["hard_swish, harmonic, stem pool, 28 to 3"]
    images = random_images(arch, num=4)
    sizes = [
        len(to_tflite_int8(arch, random_variables(arch, seed=seed), images)) for seed in range(3)
    ]
    assert max(sizes) <= 1.03 * min(sizes)


@pytest.mark.parametrize("kind", FORMS)
def test_packing_changes_no_result_and_saves_a_tenth(exported, monkeypatch, kind):
    case = exported("hard_swish, harmonic, stem pool, 28 to 3")
    packed = getattr(case, kind)  # written on first use, so before packing is off
    monkeypatch.setattr(writer, "_pack", lambda model: model)
    if kind == "int8":
        calibration = random_images(case.arch, num=8, seed=1)
        loose = to_tflite_int8(case.arch, case.variables, calibration)
    else:
        loose = to_tflite(case.arch, case.variables, kind)
    same = run_tflite(loose, case.images) == run_tflite(packed, case.images)
    assert same.all()
    assert operators(loose) == operators(packed)
    assert len(packed) < 0.9 * len(loose)


def test_equal_options_and_quantizations_are_stored_once(exported):
    model = schema.Model.GetRootAs(exported("hard_swish, harmonic, stem pool, 28 to 3").int8)
    graph, num, places = model.Subgraphs(0), 0, {}
    for op in map(graph.Operators, range(graph.OperatorsLength())):
        if op.BuiltinOptions() is not None:
            said = schema.OperatorT.InitFromObj(op).builtinOptions
            places.setdefault(f"{type(said)} {vars(said)}", set()).add(op.BuiltinOptions().Pos)
            num += 1
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        if tensor.Quantization() is not None:
            said = schema.TensorT.InitFromObj(tensor).quantization
            places.setdefault(str(vars(said)), set()).add(tensor.Quantization()._tab.Pos)
            num += 1
    assert all(len(found) == 1 for found in places.values())
    assert len(places) < 0.8 * num


@pytest.mark.parametrize("name", ["relu, stem stride", "hard_swish, harmonic, stem pool, 28 to 3"])
def test_macs_that_are_read_in_a_file_are_the_cost_models(exported, name):
    case = exported(name)
    assert macs(case.int8) == macs(case.float32) == cost(case.arch).macs


def test_buffers_are_aligned_to_16_bytes(exported):
    for name in CASES:
        root, _ = graph_of(exported(name).int8)
        buffers = [root.Buffers(i) for i in range(root.BuffersLength())]
        places = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
        assert {place % 16 for place in places} == {0}


def test_a_file_is_run_from_its_path_too(exported, tmp_path):
    case = exported("relu, stem stride")
    path = tmp_path / "model.tflite"
    path.write_bytes(case.int8)
    assert (run_tflite(path, case.images) == run_tflite(case.int8, case.images)).all()


def test_int8_without_calibration_images_is_refused(exported):
    case = exported("relu, stem stride")
    with pytest.raises(InputError, match=r"form \(=int8\) needs calibration images"):
        to_tflite(case.arch, case.variables, "int8")


def test_no_images_give_no_logits(exported):
    case = exported("relu, stem stride")
    assert run_tflite(case.int8, case.images[:0]).shape == (0, 10)


def test_images_of_another_shape_are_refused(exported):
    case = exported("relu, stem stride")
    with pytest.raises(InputError, match=r"images \(uint8\[24, 16, 15, 3\]\) must be uint8\[n, 16"):
        run_tflite(case.float32, case.images[:, :, 1:])
    with pytest.raises(InputError, match="calibration images"):
        to_tflite_int8(case.arch, case.variables, case.images.astype(np.float32))


def test_conversion_is_silent(exported, capfd):
    case = exported("relu, stem stride")
    to_tflite_int8(case.arch, case.variables, case.images[:2])
    run_tflite(case.int8, case.images[:2])
    assert capfd.readouterr() == ("", "")
