"""What settings must keep to: `config.check` and what it consists of."""

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from deepmaker_jax.errors import InputError
from deepmaker_jax.terminal import plain

if TYPE_CHECKING:  # it imports this module
    from deepmaker_jax.config import Config, SearchConfig, TrainConfig

# Far above what anybody has time for, and far below what arithmetic or memory would fail at.
MOST = LAST_SEED = 2**31 - 1
# Of candidates, who dominates whom is a table of twice as many rows and columns: 270 MB.
MOST_CANDIDATES, MOST_GENERATIONS, MOST_EPOCHS, MOST_WORKERS = 8_192, 1_000_000, 100_000, 1_024
MOST_COST, MOST_SEEDS = 2**53, 1_000
COSTS = (
    "params", "macs", "peak_activation_bytes", "arena_bytes", "ethos_u_sram_bytes", "flash_bytes",
)  # fmt: skip


KINDS = {  # of settings, and what they must be
    str: "text", str | None: "text or None",
    bool: "True or False", bool | None: "True, False or None",
    int: "a whole number", int | None: "a whole number or None",
    float: "a number", float | None: "a number or None",
}  # fmt: skip
NUMBERS = (int, int | None, float, float | None)


def flag(name: str) -> str:
    """Returns a setting as the command line names it, which messages do too."""
    return name.replace("_", "-")


def wanted(kind: Any) -> str:
    """Returns what a setting of this kind must be, for messages."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        return "a list of words"
    return KINDS.get(kind) or f"a {kind.__name__}"


def first_cost(names: Sequence[str]) -> str | None:
    """Returns the first name of a cost, if any is."""
    return next((name for name in names if name in COSTS), None)


def check(config: "Config") -> None:
    """Raises InputError at the first setting that is out of range."""
    from deepmaker_jax.config import Config

    if not isinstance(config, Config):
        raise InputError(f"config (={plain(config, limit=60)}) must be a Config of deepmaker_jax")
    _check_kinds(config)
    whole("seed", config.seed, 0, LAST_SEED)
    _share("validation-share", config.validation_share, open_low=True)
    whole("workers", config.workers, 0, most=MOST_WORKERS)
    whole("retries", config.retries, 0)
    _check_address(config)
    if config.out is not None and not config.out.strip():
        raise InputError(
            f"out (={config.out!r}) must name a folder: leave --out away for a default"
        )
    if config.side is not None:
        whole("side", config.side, 4, 1024)
    for name in COSTS:
        if getattr(config.limits, name) is not None:
            whole(flag(f"limits.{name}"), getattr(config.limits, name), 1, most=MOST_COST)
    if config.board is not None:
        from deepmaker_jax.backends import boards

        boards.limits(config.board)
    _check_search(config.search)
    _check_floor(config)
    _check_train(config.train)
    whole("final.members", config.final.members, 1, most=MOST_CANDIDATES)
    whole("final.epochs", config.final.epochs, 1, most=MOST_EPOCHS)
    whole("final.seeds", config.final.seeds, 1, most=MOST_SEEDS)
    whole("final.calibration-images", config.final.calibration_images, 1)


def check_reference(config: "Config", references: Sequence[Mapping[str, Any]]) -> None:
    """Raises InputError unless `config.reference` can be a member or is among `references`."""
    names = [str(reference.get("name")) for reference in references]
    wanted = config.reference
    if wanted is not None and wanted not in names and not re.fullmatch("[0-9a-f]{12}", wanted):
        published = ", ".join(names) or "none here"
        raise InputError(
            f"reference (={wanted}) must be a member's id, 12 hex digits, or the name of a "
            f"published network: {published}"
        )


def _check_address(config: "Config") -> None:
    if config.address is None:
        return
    if not re.fullmatch(r"auto|[^/\s]+:\d+", str(config.address)):
        raise InputError(f"address (={config.address}) must be auto, or HOST:PORT of a Ray cluster")
    if config.executor != "ray":
        raise InputError(f"address (={config.address}) is a Ray cluster's: add --executor ray")


def _check_search(search: "SearchConfig") -> None:
    whole("search.population", search.population, 4, most=MOST_CANDIDATES)
    whole("search.generations", search.generations, 1, most=MOST_GENERATIONS)
    whole("search.epochs", search.epochs, 1, most=MOST_EPOCHS)
    whole("search.rungs", search.rungs, 1, 16)
    whole("search.reduction", search.reduction, 2, 16)
    whole("search.oversample", search.oversample, 1, 64)
    if (least := search.reduction ** (search.rungs - 1)) > search.epochs:
        raise InputError(
            f"search.epochs (={search.epochs}) must be at least reduction^(rungs - 1) (={least}), "
            "an epoch at the first rung: raise it, or lower search.rungs"
        )
    if search.images is not None:
        whole("search.images", search.images, 1)
    if search.time_limit_seconds is not None:
        _above_zero("search.time-limit-seconds", search.time_limit_seconds)
    _share("search.crossover-rate", search.crossover_rate, closed_high=True)
    if search.mutation_rate is not None:
        _share("search.mutation-rate", search.mutation_rate, closed_high=True)
    if (
        search.objectives[:1] != ("error",)
        or len(search.objectives) < 2
        or len(set(search.objectives)) < len(search.objectives)
    ):
        raise InputError(
            f"search.objectives (={' '.join(search.objectives)}) must name error first, then at "
            "least one different objective, e.g. error flash_bytes"
        )


def _check_floor(config: "Config") -> None:
    floor = config.search.floor
    if floor is None:
        return
    whole("search.floor", floor, 1, most=MOST_COST)
    name = first_cost(config.search.objectives)
    if name is None:
        raise InputError(
            f"search.floor (={floor}) is of a cost: name one of {', '.join(COSTS)} in "
            "search.objectives, or leave it away"
        )
    limit = getattr(config.limits, name)
    if limit is not None and floor >= limit:
        raise InputError(
            f"search.floor (={floor}) must be below {flag(f'limits.{name}')} (={limit})"
        )


def _check_train(train: "TrainConfig") -> None:
    whole("train.batch-size", train.batch_size, 2)
    for name in ("sgd_learning_rate", "adam_learning_rate", "adagrad_learning_rate"):
        _above_zero(flag(f"train.{name}"), getattr(train, name))
    _share("train.momentum", train.momentum)
    for name in ("weight_decay", "clip_norm"):
        value = getattr(train, name)
        if not (_is_number(value) and value >= 0):
            rule = "must be a finite number, at least 0"
            raise InputError(f"{flag(f'train.{name}')} (={value}) {rule}")
    if train.crop is not None:
        whole("train.crop", train.crop, 0)


def _check_kinds(settings: Any, prefix: str = "") -> None:
    """Raises InputError at the first text, list, switch or choice that is something else.

    Numbers are checked with their ranges.
    """
    for name, kind in get_type_hints(type(settings)).items():
        value, name = getattr(settings, name), flag(f"{prefix}{name}")
        if not _fits(value, kind):
            raise InputError(f"{name} (={value}) must be {wanted(kind)}")
        if dataclasses.is_dataclass(kind):
            _check_kinds(value, f"{name}.")


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(word, str) for word in value)
    return kind in NUMBERS or isinstance(value, kind)


def whole(name: str, value: Any, low: int, high: int | None = None, *, most: int = MOST) -> None:
    """Raises InputError unless a setting is a whole number from `low` to `high`, or to `most`."""
    if type(value) is not int or not low <= value <= (most if high is None else high):
        rule = f"at least {low}" if high is None else f"in {low}..{high}"
        if high is None and type(value) is int and value > most:
            rule = f"at most {most}"
        raise InputError(f"{name} (={value}) must be a whole number, {rule}")


def _above_zero(name: str, value: Any) -> None:
    if not (_is_number(value) and value > 0):
        raise InputError(f"{name} (={value}) must be a finite number above 0")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _share(name: str, value: Any, *, open_low: bool = False, closed_high: bool = False) -> None:
    inside = _is_number(value) and 0 <= value <= 1
    if not inside or (open_low and value == 0) or (not closed_high and value == 1):
        rule = (
            f"{'above' if open_low else 'at least'} 0 and {'at most' if closed_high else 'below'} 1"
        )
        raise InputError(f"{name} (={value}) must be {rule}")
