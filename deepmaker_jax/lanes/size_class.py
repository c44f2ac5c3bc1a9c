"""Size classes: how much room a compiled program has for a network's groups and edges."""

from typing import NamedTuple

BLOCK = 32  # channels that a 1x1 edge reads at once
# Pixels of a chunk: 8 channels of 1024 are 32 KiB; an accelerator has no such cache to stay in.
A_CACHE, WHOLE_BATCH = 1024, 1 << 30


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
      num_convs, num_pointwise: edges with a kernel, and 1x1 ones.
      activations: names that a lane may choose from; each gives 0 for 0.
      optimizers: names that a lane may choose from.
      num_pixels: of a chunk of the batch, about.
    """

    name: str
    input_shape: tuple[int, int, int]
    num_classes: int
    group: int
    kernel: int
    num_rows: tuple[int, ...]
    num_stem: int
    num_convs: int
    num_pointwise: int
    activations: tuple[str, ...]
    optimizers: tuple[str, ...]
    num_pixels: int = A_CACHE

    def side(self, level: int) -> tuple[int, int]:
        """Returns the (h, w) of a level's maps."""
        h, w, _ = self.input_shape
        return h >> level, w >> level


# What gives 0 for 0 behind a norm whose scale and shift are 0: padding must stay zero.
ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu", "elu")
OPTIMIZERS = ("sgd", "adam", "adamw")

# Channels of each level, edges with a kernel, 1x1 edges; by (size, kernel). Chosen, not derived:
# "small" has room for what has up to about 60,000 parameters, "medium" 200,000, "large" a million.
# benchmarks/size_classes.py counts the random genomes of space `deepmaker` that each holds: all of
# 1,000 up to 200,000 parameters, 197 of 200 from there to a million.
_ROOM = {
    ("small", 3): ((672, 736, 672, 416, 224), 224, 160),
    ("small", 5): ((448, 480, 416, 288, 160), 160, 160),
    ("medium", 3): ((1312, 1344, 1184, 1056, 1056), 544, 608),
    ("medium", 5): ((800, 832, 800, 544, 448), 320, 288),
    ("large", 3): ((2688, 2688, 2688, 2112, 2112), 2176, 2432),
    ("large", 5): ((1600, 1664, 1600, 1088, 896), 1280, 1152),
}
GROUP = 8
MAX_STEM = 48  # channels of the widest stem


def table(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    activations: tuple[str, ...] = ACTIVATIONS,
    optimizers: tuple[str, ...] = OPTIMIZERS,
    num_pixels: int = A_CACHE,
) -> tuple[SizeClass, ...]:
    """Returns the size classes of a task, the smaller ones first.

    A network belongs to the first one that it fits (`lanes.wiring.choose`), or to
    none and trains in a program of its own. Where no activation or no optimizer
    of a space can be a lane's there is no size class at all.
    """
    activations = tuple(name for name in ACTIVATIONS if name in activations)
    optimizers = tuple(name for name in OPTIMIZERS if name in optimizers)
    if not (activations and optimizers):
        return ()
    num_levels = min(5, min(input_shape[:2]).bit_length())
    return tuple(
        SizeClass(
            name=f"{size}-{kernel}x{kernel}",
            input_shape=input_shape,
            num_classes=num_classes,
            group=GROUP,
            kernel=kernel,
            num_rows=rows[:num_levels],
            num_stem=MAX_STEM // GROUP,
            num_convs=num_convs,
            num_pointwise=num_pointwise,
            activations=activations,
            optimizers=optimizers,
            num_pixels=num_pixels,
        )
        for (size, kernel), (rows, num_convs, num_pointwise) in _ROOM.items()
    )
