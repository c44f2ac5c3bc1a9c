"""Errors as one line that is the same everywhere."""

from deepmaker_jax.errors import one_line


def test_a_line_names_neither_a_place_nor_an_address():
    error = OSError("cannot open /home/me/runs/a b/x.npy\n  (<Thing at 0x7f3ac0de>), 3/4 done")
    assert one_line(error) == "OSError: cannot open PATH b/x.npy (<Thing at ADDRESS>), 3/4 done"


def test_an_error_without_words_is_its_name():
    assert one_line(EOFError()) == "EOFError"
