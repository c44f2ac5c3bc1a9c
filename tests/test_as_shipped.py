"""Gradients are right and lanes independent as users' programs are compiled, too."""

import os
import subprocess
import sys

import pytest

from tests.conftest import COMPILED_FAST

AS_USERS = "--xla_cpu_use_fusion_emitters=true"  # XLA's default; the last word holds
IN_CLASSES = (
    "tests/lanes/test_network.py::test_padded_equals_plain_in_every_class[small-3x3]",
    "tests/lanes/test_network.py::test_padded_equals_plain_in_every_class[small-5x5]",
    "tests/lanes/test_lane.py::test_a_lane_is_the_same_in_every_place_and_with_every_neighbour[map]",
    "tests/lanes/test_lane.py::test_a_lane_that_is_refilled_trains_as_if_it_had_been_first[map]",
)
OF_ONE = (
    "tests/models/test_dense.py::test_a_stage_as_one_operation_is_its_layers_one_by_one[arch0]",
)


@pytest.mark.parametrize(("tests", "level"), [(IN_CLASSES, 3), (OF_ONE, 1)])
def test_the_forms_agree_as_users_compile_them(tests, level):
    """The levels are those of `train.step.options`: 3, which is XLA's own, and 1."""
    flags = f"{COMPILED_FAST} {AS_USERS} --xla_backend_optimization_level={level}"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"XLA_FLAGS": flags}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(tests)} passed" in done.stdout
