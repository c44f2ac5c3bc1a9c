"""A run folder read back: what show, the tables, the plots and the page look at.

Reads only; works at any moment of a run. Before `front.json` exists the front is
the one of the ledger so far.
"""

import operator
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from deepmaker_jax import ledger
from deepmaker_jax.documents import (
    AGAIN,
    CONFIG,
    FRONT,
    MODELS,
    RESTORE,
    Gap,
    find_gaps,
    load_front,
    load_search,
)  # fmt: skip
from deepmaker_jax.errors import InputError
from deepmaker_jax.evolve import pareto
from deepmaker_jax.evolve.hypervolume import hypervolume
from deepmaker_jax.export.manifest import MANIFEST, check_owner, present, read_entries
from deepmaker_jax.objective import scaled
from deepmaker_jax.report.text import number
from deepmaker_jax.types import Objective

PHASES = ("compile", "train", "eval")
MOST_OBJECTIVES = 16  # each is a plot, and hypervolume takes ever longer


class RunView(NamedTuple):
    """A run folder's contents.

    Attributes:
      config: config.json's object.
      objectives: the search's objectives, two or more; `measure` takes a
        record's `objectives`.
      records: the search's measurements, oldest first, every status.
      latencies: those of clocks before a candidate was trained, oldest first.
      finals: measurements of the front's retraining, oldest first.
      front: front.json's object; None before it is written, and again while a
        resumed run adds generations to a finished one.
      manifests: {id: manifest.json's object} of the bundles there are.
      gaps: what the folder lacks.
    """

    config: dict[str, Any]
    objectives: tuple[Objective, ...]
    records: list[ledger.Record]
    latencies: list[ledger.Record]
    finals: list[ledger.Record]
    front: dict[str, Any] | None
    manifests: dict[str, dict[str, Any]]
    gaps: list[Gap]


class Trace(NamedTuple):
    """Hypervolume while a run paid for measurements, one entry a measurement.

    Attributes:
      cost: Float[n], cumulative.
      hypervolume: Float[n], of all candidates up to this one, scaled objectives.
      generation: int[n].
    """

    cost: np.ndarray
    hypervolume: np.ndarray
    generation: np.ndarray


def read_run(path: pathlib.Path) -> RunView:
    """Reads a run folder, finished or not.

    Raises:
      InputError: there is no config.json, it is a longer training's, or a file is damaged.
    """
    path = pathlib.Path(path)
    config = load_search(path)
    measured = ledger.read(path / ledger.NAME)
    front = load_front(path) if (path / FRONT).exists() else None
    bundles = sorted(found.parent for found in (path / MODELS).glob(f"*/{MANIFEST}"))
    manifests = {bundle.name: check_owner(bundle, read_entries(bundle)) for bundle in bundles}
    view = RunView(
        config=config,
        objectives=_objectives(config.get("objectives"), path / CONFIG),
        records=[r for r in measured if fidelity_name(r) not in ("latency", "final")],
        latencies=[r for r in measured if fidelity_name(r) == "latency"],
        finals=[r for r in measured if fidelity_name(r) == "final"],
        front=front,
        manifests=manifests,
        gaps=[
            *find_gaps(path, front=front, records=measured),
            *_files_lost(path, manifests),
        ],
    )
    resumed = measured and fidelity_name(measured[-1]) != "final"
    return view._replace(front=None) if resumed and _is_outdated(view) else view


def _files_lost(run: pathlib.Path, manifests: dict[str, dict[str, Any]]) -> Iterator[Gap]:
    """Yields for each bundle what is missing or cut, by the files' lengths: `check` reads them."""
    for id, manifest in manifests.items():
        bundle = f"{MODELS}/{id}"
        sizes = {name: _size(run / bundle / name) for name, _ in present(manifest)}
        lost = [
            name
            for name, entry in present(manifest)
            if sizes[name] is None or sizes[name] != entry.get("bytes")
        ]
        if lost:
            first, *more = sorted(lost, key=lambda name: "/" in name)  # devices' files after it
            what = "is missing" if sizes[first] is None else f"is not as long as {MANIFEST} says"
            others = f", and {len(more)} more of its bundle's files are not whole" if more else ""
            remedy = "deploy it again" if "/" in first else AGAIN
            yield Gap(f"{bundle}/{first}", f"{what}{others}: {remedy}")


def _size(path: pathlib.Path) -> int | None:
    """Returns a plain file's length in bytes; None if there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _is_outdated(view: RunView) -> bool:
    """Tells whether front.json is of an earlier, shorter run of the same folder."""
    wanted = number(part(part(view.config, "config"), "search").get("generations")) or 0
    reached = max((number(r["generation"]) or 0 for r in view.records), default=0) + 1
    on_front = {record["id"] for record in front_records(view)}
    members = (view.front or {}).get("members", [])
    return reached < wanted or any(member.get("id") not in on_front for member in members)


def part(value: Any, name: str) -> dict[str, Any]:
    """Returns the object under `name`, {} if there is none."""
    inner = value.get(name) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def fidelity_name(record: ledger.Record) -> Any:
    """Returns "latency", "search", "final" or a name of the run's own."""
    return part(record, "fidelity").get("name")


def seen(record: ledger.Record) -> float:
    """Returns the training examples a measured network has seen; 0 if it was never trained."""
    if record["status"] == "infeasible":
        return 0.0
    fidelity = part(record, "fidelity")
    return (number(fidelity.get("epochs")) or 0.0) * (number(fidelity.get("images")) or 0.0)


def examples(record: ledger.Record) -> float:
    """Returns the training examples that a measurement paid for: those since the rung before."""
    found = part(record, "fidelity").get("rungs")
    rungs = [number(rung) or 0.0 for rung in found] if isinstance(found, list) else []
    if len(rungs) < 2 or not rungs[-1]:
        return seen(record)
    return seen(record) * (1 - rungs[-2] / rungs[-1])


def seconds(record: ledger.Record) -> dict[str, float]:
    """Returns a measurement's seconds by phase: compile, train, eval."""
    return {phase: number(part(record, "seconds").get(phase)) or 0.0 for phase in PHASES}


def paid_unit(view: RunView) -> tuple[str, float]:
    """Returns the unit of the time paid for, and how many of it a recorded second is."""
    program = part(view.config, "program")
    if program.get("device", "cpu") != "cpu":
        return "device-hours", 1 / 3600
    return "core-hours", (number(program.get("threads")) or 1) / 3600


def candidates(records: list[ledger.Record]) -> list[ledger.Record]:
    """Returns one measurement a candidate, of its highest fidelity, in ledger order."""
    best: dict[str, ledger.Record] = {}
    for record in records:
        known = best.get(record["id"])
        if known is None or seen(record) >= seen(known):
            best[record["id"]] = record
    return list(best.values())


def fitness(objectives: tuple[Objective, ...], records: list[ledger.Record]) -> np.ndarray:
    """Returns raw objectives, Float[n, m]; NaN where not measured or not on the axis."""
    table = np.full((len(records), len(objectives)), np.nan)
    for row, record in zip(table, records, strict=True):
        for column, objective in enumerate(objectives):
            value = number(part(record, "objectives").get(objective.name))
            if value is not None and (value > 0 or objective.scale != "log2"):
                row[column] = value
    return table


def front_records(view: RunView) -> list[ledger.Record]:
    """Returns the measurements on the front so far: by the objectives in order, then id.

    Of candidates that were trained for as long as any that did not fail: with rungs the
    others are not done.
    """
    most = _most_seen(view)
    usable = candidates([r for r in view.records if r["status"] == "ok" and seen(r) == most])
    raw = fitness(view.objectives, usable)
    kept = pareto.front(raw) if usable else []
    return [usable[i] for i in sorted(kept, key=lambda i: (*raw[i], usable[i]["id"]))]


def _most_seen(view: RunView) -> float:
    """Returns the training examples that a measured network has seen at most and come through."""
    return max((seen(r) for r in view.records if r["status"] == "ok"), default=0.0)


def hypervolume_trace(view: RunView, *, by: str = "examples") -> Trace:
    """Returns the hypervolume after every measurement, against what the search had paid.

    Args:
      view: the run.
      by: "examples" (training examples, the same on every machine) or
        "seconds" (compile, train and eval together).
    """
    latest: dict[str, np.ndarray] = {}
    spent, volume = 0.0, 0.0
    rows = []
    most = _most_seen(view)
    axes = scaled(fitness(view.objectives, view.records), view.objectives)
    for record, point in zip(view.records, axes, strict=True):
        spent += examples(record) if by == "examples" else sum(seconds(record).values())
        if record["status"] == "ok" and seen(record) == most:
            latest[record["id"]] = point
            volume = hypervolume(np.stack(list(latest.values())))
        rows.append((spent, volume, number(record["generation"]) or 0))
    table = np.array(rows, np.float64).reshape(-1, 3)
    return Trace(table[:, 0], table[:, 1], table[:, 2].astype(int))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _objectives(value: Any, path: pathlib.Path) -> tuple[Objective, ...]:
    if not _are_objects(value) or not 2 <= len(value) <= MOST_OBJECTIVES:
        raise InputError(f"{path} must list 2 to {MOST_OBJECTIVES} objectives: {RESTORE}")
    return tuple(_objective(item, path) for item in value)


def _objective(value: dict[str, Any], path: pathlib.Path) -> Objective:
    name, unit, scale = value.get("name"), value.get("unit"), value.get("scale")
    low, high = number(value.get("ideal")), number(value.get("reference"))
    named = isinstance(name, str) and isinstance(unit, str) and scale in ("linear", "log2")
    ranged = low is not None and high is not None and low < high and (scale == "linear" or low > 0)
    if not (named and ranged):
        raise InputError(
            f"{path}: objective {name!r} needs a name, a unit, scale linear or log2, and "
            f"ideal < reference (above 0 for log2): {RESTORE}"
        )
    how = str(value.get("how") or "")
    return Objective(name, unit, scale, low, high, operator.itemgetter(name), how)  # pyright: ignore
