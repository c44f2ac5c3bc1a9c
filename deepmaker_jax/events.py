"""What the host loop tells the world: it yields these, consumers show or count them."""

from typing import Any, NamedTuple

from deepmaker_jax.ledger import unit_name


class Started(NamedTuple):
    """The run begins or resumes.

    Attributes:
      out: the run folder.
      num_generations, population: what the search was asked for.
      num_known: measurements that the ledger already held.
      num_workers: candidates that train at once.
    """

    out: str
    num_generations: int
    population: int
    num_known: int
    num_workers: int


class GenerationStarted(NamedTuple):
    """A generation's candidates are fixed, or those of them that go on to a further rung.

    Attributes:
      generation: from 0.
      num_candidates, num_new: how many there are, and how many must be trained.
      rung, num_rungs: of successive halving; 0 of 1 without it.
    """

    generation: int
    num_candidates: int
    num_new: int
    rung: int = 0
    num_rungs: int = 1


class Epoch(NamedTuple):
    """A candidate in training finished an epoch (`num_done` of `num_epochs`)."""

    id: str
    stage: str  # "search" or "final"
    num_done: int
    num_epochs: int
    loss: float


class Measured(NamedTuple):
    """A measurement entered the ledger; `record` is its line."""

    stage: str  # "latency", "search" or "final"
    record: dict[str, Any]
    num_done: int
    num_total: int

    @property
    def name(self) -> str:
        """What the training was called in its epochs."""
        return unit_name(self.record["id"], self.record["fidelity"].get("seed"))


class GenerationDone(NamedTuple):
    """A generation is complete.

    Attributes:
      hypervolume: of those trained in full so far, scaled objectives; see `evolve.hypervolume`.
      front: ledger records of the front so far, sorted by error.
    """

    generation: int
    num_candidates: int
    hypervolume: float
    front: list[dict[str, Any]]


class Note(NamedTuple):
    """One line that a person should read."""

    text: str


class ProgramChanged(NamedTuple):
    """From here on candidates train in another program than config.json's: one line that says why.

    Or on another kind of machine. The run is not reproducible any more.
    """

    text: str


class FinalStarted(NamedTuple):
    """The front is fixed; `ids` are retrained from scratch on all training data, with each seed.

    Of these trainings `num_known` were done before.
    """

    ids: list[str]
    num_epochs: int
    num_seeds: int = 1
    num_known: int = 0


class Exported(NamedTuple):
    """A member's bundle was written, run and compared, and its robustness measured."""

    id: str
    num_done: int
    num_total: int
    seconds: float


class Finished(NamedTuple):
    """The front is on disk: `front` is front.json's object."""

    out: str
    front: dict[str, Any]


Event = (
    Started
    | GenerationStarted
    | Epoch
    | Measured
    | GenerationDone
    | Note
    | ProgramChanged
    | FinalStarted
    | Exported
    | Finished
)
