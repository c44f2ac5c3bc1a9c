"""Every case exported once for all tests of a file: TensorFlow starts once."""

import functools

import pytest

from tests.export.networks import CASES, Exported


@pytest.fixture(scope="session")
def exported():
    """Returns a function from a case's name to its `Exported`."""
    return functools.cache(lambda name: Exported(CASES[name]))
