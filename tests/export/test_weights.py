"""Weights files: exact, deterministic, and refused when anything is wrong."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deepmaker_jax.errors import InputError
from deepmaker_jax.export import load_weights, save_weights
from tests.export.networks import CASES, random_variables

ARCH = CASES["relu, stem stride"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, ARCH, random_variables(ARCH))
    return path


def rewrite(path, *, arrays=None, metadata=None):
    """Writes the file again with the library, some arrays or the metadata changed."""
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    merged = load_file(path) | (arrays or {})
    kept = {name: value for name, value in merged.items() if value is not None}
    save_file(kept, path, header["__metadata__"] if metadata is None else metadata)


def refusal(path):
    with pytest.raises(InputError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("name", CASES)
def test_architecture_and_weights_come_back_bit_for_bit(tmp_path, name):
    arch, variables = CASES[name], random_variables(CASES[name])
    save_weights(tmp_path / "w", arch, variables)
    again, loaded = load_weights(tmp_path / "w")
    assert again == arch
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    for value, wanted in zip(jax.tree.leaves(loaded), jax.tree.leaves(variables), strict=True):
        assert value.dtype == wanted.dtype
        np.testing.assert_array_equal(value, wanted)


def test_equal_weights_give_equal_bytes_in_any_order_of_keys(path, tmp_path):
    backwards = {
        group: dict(reversed(tree.items()))
        for group, tree in reversed(random_variables(ARCH).items())
    }
    save_weights(tmp_path / "again", ARCH, backwards)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_other_readers_find_the_arrays_by_path(path):
    kernel = random_variables(ARCH)["params"]["stem"]["kernel"]
    np.testing.assert_array_equal(load_file(path)["params/stem/kernel"], kernel)


def test_missing_file_is_refused(tmp_path):
    assert "run the command that made it again" in refusal(tmp_path / "none")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_cut_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("metadata", [{}, {"format": "deepmaker-jax 1"}, {"format": "2"}])
def test_file_without_our_metadata_is_refused(path, metadata):
    rewrite(path, metadata=metadata)
    assert "metadata" in refusal(path)


@pytest.mark.parametrize("arch", ["", "[]", "null", "{", '{"stages": 3}', "[" * 99999])
def test_damaged_architecture_is_refused(path, arch):
    rewrite(path, metadata={"format": "deepmaker-jax 1", "arch": arch})
    assert "damaged architecture" in refusal(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"params/stem/kernel": None}, "params/stem/kernel is missing"),
        ({"params/more": np.zeros(3, np.float32)}, "params/more is not of this architecture"),
        (
            {"params/stem/kernel": np.zeros((3, 3, 3, 13), np.float32)},
            r"(float32[3, 3, 3, 13]) must be float32[3, 3, 3, 12]",
        ),
        (
            {"params/stem/kernel": np.zeros((3, 3, 3, 12), np.float16)},
            r"(float16[3, 3, 3, 12]) must be float32[3, 3, 3, 12]",
        ),
        ({"params/logits/bias": np.full(10, np.nan, np.float32)}, "not finite"),
        ({"params/logits/bias": np.full(10, np.inf, np.float32)}, "not finite"),
    ],
)
def test_wrong_arrays_are_refused(path, arrays, message):
    rewrite(path, arrays=arrays)
    assert message in refusal(path)


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    variables = random_variables(ARCH)
    variables["params"]["logits"]["bias"][3] = np.nan
    with pytest.raises(InputError, match="params/logits/bias has a value that is not finite"):
        save_weights(tmp_path / "w", ARCH, variables)
    assert list(tmp_path.iterdir()) == []
