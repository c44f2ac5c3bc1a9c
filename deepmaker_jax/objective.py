"""The objectives that come with the project, by name."""

import functools
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from deepmaker_jax import latency
from deepmaker_jax.config import COSTS, LimitConfig
from deepmaker_jax.data.corruption import KINDS, SEVERITIES
from deepmaker_jax.errors import InputError
from deepmaker_jax.rules import flag
from deepmaker_jax.types import Array, Objective

# (unit, ideal, reference): fixed, so that hypervolumes of runs with equal settings compare. The
# ideals are powers of two below the smallest networks for images of 8x8 and two classes.
SIZES = {
    "params": ("parameters", 256, 4_000_000),
    "macs": ("MACs", 4_096, 2_000_000_000),
    "peak_activation_bytes": ("bytes", 128, 1_000_000),
    "arena_bytes": ("bytes", 1_024, 1_000_000),
    "ethos_u_sram_bytes": ("bytes", 256, 1_000_000),
    "flash_bytes": ("bytes", 2_048, 4_194_304),
}
COST_HOW = "from the layer list"
ERROR_HOW = "1 - accuracy on the validation split"
LATENCY_MS = (2**-9, 2**9)  # ideal and reference
ROBUST = "robust_error"
ROBUST_HOW = (
    "1 - accuracy on corrupted validation images: " + ", ".join(KINDS).replace("_", " ")
    + ", severities " + ", ".join(map(str, SEVERITIES))
)  # fmt: skip


def built_in(name: str, limits: LimitConfig, *, floor: int | None = None) -> Objective:
    """Returns an objective by name.

    Args:
      name: of the objective.
      limits: on costs; a cost's is its reference point, unless close to its ideal.
      floor: of a cost, its ideal point: what is below counts as this; None for none.

    Raises:
      InputError: there is none of that name, or the floor is not below the reference.
    """
    if name == "error":
        measure = operator.itemgetter("val_error")
        return Objective("error", "share", "linear", 0.0, 1.0, measure, ERROR_HOW)
    if name == ROBUST:
        return Objective(
            ROBUST, "share", "linear", 0.0, 1.0, _robust_error, ROBUST_HOW, corrupted=True
        )
    if name == latency.NAME:
        measure = operator.itemgetter(name)
        return Objective(name, "ms", "log2", *LATENCY_MS, measure, latency.HOW, timed=True)
    if name not in SIZES:
        raise InputError(
            f"search.objectives (={name}) must be among error, {', '.join(COSTS)}, "
            f"{latency.NAME}, {ROBUST}, or be passed to run(objectives=...)"
        )
    unit, ideal, reference = SIZES[name]
    measure, how = operator.itemgetter(name), COST_HOW
    limit = getattr(limits, name)
    if limit is not None:
        reference = limit if floor is not None else max(limit, 2 * ideal)
    if floor is not None:
        if floor >= reference:
            raise InputError(
                f"search.floor (={floor}) must be below {reference}, past which {name} adds "
                f"nothing: lower it, or set {flag(f'limits.{name}')} above it"
            )
        ideal = floor
        measure = functools.partial(_at_least, name=name, floor=floor)
        how += f", at least {floor:,}"
    return Objective(name, unit, "log2", ideal, reference, measure, how)


def _at_least(measured: Mapping[str, float], *, name: str, floor: int) -> float:
    return max(measured[name], floor)


def _robust_error(measured: Mapping[str, float]) -> float:
    return 1 - measured["robust_accuracy"]


def scaled(values: Array, objectives: tuple[Objective, ...], xp: Any = np) -> Array:
    """Maps raw objectives [n, m], column by column: ideal 0, reference 1.

    `xp` is numpy, or jax.numpy where the values are traced.
    """
    columns = [o.scaled(values[:, i], xp) for i, o in enumerate(objectives)]
    return xp.stack(columns, axis=1)
