"""The one host loop: ask, train, measure, tell, record."""

import itertools
import pathlib
import shutil
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepmaker_jax import latency
from deepmaker_jax.documents import CHECKPOINTS
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Event, GenerationStarted, Measured, Note
from deepmaker_jax.execute import Outcome, Unit
from deepmaker_jax.execute.unit import longest_first
from deepmaker_jax.history import History
from deepmaker_jax.ladder import Ladder
from deepmaker_jax.ledger import Record, lost
from deepmaker_jax.measurement import Candidate, Search, check_known, new_record
from deepmaker_jax.objective import scaled
from deepmaker_jax.tally import objective_values
from deepmaker_jax.types import Genome, Objective

MAX_ASKS = 8  # times that a strategy is asked again for what was a duplicate or infeasible
SAMPLE_STREAM = 1 << 32  # of Philox: apart from the epochs' and the calibration's


def search(s: Search) -> Generator[Event, None, list[Record]]:
    """Runs the generations; yields events and returns the front's ledger records.

    The loop is a function of the settings and of the measurements: run again on
    a ledger that holds some of them, it asks for the same candidates, finds
    theirs there, and goes on where it stopped. So the ledger is all that resume
    needs.

    Raises:
      InputError: no network within the limits was found, or the ledger's measurements are not
        of these objectives.
    """
    num_generations = s.config.search.generations
    history, size = new_history(s), s.config.search.population
    tally = history.tally
    candidates = first_candidates(s)
    records = yield from _measure(s, candidates, 0, history)
    yield tally.summary(0)
    teller = Teller(s, records)
    for generation in range(1, num_generations):
        candidates = teller.propose(generation, history, known=tally.known, num=size)
        if not candidates:
            yield exhausted(s, f"{generation} of {num_generations} generations")
            break
        records = yield from _measure(s, candidates, generation, history)
        teller.tell(generation, records)
        yield tally.summary(generation)
    return history.highest_front()


def new_history(s: Search) -> History:
    """Returns the history of a search that has measured nothing yet."""
    return History(s.config.search, s.feasible.space, s.objectives, s.fidelity)


def exhausted(s: Search, so_far: str) -> Note:
    """Returns what a person is told once every network within the limits was measured."""
    return Note(
        f"space {s.feasible.space.name} has no network left within the limits that was not "
        f"measured: the search ends after {so_far}"
    )


def first_candidates(s: Search, *, at_least: int = 0) -> list[Candidate]:
    """Returns the population that a search begins with, or more, drawn by its seed.

    Raises:
      InputError: no network within the limits was found.
    """
    num = max(s.config.search.population, at_least)
    genomes = s.feasible.sample(stream(s.config.seed, 0), num=num)
    if not len(genomes):
        raise InputError(
            f"no network of space {s.feasible.space.name} within the limits was found by sampling: "
            "raise the limits"
        )
    return [Candidate(s.feasible.space.id(g), g, ()) for g in genomes]


class Teller:
    """A strategy at work: told what was measured, asked for what to measure next."""

    def __init__(self, s: Search, records: Sequence[Record]):
        """Begins with the first population's measurements."""
        self._s, self._params = s, _params(s)
        self._key = jax.random.key(s.config.seed)
        key = jax.random.fold_in(self._key, 0)
        self._state = s.strategy.init(key, *_told(s, records), self._params)

    def _keys(self, turn: int) -> jax.Array:
        """Returns the keys of asking and of telling, of a turn from 1 on."""
        return jax.random.split(jax.random.fold_in(self._key, turn))

    def propose(
        self,
        turn: int,
        history: History,
        *,
        known: Collection[str],
        num: int,
        pending: Sequence[Candidate] = (),
    ) -> list[Candidate]:
        """Returns up to `num` networks to measure next, fewer if the space is used up.

        Children that the strategy asks for; with preselection the most promising of many.

        Args:
          turn: from 1 on; the key of what is drawn.
          history: what was measured so far.
          known: ids that are not wanted.
          num: how many.
          pending: who is in training.
        """
        more = num * self._s.config.search.oversample
        key = self._keys(turn)[0]
        children = _propose(self._s, self._state, self._params, key, turn, known, more)
        if history.preselection is None:
            return children
        rows = history.preselection.choose(
            [child.genome for child in children],
            num=num,
            front=history.tally.front,
            pending=[candidate.genome for candidate in pending],
        )
        return [children[i] for i in rows]

    def tell(self, turn: int, records: Sequence[Record]) -> None:
        """Tells the strategy up to a population of measurements, of a candidate each.

        Where its population holds a candidate as it was at a lower rung, that row is
        brought up to date first: the row told repeats it, and is dropped.
        """
        population, fitness = _told(self._s, records)
        key, num = self._keys(turn)[1], len(records)
        state = _up_to_date(self._state, population[:num], fitness[:num])
        self._state, _ = self._s.strategy.tell(key, population, fitness, state, self._params)


def stream(seed: int, turn: int) -> np.random.Generator:
    """Returns the generator of what a turn of a search draws; turn 0 is the first population."""
    return np.random.Generator(np.random.Philox(key=[seed, SAMPLE_STREAM + turn]))


def _params(s: Search) -> Any:
    """Returns the strategy's params with the rates that the settings name."""
    params, settings = s.strategy.default_params, s.config.search
    rate = settings.mutation_rate
    if rate is None:
        rate = 1.0 / len(s.feasible.space.genes)
    wanted = {"crossover_rate": settings.crossover_rate, "mutation_rate": rate}
    return params.replace(**{k: v for k, v in wanted.items() if hasattr(params, k)})


def _told(s: Search, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (genomes int32[size, g], fitness Float32[size, m]) for the strategy.

    Failed candidates, and the rows that a short generation lacks, have infinite
    fitness, which ranks last.
    """
    genomes = [record["genome"] for record in records]
    fitness = [objective_values(record, s.objectives) for record in records]
    for _ in range(s.config.search.population - len(records)):
        genomes.append(genomes[0])
        fitness.append([np.inf] * len(s.objectives))
    return np.array(genomes, np.int32), np.array(fitness, np.float32)


def _up_to_date(state: Any, genomes: np.ndarray, fitness: np.ndarray) -> Any:
    """Returns a strategy's state with this fitness of the genomes that its population holds."""
    latest = dict(zip(map(tuple, genomes.tolist()), fitness, strict=True))
    population = [tuple(row) for row in np.asarray(state.population).tolist()]
    if latest.keys().isdisjoint(population):
        return state
    rows = zip(population, np.asarray(state.fitness), strict=True)
    return state.replace(fitness=jnp.asarray(np.stack([latest.get(g, old) for g, old in rows])))


def _propose(
    s: Search,
    state: Any,
    params: Any,
    key: jax.Array,
    turn: int,
    known: Collection[str],
    num: int,
) -> list[Candidate]:
    """Returns what to measure next: up to `num` networks that are not known.

    The strategy is asked a bounded number of times; a child that breaks a limit
    is shrunk until it fits; what is still missing is sampled.
    """
    space, rng = s.feasible.space, stream(s.config.seed, turn)
    if getattr(s.strategy, "samples_only", False):
        draws = _asked(s, state, params, key)
        genomes = s.feasible.sample(rng, num=num, known=known, draws=draws)
        return [Candidate(space.id(g), g, ()) for g in genomes]
    chosen: dict[str, Candidate] = {}
    population = np.asarray(state.population)
    for attempt in range(MAX_ASKS * s.config.search.oversample):
        children, asked = s.strategy.ask(jax.random.fold_in(key, attempt), state, params)
        rows = np.asarray(getattr(asked, "parents", np.full((len(children), 1), -1)))
        for child, parents in zip(np.asarray(children), np.asarray(rows), strict=True):
            if len(chosen) == num:
                break
            genome = s.feasible.shrink(rng, child)
            if genome is None:
                continue
            name = space.id(genome)
            if name not in known and name not in chosen:
                lineage = [space.id(population[i]) for i in parents if i >= 0]
                chosen[name] = Candidate(name, genome, tuple(dict.fromkeys(lineage)))
        if len(chosen) == num:
            break
    missing = num - len(chosen)
    sampled = s.feasible.sample(rng, num=missing, known=known, chosen=chosen) if missing else []
    return [*chosen.values(), *(Candidate(space.id(g), g, ()) for g in sampled)]


def _asked(s: Search, state: Any, params: Any, key: jax.Array) -> Iterator[Genome]:
    """Yields what the strategy gives, asked again whenever that is used up."""
    for attempt in itertools.count():
        children, _ = s.strategy.ask(jax.random.fold_in(key, attempt), state, params)
        yield from map(s.feasible.space.repair, np.asarray(children))


def _measure(
    s: Search, candidates: list[Candidate], generation: int, history: History
) -> Generator[Event, None, list[Record]]:
    """Trains candidates, the better ones further; returns the last record of each, in order.

    Of one that was lost at a higher rung that is the one of the lower: its worker died, which says
    nothing about it. Its checkpoint stays, for it is measured again when the run goes on.
    """
    found: dict[str, Record] = {}
    left, ladder = candidates, history.ladder
    for rung in range(len(ladder.rungs)):
        records = yield from _measure_at(s, left, generation, ladder, rung)
        found |= {record["id"]: record for record in records if rung == 0 or not lost(record)}
        history.add(rung, records)
        is_last = rung == len(ladder.rungs) - 1
        chosen = set() if is_last else set(ladder.promote(rung, [c.id for c in left]))
        forget(s, [r["id"] for r in records if r["id"] not in chosen and not lost(r)])
        left = [c for c in left if c.id in chosen]
    return [found[c.id] for c in candidates]


def _measure_at(
    s: Search, candidates: list[Candidate], generation: int, ladder: Ladder, rung: int
) -> Generator[Event, None, list[Record]]:
    """Trains to a rung what the ledger does not hold; returns the records in order."""
    fidelity = ladder.fidelities[rung]
    found = {c.id: _known(s, c.id, fidelity) for c in candidates}
    new = {c.id: c for c in candidates if found[c.id] is None}
    yield GenerationStarted(generation, len(candidates), len(new), rung, len(ladder.rungs))
    if s.timer is not None:
        yield from _time(s, new, generation)
    num_done, units = len(candidates) - len(new), list[Unit]()
    for candidate in new.values():
        timed = s.ledger.find(candidate.id, latency.FIDELITY) if s.timer else None
        if timed is not None and timed["status"] != "ok":
            lacking = Outcome(candidate.id, "search", "failed", timed["reason"], {}, {})
            record = s.ledger.append(new_record(s, candidate, generation, lacking, fidelity))
            found[candidate.id] = record
            num_done += 1
            yield Measured("search", record, num_done, len(candidates))
            continue
        units.append(as_unit(s, candidate, ladder.rungs[rung]))
    for unit in longest_first(units):
        s.executor.submit(unit)
    for result in s.executor.results():
        if isinstance(result, Outcome):
            record = new_record(s, new[result.id], generation, result, fidelity)
            found[result.id] = record = s.ledger.append(record)
            num_done += 1
            yield Measured("search", record, num_done, len(candidates))
        else:
            yield result
    return [record for c in candidates if (record := found[c.id]) is not None]


def _time(
    s: Search, candidates: dict[str, Candidate], generation: int
) -> Generator[Event, None, None]:
    """Measures the latencies that the ledger does not hold, while nothing trains."""
    assert s.timer is not None
    archs = {
        c.id: s.feasible.space.decode(c.genome)
        for c in candidates.values()
        if (known := s.ledger.find(c.id, latency.FIDELITY)) is None or lost(known)
    }
    waiting = 0.0
    for i, outcome in enumerate(s.timer(archs) if archs else (), 1):
        candidate = candidates[outcome.id]
        record = new_record(s, candidate, generation, outcome, latency.FIDELITY)
        record = s.ledger.append(record)
        waiting = max(waiting, outcome.measured.get("waiting_share", 0.0))
        yield Measured("latency", record, i, len(archs))
    if waiting > latency.BUSY:
        yield Note(
            f"generation {generation}: the processor was busy with other work for up to "
            f"{waiting:.0%} of the time in which a latency was measured"
        )


def as_unit(s: Search, candidate: Candidate, num_epochs: int) -> Unit:
    """Returns what an executor is given to measure a candidate after so many epochs in all."""
    arch = s.feasible.space.decode(candidate.genome)
    return Unit(candidate.id, arch, "search", num_epochs, _checkpoint(s, candidate.id))


def _checkpoint(s: Search, id: str) -> pathlib.Path:
    """Returns the file that a candidate goes on from, interrupted or at the next rung."""
    return _folder(s) / f"{id}.msgpack"


def _folder(s: Search) -> pathlib.Path:
    return checkpoints(s.ledger.path.parent) / "search"


def forget(s: Search, ids: Sequence[str]) -> None:
    """Removes the checkpoints of candidates that train no further."""
    for id in ids:
        _checkpoint(s, id).unlink(missing_ok=True)


def forget_all(s: Search) -> None:
    """Removes all checkpoints, those of an interrupted search that nobody went on from too."""
    shutil.rmtree(_folder(s), ignore_errors=True)


def _known(s: Search, id: str, fidelity: dict[str, Any]) -> Record | None:
    """Returns what the ledger holds of a candidate; nothing, if it was lost there."""
    record = s.ledger.find(id, fidelity)
    return None if record is None or lost(record) else check_known(s, record)


def strategy_scale(objectives: tuple[Objective, ...]) -> Callable[[jax.Array], jax.Array]:
    """Returns the traced form of `scaled` that a strategy measures crowding on."""
    return lambda fitness: scaled(fitness, objectives, jnp)


def checkpoints(out: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a run that holds what resume needs beside the ledger."""
    return out / CHECKPOINTS
