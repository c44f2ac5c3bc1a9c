"""How much the doors are given, in all: each test asserts its own part of `DOORS`."""

import pathlib

from tests.fuzz.core import DOORS

TESTS = [path.read_text() for path in pathlib.Path(__file__).parent.glob("test_*.py")]


def test_every_door_is_given_200_different_inputs_and_all_of_them_5000():
    assert min(DOORS.values()) >= 200
    assert sum(DOORS.values()) >= 5000


def test_every_door_is_one_test_that_counts_its_inputs():
    tests = [test for text in TESTS for test in text.split("\ndef test_")[1:]]
    for name in DOORS:
        (test,) = [test for test in tests if f'Door("{name}", capsys)' in test]
        assert "door.check(refused=" in test
