"""Search spaces by name, and the table that a space of one's own fills in."""

from collections.abc import Callable

from deepmaker_jax.spaces.deepmaker import deepmaker
from deepmaker_jax.spaces.neuropower import neuropower
from deepmaker_jax.spaces.table import Gene, Space

# (input_shape, num_classes) -> Space
SpaceFactory = Callable[[tuple[int, int, int], int], Space]
SPACES: dict[str, SpaceFactory] = {"deepmaker": deepmaker, "neuropower": neuropower}

__all__ = ["SPACES", "Gene", "Space", "SpaceFactory", "deepmaker", "neuropower"]
