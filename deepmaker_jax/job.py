"""`run`: the one public call. Everything is checked before anything is trained."""

import contextlib
import functools
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from deepmaker_jax import config as config_module
from deepmaker_jax import final, latency, program, robustness, run_folder
from deepmaker_jax.asynchronous import search_asynchronously
from deepmaker_jax.config import Config, SearchConfig
from deepmaker_jax.data import Dataset
from deepmaker_jax.data import check as check_data
from deepmaker_jax.deploy import named
from deepmaker_jax.documents import MODELS
from deepmaker_jax.errors import InputError, called
from deepmaker_jax.events import Event, Finished, Note, ProgramChanged, Started
from deepmaker_jax.evolve import NSGA2, NSGA3, RandomSearch, reference
from deepmaker_jax.execute import Executor, Inline, Processes, Task
from deepmaker_jax.execute.lanes import Lanes
from deepmaker_jax.execute.ray import Ray
from deepmaker_jax.export.check_run import find_damage
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.latency import Timer
from deepmaker_jax.ledger import NAME, Ledger
from deepmaker_jax.measurement import Search
from deepmaker_jax.problem import check_parts, check_problem, make_problem
from deepmaker_jax.search import checkpoints, search, strategy_scale
from deepmaker_jax.spaces import Space, SpaceFactory
from deepmaker_jax.task import (
    choose_program,
    make_task,
    resolve,
    with_lanes,
    with_size_classes,
)
from deepmaker_jax.types import Objective

TFLITE = ("tensorflow", "ai_edge_litert", "tflite")
EXPORTERS = (*TFLITE, "jax2onnx", "onnx", "onnxruntime")
STRATEGIES = {"nsga2": NSGA2, "nsga3": NSGA3, "random": RandomSearch}
Consumer = Callable[[Event], None]


def run(
    config: Config,
    *,
    data: Dataset,
    space: SpaceFactory | None = None,
    objectives: Sequence[Objective] | None = None,
    strategy: Callable[..., Any] | None = None,
    references: Sequence[dict[str, Any]] = (),
    command: str | None = None,
    on_event: Consumer = lambda event: None,
) -> dict[str, Any]:
    """Searches, trains the front in full, exports it and writes the run folder.

    On an existing run folder it resumes: what the ledger holds is not paid
    again, and the result is the same to the bit.

    Args:
      config: the settings; `config.out` is the run folder.
      data: images and labels, see `data.make_dataset`.
      space: `(input_shape, num_classes) -> Space` instead of the named one.
      objectives: instead of the named ones; at least two, of which the first is the error or
        what stands for it: the most accurate of a front are promoted and become members.
      strategy: called like `evolve.NSGA2`, instead of the named one; what is made from
        `evolve.NSGA3` is given reference directions too, unless it has some.
      references: published networks for the report: {name, params, accuracy,
        bytes, source}.
      command: what a person types to run this again, for the report.
      on_event: called with every event of `deepmaker_jax.events`.

    Returns:
      front.json's object.

    Raises:
      InputError: a setting, the data, a part of one's own or the run folder breaks a rule.
    """
    config_module.check(config)
    config = config_module.with_board(config)
    config_module.check_reference(config, references)
    check_data(data)
    check_parts(space=space, objectives=objectives, strategy=strategy)
    config = resolve(config, data)
    out = pathlib.Path(config.out or run_folder.default_out(config))
    targets, begun_with = named(config.targets), run_folder.targets(out)
    feasible, chosen = make_problem(
        config, data, space, objectives, targets if begun_with is None else begun_with
    )
    check_problem(feasible, chosen, data)
    task = make_task(config, data, corrupted=any(o.corrupted for o in chosen))
    feasible.check(config.search.population)
    name = program.executor(config)
    if name == "ray":
        need(("ray",), "executor (=ray)", "take --executor processes", extra="ray")
    factory = strategy or STRATEGIES[config.search.strategy]
    task, chosen_program = _with_program(task, config, feasible, data, name)
    document = _document(config, data, feasible, chosen, task) | {
        "program": chosen_program,
        "command": command,
        "references": list(references),
        "reference": config.reference,
        "strategy": _name_of(factory),
    }
    document |= _reproducible(config, chosen, chosen_program)
    if config.final.export:
        need_exporters()
    algorithm = _strategy(factory, config.search, feasible.space, chosen)
    try:
        json.dumps(document)
    except (TypeError, ValueError) as error:
        raise InputError(f"references must be plain JSON values: {error}") from None
    with contextlib.ExitStack() as stack:
        # First of all, as a cluster that does not answer should leave no folder behind.
        executor = _executor(name, config, task, out)
        stack.callback(executor.close)
        run_folder.claim(out, needed_bytes=2 * task.images.nbytes + data.test_images.nbytes)
        ledger = Ledger(out / NAME)  # from here on the folder is this process's
        stack.callback(ledger.close)
        run_folder.begin(out, document, config)
        timer = _timer(executor, out) if any(o.timed for o in chosen) else None
        fidelity = _fidelity(config, data, task)
        s = Search(config, feasible, chosen, algorithm, executor, ledger, fidelity, timer)
        return _finish(s, data, out, on_event)


def _finish(s: Search, data: Dataset, out: pathlib.Path, on_event: Consumer) -> dict[str, Any]:
    """Goes through all stages, tells of every event and returns front.json's object."""
    front = None
    with contextlib.closing(_stages(s, data, out)) as events:
        for event in events:
            on_event(event)
            if isinstance(event, ProgramChanged):
                run_folder.program_changed(out, event.text)
            front = event.front if isinstance(event, Finished) else front
    assert front is not None
    return front


def _stages(s: Search, data: Dataset, out: pathlib.Path) -> Generator[Event, None, None]:
    """Search, full training, test and export, one after the other."""
    settings = s.config.search
    num_known, num_workers = len(s.ledger), s.executor.num_workers
    yield Started(str(out), settings.generations, settings.population, num_known, num_workers)
    if not s.ledger.is_locked:
        yield Note(f"no lock can be held on {out}: begin no second process on it")
    for text in find_damage(out):  # what is the run's own is made again
        yield Note(text)
    began_with = set(s.feasible.targets)
    if num_known and set(named(s.config.targets)) != began_with:
        yield Note(
            f"the search keeps to what it began with ({', '.join(sorted(began_with)) or 'no'} "
            "targets): others are for the finished front"
        )
    is_asynchronous = s.config.search.mode == "asynchronous"
    records = yield from (search_asynchronously if is_asynchronous else search)(s)
    members = final.choose_members(s, records)
    if not members:
        yield Note("no candidate could be trained in full: see the reasons in the ledger")
    elif (reached := members[0]["fidelity"]["epochs"]) < settings.epochs:
        yield Note(
            f"no candidate came through all {settings.epochs} epochs (see the reasons in the "
            f"ledger): the front is of those measured after {reached}"
        )
    if others := final.no_longer_members(s, members):
        yield Note(
            f"no members any more, though trained in full before: {', '.join(others)}; what was "
            f"made of them stays in {out / MODELS}. --final.members takes up to {len(records)}"
        )
    finals = yield from final.train_members(s, members, out, len(data.train_labels))
    s.executor.close()  # its memory is the exporters' now
    trained = [record["id"] for record in members if finals[record["id"]]["status"] == "ok"]
    workers = max(1, min(num_workers, program.num_cores()))
    networks = {id: robustness.networks(id, out, s.config, finals) for id in trained}
    made = yield from final.export_members(
        networks, out, data, config=s.config, num_workers=workers
    )
    if lost := s.ledger.num_lost():
        reason = f"{lost} measurements were lost with their workers: run it again to make them"
        run_folder.not_reproducible(out, reason)
        yield Note(reason)
    front = final.front_document(s, members, finals, made)
    front = run_folder.write_front(out, front)
    shutil.rmtree(checkpoints(out), ignore_errors=True)  # the bundles hold all that it held
    yield Finished(str(out), front)


def _with_program(
    task: Task, config: Config, feasible: Feasible, data: Dataset, executor: str
) -> tuple[Task, dict[str, Any]]:
    """Returns the task with what its programs need, and the program as config.json has it."""
    chosen = choose_program(config, feasible, task, executor)
    task = with_size_classes(task, feasible.space, data, chosen)
    if task.in_class:
        chosen["size_class"] = [c.name for c in task.size_classes]
    return with_lanes(task, config, chosen), chosen


def _reproducible(
    config: Config, objectives: Sequence[Objective], chosen: dict[str, Any]
) -> dict[str, Any]:
    """Returns whether a run again gives the same bits, and if not, why, as config.json has it.

    Raises:
      InputError: a latency cannot be measured here, or not in such a search.
    """
    is_same, reason = program.reproducible(chosen)
    timed = [o.name for o in objectives if o.timed]
    if timed:
        need(TFLITE, f"objective {timed[0]}", "leave it out", extra="export")
        is_same, reason = False, f"objective {timed[0]} is measured by a clock"
    if config.search.time_limit_seconds is not None:
        is_same, reason = False, "search.time-limit-seconds is measured by a clock"
    if config.search.mode == "asynchronous":
        if timed:
            raise InputError(
                f"search.mode (=asynchronous) never lets the workers rest, in which objective "
                f"{timed[0]} is measured: leave out one of them"
            )
        is_same, reason = False, "an asynchronous search depends on what ends first"
    return {"reproducible": is_same, "reason": reason}


def _fidelity(config: Config, data: Dataset, task: Task) -> dict[str, Any]:
    """Returns how much a training in full of the search sees."""
    return {
        "name": "search",
        "epochs": config.search.epochs,
        "images": len(task.search_rows),
        "side": max(data.train_images.shape[1:3]),
    }


def _timer(executor: Executor, out: pathlib.Path) -> Timer:
    """Returns what measures latencies, on cores whose workers rest meanwhile."""
    return functools.partial(
        latency.measure,
        folder=checkpoints(out) / "latency",
        num_workers=max(1, min(executor.num_workers, program.num_cores())),
    )


def _strategy(
    factory: Callable[..., Any],
    settings: SearchConfig,
    space: Space,
    objectives: tuple[Objective, ...],
) -> Any:
    """Returns the algorithm that proposes candidates, made by `factory`."""
    further: dict[str, Any] = {}  # what strategies of one's own need not know of
    if settings.mutation == "step":
        further["ordered"] = tuple(gene.ordered for gene in space.genes)
    if _lacks_directions(factory):
        further["directions"] = reference.directions(len(objectives), settings.population)
        further["fixed_box"] = True  # the config's ideal and reference points, whatever was found
    return called(
        "strategy",
        factory,
        settings.population,
        np.zeros(len(space.genes), np.int32),
        num_choices=space.num_choices,
        scale=strategy_scale(objectives),
        crossover=settings.crossover,
        **further,
    )


def _lacks_directions(factory: Any) -> bool:
    """Whether a strategy is NSGA-III, or made from it, and was given no reference directions."""
    if isinstance(factory, functools.partial):
        return "directions" not in factory.keywords and _lacks_directions(factory.func)
    return isinstance(factory, type) and issubclass(factory, NSGA3)


def _name_of(factory: Any) -> str:
    """Returns a strategy's name, the same in every process."""
    if isinstance(factory, functools.partial):
        words = [_value_name(value) for value in factory.args]
        words += [f"{k}={_value_name(v)}" for k, v in sorted(factory.keywords.items())]
        return f"{_name_of(factory.func)}({', '.join(words)})"
    return getattr(factory, "__name__", type(factory).__name__)


def _value_name(value: Any) -> str:
    """Returns what a strategy was given, arrays by all that they hold."""
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:12]
        return f"{array.dtype}{list(array.shape)} {digest}"
    return _name_of(value) if callable(value) else str(value)


def _executor(name: str, config: Config, task: Task, out: pathlib.Path) -> Executor:
    if name == "ray":
        return Ray(
            task, num_workers=config.workers, address=config.address, retries=config.retries,
            accept_platform=config.accept_platform,
        )  # fmt: skip
    if name != "processes":
        return Lanes(task) if name == "lanes" else Inline(task)
    num_workers = config.workers or program.num_cores()
    return Processes(
        task, num_workers=num_workers, folder=checkpoints(out) / "shared", retries=config.retries
    )


def need_exporters() -> None:
    """Raises InputError if a package that the export needs is not installed."""
    need(EXPORTERS, "export", "run with --final.no-export", extra="export")


def need(packages: Sequence[str], what: str, otherwise: str, *, extra: str) -> None:
    """Raises InputError if a package is not installed that something needs."""
    import importlib.util

    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{what} needs {', '.join(missing)}: pip install 'deepmaker-jax[{extra}]', or "
            f"{otherwise}"
        )


def _document(
    config: Config, data: Dataset, feasible: Feasible, objectives: Sequence[Objective], task: Task
) -> dict[str, Any]:
    """Returns config.json's object."""
    fields = ("name", "unit", "scale", "ideal", "reference", "how")
    space = feasible.space
    return {
        "experiment": config.experiment,
        "preset": config.preset,
        "config": config_module.to_json(config),
        "seed": config.seed,
        "versions": program.versions(preselects=config.search.oversample > 1),
        "platform": program.describe_platform(),
        "space": {
            "name": space.name,
            "genes": {g.name: list(g.choices) for g in space.genes},
            "targets": sorted(feasible.targets),
        },
        "objectives": [{name: getattr(o, name) for name in fields} for o in objectives],
        "data": {
            "name": data.name,
            "source": data.source,
            "fingerprint": data.fingerprint,
            "input_shape": list(data.train_images.shape[1:]),
            "num_classes": len(data.class_names),
            "class_names": list(data.class_names),
            "num_train": len(data.train_labels),
            "num_search": len(task.search_rows),
            "num_validation": len(task.validation_rows),
            "num_test": len(data.test_labels),
            "test_split": data.test_split,
        },
    }
