"""Size classes: how much room a compiled program has for a network's groups and edges."""

from typing import NamedTuple

BLOCK = 32  # channels that a 1x1 edge reads at once


class SizeClass(NamedTuple):
    """The static shapes of a program that trains any network that fits.

    Attributes:
      name: stands in `config.json`.
      input_shape, num_classes: of the task.
      group: channels of a group; divides BLOCK.
      kernel: side of the dense layers' kernels; stems are 3x3.
      num_rows: channels of each level, from the image's resolution on, a
        multiple of BLOCK.
      num_stem: groups of the widest stem.
      num_convs, num_mixes: edges with a kernel, and 1x1 ones.
      activations: names that a lane may choose from; each gives 0 for 0.
      optimizers: names that a lane may choose from.
    """

    name: str
    input_shape: tuple[int, int, int]
    num_classes: int
    group: int
    kernel: int
    num_rows: tuple[int, ...]
    num_stem: int
    num_convs: int
    num_mixes: int
    activations: tuple[str, ...]
    optimizers: tuple[str, ...]

    @property
    def trash(self) -> int:
        """The group that lanes write to while a neighbour's loop is longer than theirs."""
        return max(self.num_rows) // self.group

    def side(self, level: int) -> tuple[int, int]:
        """Returns the (h, w) of a level's maps."""
        h, w, _ = self.input_shape
        return h >> level, w >> level
