"""The host loop without generations: as one candidate ends, the next is proposed.

No worker waits for the slowest of a generation. Which candidate is tried next then
depends on which ended first, so a run is not byte for byte repeatable; but its ledger,
which holds them in that order, replays it.
"""

from collections.abc import Generator, Sequence

import numpy as np

from deepmaker_jax.events import Event, GenerationStarted, Measured
from deepmaker_jax.execute import Outcome
from deepmaker_jax.ledger import Record, lost
from deepmaker_jax.measurement import Candidate, Search, check_known, new_record
from deepmaker_jax.search import (
    Teller,
    as_unit,
    exhausted,
    first_candidates,
    forget,
    forget_all,
    new_history,
)

TOLD_SHARE = 16  # of a population: a strategy is told that many at once, as each time it sorts


class _Standing:
    """Where the search stands: a function of the measurements in their order alone.

    Attributes:
      history: what was measured.
      taken: ids of that, and of what was given to the executor.
      lost: by id, what was lost with its worker, and at which rung; to be measured when
        the run is resumed.
      num_measured: measurements, at all rungs, the lost ones too.
    """

    def __init__(self, s: Search):
        self.history, self.taken, self.num_measured = new_history(s), set[str](), 0
        self.lost: dict[str, tuple[Candidate, int]] = {}
        self._s, self._teller, self._untold = s, None, dict[str, Record]()
        self._num_begun = 0  # generations

    @property
    def num_done(self) -> int:
        """Candidates that were measured, at whatever rung."""
        return len(self.history.tally.known)

    @property
    def can_propose(self) -> bool:
        """Whether a first population has ended."""
        return self._teller is not None

    @property
    def generation(self) -> int:
        """The one that began last."""
        return self._num_begun - 1

    def begin(self) -> bool:
        """Whether a measurement at the first rung begins a generation; lost, it leaves it begun."""
        generation = self.num_done // self._s.config.search.population
        begins, self._num_begun = generation == self._num_begun, generation + 1
        return begins

    def add(self, record: Record, rung: int) -> None:
        """Takes note of a measurement, and tells the strategy when it is due."""
        id = record["id"]
        self.num_measured += 1
        self.taken.add(id)
        if lost(record):
            self.lost[id] = candidate_of(record), rung
            self.history.ladder.add(rung, [record])  # it went on, and is promoted no second time
        else:
            self.lost.pop(id, None)
            self.history.add(rung, [record])
        if rung == 0 or not lost(record):  # else what was told of a lower rung still holds
            self._untold[id] = record
            self._tell_if_due()

    def _tell_if_due(self) -> None:
        records, size = list(self._untold.values()), self._s.config.search.population
        if self._teller is None and len(records) == size:
            self._teller = Teller(self._s, records)
        elif self._teller is not None and len(records) == max(1, size // TOLD_SHARE):
            self._teller.tell(self.num_measured, records)
        else:
            return
        self._untold.clear()

    def propose(self, num: int, *, pending: Sequence[Candidate]) -> list[Candidate]:
        """Returns up to `num` candidates that are not taken, beside those in training."""
        assert self._teller is not None
        return self._teller.propose(
            self.num_measured, self.history, known=self.taken, num=num, pending=pending
        )

    def promote(self) -> tuple[Candidate, int] | None:
        """Returns who goes on to which rung next, if anyone does."""
        if (found := self.history.ladder.promote_any()) is None:
            return None
        rung, id = found
        record = self._s.ledger.find(id, self.history.ladder.fidelities[rung])
        assert record is not None
        return candidate_of(record), rung + 1


def candidate_of(record: Record) -> Candidate:
    """Returns the candidate that was measured."""
    return Candidate(record["id"], np.array(record["genome"], np.int32), tuple(record["parents"]))


class _Work:
    """Who trains, and who comes next.

    Attributes:
      doing: {id: (candidate, rung)}, who trains.
      is_exhausted: whether the space has nobody left.
    """

    def __init__(self, s: Search, standing: _Standing, total: int):
        """Begins with whom an earlier run lost, and with the first population; `total` in all."""
        self._s, self._standing, self._total = s, standing, total
        self.doing: dict[str, tuple[Candidate, int]] = {}
        self.is_exhausted = False
        # At first so many that no worker waits for the first population's last.
        most = min(s.config.search.population + s.executor.num_workers - 1, total)
        first = first_candidates(s, at_least=0 if standing.can_propose else most)
        fresh = [candidate for candidate in first if candidate.id not in standing.taken]
        self._waiting = [*standing.lost.values(), *((candidate, 0) for candidate in fresh)]
        standing.lost.clear()

    def submit(self) -> None:
        """Gives the executor all that waits, and more while a worker is free."""
        while self._waiting or self._add():
            candidate, rung = self._waiting.pop(0)
            self.doing[candidate.id] = candidate, rung
            self._standing.taken.add(candidate.id)
            self._s.executor.submit(
                as_unit(self._s, candidate, self._standing.history.ladder.rungs[rung])
            )

    def _add(self) -> bool:
        """Adds to what waits, if a worker is free: who goes on first of all."""
        standing, free = self._standing, self._s.executor.num_workers - len(self.doing)
        if free > 0 and (promoted := standing.promote()) is not None:
            self._waiting.append(promoted)
        elif free > 0 and standing.can_propose and not self.is_exhausted:
            begun = sum(rung == 0 for _, rung in [*self.doing.values(), *standing.lost.values()])
            num = min(free, self._total - standing.num_done - begun)
            pending = [candidate for candidate, _ in self.doing.values()]
            proposed = standing.propose(num, pending=pending) if num > 0 else []
            self.is_exhausted = not proposed and num > 0
            self._waiting.extend((candidate, 0) for candidate in proposed)
        return bool(self._waiting)


def search_asynchronously(s: Search) -> Generator[Event, None, list[Record]]:
    """Measures as many candidates as the generations have; yields events, returns the front.

    A generation is what was measured, at the first rung, between two multiples of the
    population's size; a measurement further up counts to the one that began last.
    """
    size, standing = s.config.search.population, _Standing(s)
    total = size * s.config.search.generations
    for record in s.ledger:
        rung = standing.history.ladder.rung_of(record["fidelity"])
        if rung is not None:
            if not lost(record):
                yield from _begin(standing, size, rung, num_new=0)
            standing.add(check_known(s, record), rung)
            yield from _end(standing, size, rung, record)
    work = _Work(s, standing, total)
    work.submit()
    for result in s.executor.results():
        if not isinstance(result, Outcome):
            yield result
            continue
        candidate, rung = work.doing.pop(result.id)
        yield from _begin(standing, size, rung, num_new=size)
        generation, fidelity = standing.generation, standing.history.ladder.fidelities[rung]
        before = standing.num_done - generation * size
        record = s.ledger.append(new_record(s, candidate, generation, result, fidelity))
        standing.add(record, rung)
        work.submit()  # before anyone looks at this one: no worker is to wait
        if _is_over(record, fidelity, standing):
            forget(s, [candidate.id])
        yield Measured("search", record, before + (rung == 0), size)
        yield from _end(standing, size, rung, record)
    forget_all(s)  # who goes on in more generations trains to its rung anew, to the same bits
    fidelities = standing.history.ladder.fidelities
    s.ledger.expect((id, fidelities[rung]) for id, (_, rung) in standing.lost.items())
    if work.is_exhausted:
        yield exhausted(s, f"{standing.num_done} of {total} candidates")
    return standing.history.highest_front()


def _is_over(record: Record, fidelity: Record, standing: _Standing) -> bool:
    """Whether a candidate trains no further, whatever is measured later."""
    is_last = fidelity == standing.history.ladder.fidelities[-1]
    return not lost(record) and (is_last or record["status"] != "ok")


def _begin(
    standing: _Standing, size: int, rung: int, *, num_new: int
) -> Generator[Event, None, None]:
    if rung == 0 and standing.begin():
        yield GenerationStarted(standing.num_done // size, size, num_new)


def _end(standing: _Standing, size: int, rung: int, record: Record) -> Generator[Event, None, None]:
    if rung == 0 and standing.num_done % size == 0 and not lost(record):
        yield standing.history.tally.summary(standing.num_done // size - 1)
