"""A stand-in trainer: a formula instead of training, behind the executor's interface."""

import hashlib

from deepmaker_jax.cost import cost
from deepmaker_jax.events import Epoch
from deepmaker_jax.execute import Outcome
from deepmaker_jax.latency import Latency


def accuracy(arch) -> float:
    """More parameters help, less and less; some choices are better; a hash stands for luck."""
    luck = hashlib.sha256(repr(arch).encode()).digest()[0] / 25_500
    taste = {"relu": 0.0, "relu6": 0.02, "hard_swish": 0.05, "silu": 0.06}.get(arch.activation, 0.1)
    taste += {"none": 0.0, "stride": 0.05, "pool": 0.1}[arch.stem_reduction]
    taste += 0.05 * (arch.stages[0].kernel == 5) + 0.03 * abs(len(arch.stages) - 2)
    return max(0.0, 1 - 0.8 * (500 / (500 + cost(arch).params)) ** 0.3 - taste / 2 - luck)


class StandIn:
    """Answers units in any order that `order` gives; fails the ids in `failing`.

    `failure` is their status and reason.
    """

    num_workers = 2

    def __init__(
        self, *, order=reversed, failing=(), failure=("diverged", "loss nan"), stop_after=None
    ):
        self.units, self.done = [], []
        self._order, self._stop_after = order, stop_after
        self._failing, self._failure = failing, failure

    def submit(self, unit):
        self.units.append(unit)

    def results(self):
        units, self.units = list(self._order(self.units)), []
        for unit in units:
            if self._stop_after is not None and len(self.done) >= self._stop_after:
                raise KeyboardInterrupt
            yield Epoch(unit.id, unit.stage, unit.num_epochs, unit.num_epochs, 0.5)
            self.done.append((unit.id, unit.stage))
            if unit.id in self._failing:
                yield Outcome(unit.id, unit.stage, *self._failure, {}, {})
                continue
            right = accuracy(unit.arch)
            measured = {"val_accuracy": right, "val_loss": 1 - right, "train_loss": 0.1}
            seconds = {"compile": 1.0, "train": 2.0, "eval": 0.5}
            yield Outcome(unit.id, unit.stage, "ok", None, measured, seconds)

    def close(self):
        pass


class StandInTimer:
    """A clock behind `Search.timer`: never twice the same; fails the ids in `failing`."""

    def __init__(self, *, failing=(), reason="no latency: RuntimeError", waiting=0.0, drift=0.0):
        self.timed, self._drift = [], drift
        self._failing, self._reason, self._waiting = failing, reason, waiting

    def __call__(self, archs):
        for id, arch in archs.items():
            self.timed.append(id)
            if id in self._failing:
                yield Outcome(id, "latency", "failed", self._reason, {}, {})
                continue
            drift = 1 + self._drift + len(self.timed) / 1000
            latency = Latency(cost(arch).macs * 1e-7 * drift, 1.0, self._waiting)
            yield Outcome(id, "latency", "ok", None, latency._asdict(), {"eval": 0.1})
