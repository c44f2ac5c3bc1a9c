"""Gradients are right and lanes independent as users' programs are compiled, too."""

import os
import subprocess
import sys

from tests.conftest import COMPILED_FAST

AS_USERS = "--xla_cpu_use_fusion_emitters=true"  # XLA's default; the last word holds
TESTS = (
    "tests/lanes/test_network.py::test_padded_equals_plain_in_every_class[small-3x3]",
    "tests/lanes/test_network.py::test_padded_equals_plain_in_every_class[small-5x5]",
    "tests/lanes/test_lane.py::test_a_lane_is_the_same_in_every_place_and_with_every_neighbour[map]",
    "tests/lanes/test_lane.py::test_a_lane_that_is_refilled_trains_as_if_it_had_been_first[map]",
    "tests/models/test_dense.py::test_a_stage_as_one_operation_is_its_layers_one_by_one[arch0]",
)


def test_the_forms_agree_as_users_compile_them():
    environment = os.environ | {"XLA_FLAGS": f"{COMPILED_FAST} {AS_USERS}"}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(TESTS)} passed" in done.stdout
