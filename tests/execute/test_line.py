"""The line of an executor's units: who is next, and what becomes of the lost."""

from deepmaker_jax.execute.line import Line
from deepmaker_jax.execute.unit import Unit
from tests.examples import SMALL

A, B, C = (Unit(name, SMALL, "search", 1) for name in "abc")


def test_units_are_taken_in_their_order_and_one_that_is_put_back_is_next():
    line = Line(1)
    for unit in (A, B, C):
        line.put(unit)
    assert line.take([]) == A
    line.put_back(A)
    assert [line.take([]), line.take([A]), len(line)] == [A, B, 1]


def test_a_lost_unit_is_done_after_the_others_alone_as_often_as_is_wanted():
    line = Line(2)
    line.put(B)
    assert line.lose(A)
    assert line.take([]) == B
    assert line.take([B]) is None  # A waits until B is through
    line.put(C)  # what comes then does not pass it
    assert line.take([B]) is None
    assert line.take([]) == A
    assert line.take([A]) is None  # nobody begins beside it
    assert line.lose(A)
    assert [line.take([]), line.take([])] == [C, A]
    assert not line.lose(A)
    assert len(line) == 0


def test_a_lost_unit_does_not_starve_where_units_never_cease():
    """As in an asynchronous search, in which each that ends is followed by another."""
    line, doing, began = Line(1), [A], []
    line.lose(B)
    for i in range(10):
        line.put(A._replace(id=str(i)))
        while (unit := line.take(doing)) is not None:
            doing.append(unit)
            began.append(unit)
        doing.pop(0)
    assert began[0] == B
    assert len(began) > 5
