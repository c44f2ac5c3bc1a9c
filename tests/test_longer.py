"""Training a member longer: the folder belongs to one process."""

import pytest

from deepmaker_jax.errors import InputError
from deepmaker_jax.longer import begin_longer


def begin(out, epochs=2):
    return begin_longer(out, {"config": {"epochs": epochs}}, needed_bytes=0)


def test_two_processes_in_one_folder_are_refused(tmp_path):
    out = tmp_path / "longer"
    with begin(out), pytest.raises(InputError, match="is in use by another process"), begin(out):
        pass
    with begin(out):  # the first has ended: the training goes on
        pass


def test_another_training_in_the_folder_is_refused(tmp_path):
    with begin(tmp_path):
        pass
    wanted = r"holds another training \(config differ\)"
    with pytest.raises(InputError, match=wanted), begin(tmp_path, epochs=3):
        pass
