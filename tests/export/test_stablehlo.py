"""StableHLO files against JAX."""

import re

import jax
import numpy as np
import pytest
from jax.extend import mlir
from jax.interpreters.mlir import make_ir_context

from deepmaker_jax.export.stablehlo import PLATFORMS, run_jax_export, run_stablehlo
from tests.export.networks import CASES

every_case = pytest.mark.parametrize("name", CASES)


def text(model):
    with make_ir_context():
        module = mlir.deserialize_portable_artifact(model)
        return module.operation.get_asm(enable_debug_info=True)


@every_case
def test_artifact_equals_jax(exported, name):
    case = exported(name)
    logits = run_stablehlo(case.stablehlo, case.images, case.arch.num_classes)
    assert abs(logits - case.logits).max() <= 1e-5 * np.ptp(case.logits)


@every_case
def test_jax_export_equals_jax_for_any_number_of_images(exported, name):
    case = exported(name)
    limit = 1e-5 * np.ptp(case.logits)
    assert abs(run_jax_export(case.jax_export, case.images) - case.logits).max() <= limit
    again = jax.export.deserialize(bytearray(case.jax_export))
    for num in (1, 3):
        logits = again.call(case.images[:num].astype(np.float32))
        assert abs(logits - case.logits[:num]).max() <= limit


def test_jax_export_fills_its_last_batch(exported, monkeypatch):
    case = exported("relu, stem stride")
    monkeypatch.setattr("deepmaker_jax.export.stablehlo.BATCH", 7)
    logits = run_jax_export(case.jax_export, case.images)
    assert abs(logits - case.logits).max() <= 1e-5 * np.ptp(case.logits)


def test_jax_export_is_for_every_platform(exported):
    again = jax.export.deserialize(bytearray(exported("silu").jax_export))
    assert again.platforms == PLATFORMS
    assert str(again.in_avals[0].shape) == "(b, 16, 16, 3)"


@every_case
def test_artifact_goes_from_one_image_to_logits_by_stablehlo_alone(exported, name):
    case = exported(name)
    module = text(case.stablehlo)
    h, w, c = case.arch.input_shape
    wanted = rf"func public @main\(%arg0: tensor<1x{h}x{w}x{c}xf32>.*-> \(tensor<1x10xf32>"
    assert re.search(wanted, module)
    assert "custom_call" not in module
    assert "optimization_barrier" not in module  # a form for training on a CPU


@pytest.mark.parametrize("kind", ["stablehlo", "jax_export"])
def test_no_source_line_is_left(exported, kind):
    case = exported("silu")
    file = case.stablehlo
    if kind == "jax_export":
        file = jax.export.deserialize(bytearray(case.jax_export)).mlir_module_serialized
    for model in (getattr(case, kind), file):
        assert b".py" not in model
        assert b"deepmaker" not in model
    assert set(re.findall(r"loc\(([^)]*)\)", text(file))) <= {"unknown", "#loc"}
