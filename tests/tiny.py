"""A run on real digits that takes seconds, for the tests of the whole job."""

import dataclasses

from benchmarks.kill import CONFIG
from deepmaker_jax import load_data, run

TINY = dataclasses.replace(
    CONFIG,
    search=dataclasses.replace(CONFIG.search, rungs=1, oversample=1),
    final=dataclasses.replace(CONFIG.final, seeds=1),
)
DIGITS = load_data("digits")


class Stopped(Exception):  # noqa: N818 - it stands for a Ctrl-C
    pass


def go(out, *, config=TINY, stop=None, **rest):
    """Runs into `out`; returns (front, events). `stop(event)` true ends it like a Ctrl-C."""
    events = []

    def on_event(event):
        events.append(event)
        if stop and stop(event):
            raise Stopped

    config = dataclasses.replace(config, out=str(out), executor=rest.pop("executor", "inline"))
    front = run(config, data=rest.pop("data", DIGITS), on_event=on_event, **rest)
    return front, events


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]
