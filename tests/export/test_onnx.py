"""ONNX files against JAX."""

import sys

import numpy as np
import onnx
import pytest

from deepmaker_jax.errors import InputError
from deepmaker_jax.export import run_onnx, to_onnx
from tests.export.networks import CASES

every_case = pytest.mark.parametrize("name", CASES)


@every_case
def test_file_equals_jax(exported, name):
    case = exported(name)
    assert abs(run_onnx(case.onnx, case.images) - case.logits).max() <= 1e-5 * np.ptp(case.logits)


@every_case
def test_file_goes_from_one_image_to_logits(exported, name):
    case = exported(name)
    graph = onnx.load_from_string(case.onnx).graph
    (entry,), (leave,) = graph.input, graph.output
    assert (entry.name, leave.name) == ("image", "logits")
    for value, shape in ((entry, case.arch.input_shape), (leave, (10,))):
        tensor = value.type.tensor_type
        assert tensor.elem_type == onnx.TensorProto.FLOAT
        assert [d.dim_value for d in tensor.shape.dim] == [1, *shape]


@every_case
def test_constants_are_used_and_not_turned_in_the_graph(exported, name):
    model = onnx.load_from_string(exported(name).onnx)
    constants = {tensor.name for tensor in model.graph.initializer}
    assert constants <= {name for node in model.graph.node for name in node.input}
    turned = [node for node in model.graph.node if node.op_type == "Transpose"]
    assert not constants & {node.input[0] for node in turned}


def test_only_standard_operators_of_one_opset_and_no_notes(exported):
    model = onnx.load_from_string(exported("silu").onnx)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
    assert not any(node.domain or node.name or node.doc_string for node in model.graph.node)
    assert not any(node.metadata_props for node in model.graph.node)
    assert not any(map(len, (model.metadata_props, model.graph.value_info, model.functions)))


def test_a_file_is_run_from_its_path_too(exported, tmp_path):
    case = exported("silu")
    path = tmp_path / "model.onnx"
    path.write_bytes(case.onnx)
    assert (run_onnx(path, case.images) == run_onnx(case.onnx, case.images)).all()
    assert run_onnx(path, case.images[:0]).shape == (0, 10)


def test_images_of_another_shape_are_refused(exported):
    case = exported("silu")
    with pytest.raises(InputError, match=r"images \(uint8\[24, 16, 15, 3\]\) must be uint8\[n, 16"):
        run_onnx(case.onnx, case.images[:, :, 1:])


@pytest.mark.parametrize("package", ["onnx", "jax2onnx"])
def test_without_the_converter_the_extra_is_named(exported, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    case = exported("silu")
    with pytest.raises(InputError, match=r"pip install 'deepmaker-jax\[export\]'"):
        to_onnx(case.arch, case.variables)


def test_conversion_is_silent(exported, capfd):
    case = exported("elu and selu")
    run_onnx(to_onnx(case.arch, case.variables), case.images[:1])
    assert capfd.readouterr() == ("", "")
