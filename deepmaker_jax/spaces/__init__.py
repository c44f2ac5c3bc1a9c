"""Search spaces by name, and the table that a space of one's own fills in."""

from collections.abc import Callable

from deepmaker_jax.spaces.deepmaker import GENES as DEEPMAKER_GENES
from deepmaker_jax.spaces.deepmaker import deepmaker
from deepmaker_jax.spaces.neuropower import GENES as NEUROPOWER_GENES
from deepmaker_jax.spaces.neuropower import neuropower
from deepmaker_jax.spaces.table import Gene, Space

# (input_shape, num_classes) -> Space
SpaceFactory = Callable[[tuple[int, int, int], int], Space]
SPACES: dict[str, SpaceFactory] = {"deepmaker": deepmaker, "neuropower": neuropower}
# For people who look up what can be chosen before there are images.
GENES: dict[str, tuple[Gene, ...]] = {
    "deepmaker": DEEPMAKER_GENES,
    "neuropower": NEUROPOWER_GENES,
}

__all__ = ["GENES", "SPACES", "Gene", "Space", "SpaceFactory", "deepmaker", "neuropower"]
