"""What a lane needs of a device's memory, and so how many a program has."""

import math
from typing import Any

import jax
import numpy as np

from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes.level import levels
from deepmaker_jax.lanes.size_class import SizeClass
from deepmaker_jax.train.lane import idle, scratch
from deepmaker_jax.train.runner import STEPS_A_CALL

# Of a device. Each loop is as long as the longest lane's: more lanes lose more by that than they
# share launches, as benchmarks/results/lowering.json projects for a GPU. A CPU gains by none.
MAX_LANES = 4
SHARE = 0.8  # of a device's memory that programs may count on


def lane_bytes(size_class: SizeClass, settings: TrainConfig) -> int:
    """Returns what one more lane adds to a program's memory, in bytes.

    Scratch memory, state and feed lie there once, as a call gives its buffers back.
    Within a step come gradients, the update of each kind of optimizer, and the
    patches of a chunk; their factors are fitted to XLA's `memory_analysis`.
    """
    batch_size = settings.batch_size
    work = _bytes(jax.eval_shape(lambda: scratch(size_class, settings)))
    state, feed = idle(size_class, settings)
    level = levels(size_class, batch_size)[0]
    patches = 4 * size_class.kernel**2 * size_class.group * level.pixels
    images = 4 * batch_size * int(np.prod(size_class.input_shape))
    call = 4 * STEPS_A_CALL * batch_size
    step = 1.5 * _bytes(state.params) + 0.7 * _bytes(state) + 2 * patches + 2 * images
    return int(work + _bytes(state) + _bytes(feed) + call + step)


def num_lanes(size_class: SizeClass, settings: TrainConfig, *, data_bytes: int, wanted: int) -> int:
    """Returns the lanes of a program on all of this process's devices.

    Args:
      size_class: whose program.
      settings: the recipe.
      data_bytes: of the data, which every device holds.
      wanted: candidates that train at once, at most.

    Returns:
      The same number for each device; at least one.
    """
    devices = jax.local_devices()
    a_device = math.ceil(min(wanted, MAX_LANES * len(devices)) / len(devices))
    memory = (devices[0].memory_stats() or {}).get("bytes_limit")
    if memory:
        room = int((SHARE * memory - data_bytes) / lane_bytes(size_class, settings))
        a_device = max(1, min(a_device, room))
    return len(devices) * a_device


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, or XLA for a program or a buffer, had no memory left."""
    refused = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return refused or isinstance(error, MemoryError)


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
