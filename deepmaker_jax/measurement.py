"""What a search works with, and what it measures of a candidate: its line of the ledger."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax import arch as arch_module
from deepmaker_jax import latency
from deepmaker_jax.config import Config
from deepmaker_jax.cost import cost
from deepmaker_jax.errors import InputError, called
from deepmaker_jax.execute import Executor, Outcome
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.latency import Timer
from deepmaker_jax.ledger import Ledger, Record
from deepmaker_jax.spaces import Space
from deepmaker_jax.types import Genome, Objective


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
      fidelity: of the search's measurements, as the ledger has it; see `Ladder.fidelities`.
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


def measure(objectives: Sequence[Objective], measured: dict[str, Any]) -> dict[str, float]:
    """Returns {name: raw value} of each objective.

    Args:
      objectives: whose `measure` is called.
      measured: costs and what a training measured; `val_error` is added.

    Raises:
      InputError: one of them has no value, see `value_of`.
    """
    accuracy = measured.get("val_accuracy")
    if not isinstance(accuracy, int | float):
        raise InputError(f"val_accuracy (={accuracy}) must be a number: name a new --out")
    measured = measured | {"val_error": 1 - accuracy}
    return {o.name: value_of(o, measured) for o in objectives}


def value_of(o: Objective, measured: Mapping[str, float]) -> float:
    """Returns an objective's raw value.

    Raises:
      InputError: its function raises, or gives what has no place on its scale.
    """
    value = called(f"objective {o.name}", lambda: float(o.measure(measured)))
    if not np.isfinite(value):
        raise InputError(f"objective {o.name} (={value}) must be a finite number")
    if o.scale == "log2" and value <= 0:
        raise InputError(
            f"objective {o.name} (={value}) must be above 0 on a log2 scale: make its scale linear"
        )
    return value


def value_by_costs(o: Objective, costs: Mapping[str, float]) -> float:
    """Returns an objective's raw value, which may be known before any training; NaN if it is not.

    Args:
      o: the objective.
      costs: what is known.
    """
    try:
        return value_of(o, costs)
    except InputError:
        return np.nan


def new_record(
    s: Search,
    candidate: Candidate,
    generation: int,
    outcome: Outcome,
    fidelity: dict[str, Any],
) -> Record:
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
        fidelity=fidelity,
        objectives=values,
        outcome=outcome._replace(status=status, reason=reason),
        costs=costs,
    )


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


def check_known(s: Search, record: Record) -> Record:
    """Returns a measurement of an earlier run, if it would be the same now.

    Raises:
      InputError: it was measured when the space or an objective meant something else.
    """
    space, id = s.feasible.space, record["id"]
    if not _is_decoded(space, record):
        raise InputError(
            f"space {space.name} decodes {id} to another network than when it was measured: name a "
            "new --out, or the space anew"
        )
    if record["status"] == "ok":
        if not {"costs", "measured"} <= record.keys():
            raise InputError(f"{id} has no costs in the ledger: name a new --out")
        values = measure(s.objectives, record["costs"] | record["measured"])
        for name, value in values.items():
            if value != record["objectives"].get(name):
                raise InputError(
                    f"objective {name} of {id} was {record['objectives'].get(name)} when it was "
                    f"measured and is {value} now: name a new --out"
                )
    return record


def _is_decoded(space: Space, record: Record) -> bool:
    """Whether a record's id and architecture are those that its genome has in this space."""
    try:
        genome = np.array(record["genome"], np.int32)
        same = genome.tolist() == record["genome"] and space.id(genome) == record["id"]
        return same and record["arch"] == arch_module.to_json(space.decode(genome))
    except (TypeError, ValueError, OverflowError):
        return False
