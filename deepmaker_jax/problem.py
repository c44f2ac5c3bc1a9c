"""What a run searches: a space within its limits, and objectives; both may be a user's own."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepmaker_jax import latency
from deepmaker_jax.backends import BACKENDS
from deepmaker_jax.config import Config
from deepmaker_jax.cost import cost
from deepmaker_jax.data import Dataset
from deepmaker_jax.errors import InputError, called
from deepmaker_jax.feasible import Feasible, make
from deepmaker_jax.measurement import measure, value_by_costs
from deepmaker_jax.objective import built_in
from deepmaker_jax.rules import first_cost
from deepmaker_jax.spaces import SPACES, Space, SpaceFactory
from deepmaker_jax.terminal import plain
from deepmaker_jax.types import Objective


def check_parts(*, space: Any, objectives: Any, strategy: Any) -> None:
    """Raises InputError for what `run` is given of one's own and can be no such part."""
    for name, part, rule, setting in (
        ("space", space, "a function (input_shape, num_classes) -> Space", "space.name"),
        ("strategy", strategy, "called like evolve.NSGA2", "search.strategy"),
    ):
        if part is not None and not callable(part):
            found = plain(part, limit=60)
            raise InputError(
                f"{name} (={found}) must be {rule}: for one that has a name set {setting}"
            )
    if objectives is None:
        return
    for o in objectives if isinstance(objectives, list | tuple) else [objectives]:
        if not isinstance(o, Objective):
            found = plain(o, limit=60)
            raise InputError(
                f"objectives (={found}) must be Objectives: for those that have a name set "
                "search.objectives"
            )


def make_problem(
    config: Config,
    data: Dataset,
    space: SpaceFactory | None,
    objectives: Sequence[Objective] | None,
    targets: Sequence[str],
) -> tuple[Feasible, tuple[Objective, ...]]:
    """Returns the space within its limits and targets, and the objectives.

    Args:
      config: the settings.
      data: images and labels.
      space: of one's own, instead of the named one.
      objectives: of one's own, instead of the named ones.
      targets: whose rules cut the space.

    Raises:
      InputError: a setting names what is not there.
    """
    if space is None and config.space.name not in SPACES:
        raise InputError(
            f"space.name (={config.space.name}) must be one of {', '.join(SPACES)}, or be passed "
            "to run(space=...)"
        )
    h, w, c = data.train_images.shape[1:]
    factory = space or SPACES[config.space.name]
    made = called("space(input_shape, num_classes)", factory, (h, w, c), len(data.class_names))
    if not isinstance(made, Space):
        raise InputError(f"space returns {plain(made, limit=60)}: it must return a Space")
    allowed = {}
    for text in config.space.only:
        gene, equals, choices = text.partition("=")
        if not equals:
            raise InputError(
                f"space.only (={text}) must look like GENE=CHOICE or GENE=CHOICE|CHOICE"
            )
        if gene in allowed:
            raise InputError(f"space.only names gene {gene} twice: join its choices with |")
        allowed[gene] = [_choice(choice) for choice in choices.split("|")]
    try:
        made = made.narrow(allowed)
    except InputError as error:
        raise InputError(f"space.only: {error}") from None
    floor = config.search.floor
    if objectives is None:
        names = config.search.objectives
        objectives = [
            built_in(name, config.limits, floor=floor if name == first_cost(names) else None)
            for name in names
        ]
    elif floor is not None:
        raise InputError(
            f"search.floor (={floor}) is of the named objectives: let your own objective's measure "
            "return at least that much"
        )
    if len(objectives) < 2 or len({o.name for o in objectives}) < len(objectives):
        raise InputError(
            f"objectives (={[o.name for o in objectives]}) must be two or more of different names"
        )
    spread = first_cost([o.name for o in objectives]) or "params"
    if unknown := [name for name in targets if name not in BACKENDS]:
        raise InputError(
            f"the run began for target {unknown[0]}, which is not here: name a new --out"
        )
    rules = {name: BACKENDS[name].supports for name in targets}
    part = make(made, config.limits, spread=spread, floor=floor or 1, targets=rules)
    return part, tuple(objectives)


def check_problem(feasible: Feasible, objectives: Sequence[Objective], data: Dataset) -> None:
    """Raises InputError for a space or an objective of one's own that cannot work."""
    space, genes = feasible.space, [gene.name for gene in feasible.space.genes]
    if not genes or len(set(genes)) < len(genes) or not all(space.num_choices):
        raise InputError(
            f"space {space.name} (genes {genes}) must have genes of different names, each with "
            "at least one choice"
        )
    arch = space.decode(np.zeros(len(genes), np.int32))
    task = (tuple(data.train_images.shape[1:]), len(data.class_names))
    if (arch.input_shape, arch.num_classes) != task:
        raise InputError(
            f"space {space.name} makes networks for {(arch.input_shape, arch.num_classes)}, the "
            f"data are {task}: use the input_shape and num_classes that it is called with"
        )
    for o in objectives:
        finite = np.isfinite(o.ideal) and np.isfinite(o.reference)
        if o.scale not in ("linear", "log2") or not finite or not o.ideal < o.reference:
            raise InputError(
                f"objective {o.name} (scale {o.scale}, ideal {o.ideal}, reference {o.reference}) "
                "must have scale linear or log2 and an ideal below its reference"
            )
        if o.scale == "log2" and o.ideal <= 0:
            raise InputError(
                f"objective {o.name} (ideal {o.ideal}) must be above 0 on a log2 scale"
            )
    untrained = cost(arch)._asdict() | {latency.NAME: 1.0}
    if not np.isnan(value := value_by_costs(objectives[0], untrained)):
        raise InputError(
            f"objective {objectives[0].name} (={value} of an untrained network) must not come "
            "first: put the error there, or what stands for it, by which members are chosen"
        )
    # A trial with made-up accuracies: a formula that cannot work fails now, not after a training.
    trial = {"val_accuracy": 0.5, "val_loss": 1.0, "train_loss": 1.0}
    if any(o.timed for o in objectives):
        trial[latency.NAME] = 1.0
    if any(o.corrupted for o in objectives):
        trial["robust_accuracy"] = 0.5
    measure(objectives, cost(arch)._asdict() | trial)


def _choice(text: str) -> int | str:
    """Returns a gene's choice as the table has it: a whole number or a name."""
    try:
        return int(text)
    except ValueError:
        return text
