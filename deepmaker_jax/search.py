"""The one host loop: ask, train, measure, tell, record."""

import itertools
import pathlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepmaker_jax import arch as arch_module
from deepmaker_jax import latency
from deepmaker_jax.config import Config
from deepmaker_jax.cost import cost
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import Event, GenerationDone, GenerationStarted, Measured, Note
from deepmaker_jax.evolve import front
from deepmaker_jax.evolve.hypervolume import hypervolume
from deepmaker_jax.execute import Executor, Outcome, Unit
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.latency import Timer
from deepmaker_jax.ledger import Ledger, Record, lost
from deepmaker_jax.objective import scaled
from deepmaker_jax.types import Genome, Objective

MAX_ASKS = 8  # times that a strategy is asked again for what was a duplicate or infeasible


SAMPLE_STREAM = 1 << 32  # of Philox: apart from the epochs' and the calibration's


class Candidate(NamedTuple):
    """A genome about to be measured, with the ids of the candidates it came from."""

    id: str
    genome: Genome
    parents: tuple[str, ...]


class Search(NamedTuple):
    """What the loop works with.

    Attributes:
      config: the settings.
      feasible: the space within its limits.
      objectives: what is minimised, the error first.
      strategy: an evosax algorithm for (n, m) fitness and int32 genomes, see
        `evolve.NSGA2`; if it has `samples_only`, what it is asked for are uniform
        draws, which are brought to sizes as the first generation's were.
      executor: where candidates train.
      ledger: the record, which is also the cache.
      fidelity: of the search's measurements, as the ledger has it.
      timer: measures latency, for objectives that need it; None if none does.
    """

    config: Config
    feasible: Feasible
    objectives: tuple[Objective, ...]
    strategy: Any
    executor: Executor
    ledger: Ledger
    fidelity: dict[str, Any]
    timer: Timer | None = None


def search(s: Search) -> Generator[Event, None, list[Record]]:
    """Runs the generations; yields events and returns the front's ledger records.

    The loop is a function of the settings and of the measurements: run again on
    a ledger that holds some of them, it asks for the same candidates, finds
    theirs there, and goes on where it stopped. So the ledger is all that resume
    needs.
    """
    size, settings = s.config.search.population, s.config.search
    known: dict[str, Record] = {}  # every candidate of this run so far, in order
    genomes = s.feasible.sample(_rng(s.config.seed, 0), num=size)
    candidates = [Candidate(s.feasible.space.id(g), g, ()) for g in genomes]
    if not candidates:
        raise InputError(
            f"no network of space {s.feasible.space.name} within the limits was found by sampling: "
            "raise the limits"
        )
    records = yield from _measure(s, candidates, 0)
    known |= {record["id"]: record for record in records}
    yield _summary(s, 0, known)
    params = _params(s)
    key = jax.random.key(s.config.seed)
    population, fitness = _told(s, records, size)
    state = s.strategy.init(jax.random.fold_in(key, 0), population, fitness, params)
    for generation in range(1, settings.generations):
        key_ask, key_tell = jax.random.split(jax.random.fold_in(key, generation))
        candidates = _propose(s, state, params, key_ask, generation, known)
        if not candidates:
            yield Note(
                f"space {s.feasible.space.name} has no network left within the limits that was "
                f"not measured: the search ends after {generation} of {settings.generations} "
                "generations"
            )
            break
        records = yield from _measure(s, candidates, generation)
        known |= {record["id"]: record for record in records}
        population, fitness = _told(s, records, size)
        state, _ = s.strategy.tell(key_tell, population, fitness, state, params)
        yield _summary(s, generation, known)
    return front_records(list(known.values()), s.objectives)


def _rng(seed: int, generation: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, SAMPLE_STREAM + generation]))


def _params(s: Search) -> Any:
    """Returns the strategy's params with the rates that the settings name."""
    params, settings = s.strategy.default_params, s.config.search
    rate = settings.mutation_rate
    if rate is None:
        rate = 1.0 / len(s.feasible.space.genes)
    wanted = {"crossover_rate": settings.crossover_rate, "mutation_rate": rate}
    return params.replace(**{k: v for k, v in wanted.items() if hasattr(params, k)})


def _told(s: Search, records: Sequence[Record], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (genomes int32[size, g], fitness Float32[size, m]) for the strategy.

    Failed candidates, and the rows that a short generation lacks, have infinite
    fitness, which ranks last.
    """
    genomes = [record["genome"] for record in records]
    fitness = [objective_values(record, s.objectives) for record in records]
    for _ in range(size - len(records)):
        genomes.append(genomes[0])
        fitness.append([np.inf] * len(s.objectives))
    return np.array(genomes, np.int32), np.array(fitness, np.float32)


def objective_values(record: Record, objectives: Sequence[Objective]) -> list[float]:
    """Returns a measurement's raw objectives; all infinite if it failed."""
    values = [record["objectives"].get(o.name) for o in objectives]
    if record["status"] != "ok" or None in values:
        return [np.inf] * len(objectives)
    return values


def front_records(records: list[Record], objectives: Sequence[Objective]) -> list[Record]:
    """Returns the non-dominated measurements by error, then size, then id."""
    good = [record for record in records if record["status"] == "ok"]
    if not good:
        return []
    values = np.array([objective_values(record, objectives) for record in good])
    best = [good[i] for i in front(values)]
    return sorted(best, key=lambda r: (*objective_values(r, objectives), r["id"]))


def _propose(
    s: Search, state: Any, params: Any, key: jax.Array, generation: int, known: dict[str, Record]
) -> list[Candidate]:
    """Returns the next generation: up to `population` networks that were never measured.

    The strategy is asked a bounded number of times; a child that breaks a limit
    is shrunk until it fits; what is still missing is sampled.
    """
    space, size = s.feasible.space, s.config.search.population
    rng = _rng(s.config.seed, generation)
    if getattr(s.strategy, "samples_only", False):
        draws = _asked(s, state, params, key)
        genomes = s.feasible.sample(rng, num=size, known=known.keys(), draws=draws)
        return [Candidate(space.id(g), g, ()) for g in genomes]
    chosen: dict[str, Candidate] = {}
    population = np.asarray(state.population)
    for attempt in range(MAX_ASKS):
        children, asked = s.strategy.ask(jax.random.fold_in(key, attempt), state, params)
        rows = np.asarray(getattr(asked, "parents", np.full((len(children), 1), -1)))
        for child, parents in zip(np.asarray(children), np.asarray(rows), strict=True):
            genome = s.feasible.shrink(rng, child)
            if genome is None or len(chosen) == size:
                continue
            name = space.id(genome)
            if name not in known and name not in chosen:
                lineage = [space.id(population[i]) for i in parents if i >= 0]
                chosen[name] = Candidate(name, genome, tuple(dict.fromkeys(lineage)))
        if len(chosen) == size:
            break
    missing = size - len(chosen)
    sampled = s.feasible.sample(rng, num=missing, known=known.keys() | chosen.keys())
    return [*chosen.values(), *(Candidate(space.id(g), g, ()) for g in sampled)]


def _asked(s: Search, state: Any, params: Any, key: jax.Array) -> Iterator[Genome]:
    """Yields what the strategy gives, asked again whenever that is used up."""
    for attempt in itertools.count():
        children, _ = s.strategy.ask(jax.random.fold_in(key, attempt), state, params)
        yield from map(s.feasible.space.repair, np.asarray(children))


def _measure(
    s: Search, candidates: list[Candidate], generation: int
) -> Generator[Event, None, list[Record]]:
    """Trains what the ledger does not hold; returns the records in the candidates' order."""
    found = {c.id: _known(s, c) for c in candidates}
    new = {c.id: c for c in candidates if found[c.id] is None}
    yield GenerationStarted(generation, len(candidates), len(new))
    if s.timer is not None:
        yield from _time(s, new, generation)
    num_done = len(candidates) - len(new)
    for candidate in new.values():
        timed = s.ledger.find(candidate.id, latency.FIDELITY) if s.timer else None
        if timed is not None and timed["status"] != "ok":
            lacking = Outcome(candidate.id, "search", "failed", timed["reason"], {}, {})
            record = s.ledger.append(_record(s, candidate, generation, lacking))
            found[candidate.id] = record
            num_done += 1
            yield Measured("search", record, num_done, len(candidates))
            continue
        arch = s.feasible.space.decode(candidate.genome)
        s.executor.submit(Unit(candidate.id, arch, "search", s.config.search.epochs))
    for result in s.executor.results():
        if isinstance(result, Outcome):
            record = s.ledger.append(_record(s, new[result.id], generation, result))
            found[result.id] = record
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
        record = s.ledger.append(_record(s, candidate, generation, outcome))
        waiting = max(waiting, outcome.measured.get("waiting_share", 0.0))
        yield Measured("latency", record, i, len(archs))
    if waiting > latency.BUSY:
        yield Note(
            f"generation {generation}: the processor was busy with other work for up to "
            f"{waiting:.0%} of the time in which a latency was measured"
        )


def _known(s: Search, candidate: Candidate) -> Record | None:
    """Returns what the ledger holds of a candidate; nothing, if it was lost there.

    Raises:
      InputError: it was measured when the space or an objective meant something else.
    """
    record = s.ledger.find(candidate.id, s.fidelity)
    if record is None or lost(record):
        return None
    arch = arch_module.to_json(s.feasible.space.decode(candidate.genome))
    if record["arch"] != arch or record["genome"] != [int(i) for i in candidate.genome]:
        raise InputError(
            f"space {s.feasible.space.name} decodes {candidate.id} to another network than when it "
            "was measured: name a new --out, or the space anew"
        )
    if record["status"] == "ok":
        if not {"costs", "measured"} <= record.keys():
            raise InputError(f"{candidate.id} has no costs in the ledger: name a new --out")
        values = measure(s.objectives, record["costs"] | record["measured"])
        for name, value in values.items():
            if value != record["objectives"].get(name):
                raise InputError(
                    f"objective {name} of {candidate.id} was {record['objectives'].get(name)} when "
                    f"it was measured and is {value} now: name a new --out"
                )
    return record


def _record(s: Search, candidate: Candidate, generation: int, outcome: Outcome) -> Record:
    """Returns the ledger line of a training in the search, or of a latency measured before it."""
    arch = s.feasible.space.decode(candidate.genome)
    costs: dict[str, float] = cost(arch)._asdict()
    values: dict[str, float | None] = {o.name: None for o in s.objectives}
    status, reason = outcome.status, outcome.reason
    trained = outcome.stage == "search"
    if status == "ok" and trained:
        if s.timer is not None:
            timed = s.ledger.find(candidate.id, latency.FIDELITY)
            assert timed is not None
            costs[latency.NAME] = timed.get("measured", {}).get(latency.NAME)
        try:
            values |= measure(s.objectives, costs | outcome.measured)
        except InputError as error:
            status, reason = "failed", str(error)
    return ledger_record(
        candidate.id,
        generation=generation,
        genome=[int(i) for i in candidate.genome],
        arch=arch_module.to_json(arch),
        parents=list(candidate.parents),
        fidelity=s.fidelity if trained else latency.FIDELITY,
        objectives=values,
        outcome=outcome._replace(status=status, reason=reason),
        costs=costs,
    )


def measure(objectives: Sequence[Objective], measured: dict[str, Any]) -> dict[str, float]:
    """Returns {name: raw value} of each objective.

    Args:
      objectives: whose `measure` is called.
      measured: costs and what a training measured; `val_error` is added.

    Raises:
      InputError: one of them raises, or gives no finite number.
    """
    accuracy = measured.get("val_accuracy")
    if not isinstance(accuracy, int | float):
        raise InputError(f"val_accuracy (={accuracy}) must be a number: name a new --out")
    measured = measured | {"val_error": 1 - accuracy}
    values = {}
    for o in objectives:
        try:
            values[o.name] = float(o.measure(measured))
        except Exception as error:  # noqa: BLE001 - a user's function
            raise InputError(f"objective {o.name} raises {type(error).__name__}: {error}") from None
        if not np.isfinite(values[o.name]):
            raise InputError(f"objective {o.name} (={values[o.name]}) must be a finite number")
    return values


def ledger_record(id: str, *, outcome: Outcome, **rest: Any) -> Record:
    """Returns a ledger line without its checksum."""
    return {
        "id": id,
        "seconds": {n: round(v, 3) for n, v in outcome.seconds.items()},
        "status": outcome.status,
        "reason": outcome.reason,
        "measured": outcome.measured,
        **rest,
    }


def _summary(s: Search, generation: int, known: dict[str, Record]) -> GenerationDone:
    records = list(known.values())
    values = np.array([objective_values(record, s.objectives) for record in records])
    volume = hypervolume(scaled(values, s.objectives))
    return GenerationDone(generation, len(records), volume, front_records(records, s.objectives))


def strategy_scale(objectives: tuple[Objective, ...]) -> Callable[[jax.Array], jax.Array]:
    """Returns the traced form of `scaled` that a strategy measures crowding on."""
    return lambda fitness: scaled(fitness, objectives, jnp)


def checkpoints(out: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a run that holds what resume needs beside the ledger."""
    return out / "checkpoints"
