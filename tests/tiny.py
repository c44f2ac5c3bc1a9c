"""A run on real digits that takes seconds, for the tests of the whole job."""

import dataclasses

from deepmaker_jax import (
    Config,
    load_data,
    run,
)
from deepmaker_jax.config import FinalConfig, LimitConfig, SearchConfig, SpaceConfig, TrainConfig

TINY = Config(
    validation_share=0.2,
    space=SpaceConfig(only=("optimizer=sgd", "activation=relu", "stages=1", "bottleneck=0")),
    limits=LimitConfig(params=4_000),
    search=SearchConfig(population=4, generations=3, epochs=2, objectives=("error", "params")),
    train=TrainConfig(batch_size=64),
    final=FinalConfig(members=2, epochs=4, calibration_images=64),
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
