"""A stand-in trainer: a formula instead of training, behind the executor's interface."""

from benchmarks.cluster import answer
from deepmaker_jax.cost import cost
from deepmaker_jax.events import Epoch
from deepmaker_jax.execute import Outcome
from deepmaker_jax.latency import Latency


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
        while self.units:
            units, self.units = list(self._order(self.units)), []
            yield from self._do(units)

    def _do(self, units):
        for unit in units:
            if self._stop_after is not None and len(self.done) >= self._stop_after:
                raise KeyboardInterrupt
            yield Epoch(unit.id, unit.stage, unit.num_epochs, unit.num_epochs, 0.5)
            self.done.append((unit.id, unit.stage))
            if unit.id in self._failing:
                yield Outcome(unit.id, unit.stage, *self._failure, {}, {})
                continue
            if unit.weights is not None:  # as every worker leaves them
                unit.weights.parent.mkdir(parents=True, exist_ok=True)
                unit.weights.write_bytes(unit.id.encode())
            yield answer(unit)

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
