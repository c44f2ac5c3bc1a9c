"""Words that several modules share: array aliases and the objective.

Axis letters in shape comments: `n` population, `m` objectives, `g` genes, `b`
batch, `h w c` image height, width and channels.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

Array = Any  # jax.Array or np.ndarray; shapes stand in each docstring
Genome = np.ndarray  # int32[g], one index per gene into that gene's choices
Scale = Literal["linear", "log2"]


class Objective(NamedTuple):
    """One quantity that the search minimises.

    Dominance compares raw values. Crowding, hypervolume and plots use
    `scaled`, which maps `ideal` to 0 and `reference` to 1.

    Attributes:
      name: key in the ledger and in `front.json`.
      unit: shown to people, e.g. "bytes".
      scale: "linear", or "log2" for sizes, where a linear axis would count only
        the largest networks; a value that is not above 0 has no place there, and
        its candidate counts as failed.
      ideal: raw value that no candidate is expected to beat.
      reference: raw value past which a candidate adds no hypervolume.
      measure: from a measurement's values (`val_error`, `params`, `macs`,
        `peak_activation_bytes`, `flash_bytes`, ...) to the raw objective.
      how: how it is measured, for people.
      timed: `measure` reads `latency_ms`, which is measured on this machine
        before a candidate is trained.
      corrupted: `measure` reads `robust_accuracy`, which is measured only for that.
    """

    name: str
    unit: str
    scale: Scale
    ideal: float
    reference: float
    measure: Callable[[Mapping[str, float]], float]
    how: str = ""
    timed: bool = False
    corrupted: bool = False

    def scaled(self, value: Array, xp: Any = np) -> Array:
        """Maps raw values (any shape; on log2 above 0) to the plotted axis: ideal 0, reference 1.

        `xp` is numpy, or jax.numpy where the values are traced.
        """
        if self.scale == "log2":
            return xp.log2(value / self.ideal) / np.log2(self.reference / self.ideal)
        return (value - self.ideal) / (self.reference - self.ideal)
