"""The host loop without generations: as one candidate ends, the next is proposed.

No worker waits for the slowest of a generation. Which candidate is tried next then
depends on which ended first, so a run is not byte for byte repeatable; but its ledger,
which holds them in that order, replays it.
"""

from collections.abc import Generator

import numpy as np

from deepmaker_jax.events import Event, GenerationStarted, Measured
from deepmaker_jax.execute import Outcome
from deepmaker_jax.ledger import Record, lost
from deepmaker_jax.search import (
    Candidate,
    Search,
    Teller,
    as_unit,
    check_known,
    exhausted,
    first_candidates,
    new_record,
)
from deepmaker_jax.tally import Tally

TOLD_SHARE = 16  # of a population: a strategy is told that many at once, as each time it sorts


class _Course:
    """Where the search stands: a function of the measurements in their order alone.

    Attributes:
      tally: what was measured.
      taken: ids of that, and of what was given to the executor.
      lost: by id, what was lost with its worker; to be measured when the run is resumed.
    """

    def __init__(self, s: Search):
        self.tally, self.taken = Tally(s.objectives), set[str]()
        self.lost: dict[str, Candidate] = {}
        self._s, self._teller, self._untold = s, None, list[Record]()

    @property
    def num_done(self) -> int:
        return len(self.tally.known)

    @property
    def can_propose(self) -> bool:
        """Whether a first population has been measured."""
        return self._teller is not None

    def add(self, record: Record) -> None:
        """Takes note of a measurement, and tells the strategy when it is due."""
        self.taken.add(record["id"])
        if lost(record):
            genome = np.array(record["genome"], np.int32)
            self.lost[record["id"]] = Candidate(record["id"], genome, tuple(record["parents"]))
            return
        self.lost.pop(record["id"], None)
        self.tally.add([record])
        self._untold.append(record)
        size = self._s.config.search.population
        if self._teller is None and len(self._untold) == size:
            self._teller, self._untold = Teller(self._s, self._untold), []
        elif self._teller is not None and len(self._untold) == max(1, size // TOLD_SHARE):
            self._teller.tell(self.num_done, self._untold)
            self._untold = []

    def propose(self, num: int) -> list[Candidate]:
        """Returns up to `num` candidates that are not taken."""
        assert self._teller is not None
        return self._teller.propose(self.num_done, known=self.taken, num=num)


def search_asynchronously(s: Search) -> Generator[Event, None, list[Record]]:
    """Measures as many candidates as the generations have; yields events, returns the front.

    A generation is what was measured between two multiples of the population's size.
    """
    size, course = s.config.search.population, _Course(s)
    total = size * s.config.search.generations
    for record in s.ledger:
        if record["fidelity"] == s.fidelity:
            yield from _begin(course, size, num_new=0)
            course.add(check_known(s, record))
            yield from _end(course, size, record)
    doing: dict[str, Candidate] = {}
    # At first so many that no worker waits for the first population's last.
    more = 0 if course.can_propose else min(size + s.executor.num_workers - 1, total)
    waiting = [c for c in first_candidates(s, at_least=more) if c.id not in course.taken]
    waiting = [*course.lost.values(), *waiting]
    course.lost.clear()
    is_exhausted = False

    def submit() -> None:
        nonlocal is_exhausted
        while course.num_done + len(course.lost) + len(doing) < total:
            free = s.executor.num_workers - len(doing)
            if not waiting and free > 0 and course.can_propose and not is_exhausted:
                waiting.extend(course.propose(free))
                is_exhausted = not waiting
            if not waiting:
                break
            candidate = waiting.pop(0)
            doing[candidate.id] = candidate
            course.taken.add(candidate.id)
            s.executor.submit(as_unit(s, candidate))

    submit()
    for result in s.executor.results():
        if not isinstance(result, Outcome):
            yield result
            continue
        generation, before = divmod(course.num_done, size)
        yield from _begin(course, size, num_new=size)
        record = s.ledger.append(new_record(s, doing.pop(result.id), generation, result))
        course.add(record)
        submit()  # before anyone looks at this one: no worker is to wait
        yield Measured("search", record, before + 1, size)
        yield from _end(course, size, record)
    for id in course.lost:
        s.ledger.find(id, s.fidelity)  # so that the run says what it lacks
    if is_exhausted:
        yield exhausted(s, f"{course.num_done} of {total} candidates")
    return course.tally.front


def _begin(course: _Course, size: int, *, num_new: int) -> Generator[Event, None, None]:
    if course.num_done % size == 0:
        yield GenerationStarted(course.num_done // size, size, num_new)


def _end(course: _Course, size: int, record: Record) -> Generator[Event, None, None]:
    if course.num_done % size == 0 and not lost(record):
        yield course.tally.summary(course.num_done // size - 1)
