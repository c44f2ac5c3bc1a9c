"""Clocks: what is timed takes turns."""

from deepmaker_jax.backends.timing import interleaved


def test_calls_take_turns_and_warm_up_is_not_counted():
    now, order = [0.0], []
    takes = {"a": iter([9, 9, 1, 2, 3, 4, 5]), "b": iter([9, 9, 10, 10, 10, 10, 10])}

    def call(name):
        order.append(name)
        now[0] += next(takes[name]) / 1000

    calls = {name: lambda name=name: call(name) for name in takes}
    found = interleaved(calls, num_rounds=5, num_warmup=2, clock=lambda: now[0])
    assert order == ["a", "b"] * 7
    assert (round(found["a"].median_ms, 6), found["a"].num_calls) == (3.0, 5)
    assert round(found["a"].p95_ms, 6) == 4.8
    assert round(found["b"].median_ms, 6) == 10.0
