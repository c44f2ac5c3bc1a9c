"""The C++ sources for microcontrollers: the same bytes, an arena with room, only what is needed.

The whole program against TensorFlow Lite Micro is built and run by `benchmarks/firmware.py`.
"""

import re
import subprocess

import pytest

from deepmaker_jax.arch import layers
from deepmaker_jax.backends import firmware
from deepmaker_jax.export.operators import allowed_operators, operators
from tests.export.networks import CASES, make

DUMP = """
#include <cstdio>
#include "model.h"
int main() {
  static_assert(kArenaBytes == 6160, "5,000 + 1,152, the next multiple of 16");
  return std::fwrite(kModel, 1, kModelBytes, stdout) != kModelBytes;
}
"""


@pytest.fixture
def model(member):
    return (member.bundle / "model_int8.tflite").read_bytes()


def test_the_array_is_the_file(model, tmp_path):
    firmware.write_model(tmp_path / "model.cc", model)
    firmware.write_header(tmp_path / "model.h", 5000, scratch=1152)
    (tmp_path / "dump.cc").write_text(DUMP)
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "dump.cc", "model.cc"]
    subprocess.run([*command, "-o", "dump"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "dump"], capture_output=True, check=True)
    assert done.stdout == model
    assert firmware.read_model(tmp_path / "model.cc") == model


def test_scratch_memory_is_that_of_the_widest_window():
    arch = make(depths=(1, 2))
    widest = max(x.kernel**2 * x.in_channels for x in layers(arch) if x.op == "conv")
    assert 4 * widest <= firmware.scratch_bytes(layers(arch)) < 4 * (widest + 16)


def test_the_program_registers_the_models_operators_and_no_others(model, tmp_path):
    firmware.write_program(tmp_path / "main.cc", model)
    text = (tmp_path / "main.cc").read_text()
    needed = sorted(firmware.REGISTER[name] for name in set(operators(model)))
    assert sorted(re.findall(r"operators\.Add(\w+)\(\)", text)) == needed
    assert f"MicroMutableOpResolver<{len(needed)}>" in text
    assert firmware.FLAGS in text


@pytest.mark.parametrize("name", CASES)
def test_every_operator_that_a_file_may_have_is_known(name):
    assert allowed_operators(CASES[name], "int8") - {"SELECT"} <= firmware.REGISTER.keys()


def test_an_operator_that_no_bundle_has_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.delitem(firmware.REGISTER, "CONV_2D")
    with pytest.raises(RuntimeError, match="no registration is known for operators CONV_2D"):
        firmware.write_program(tmp_path / "main.cc", model)
