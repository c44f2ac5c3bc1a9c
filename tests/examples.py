"""Architectures that several tests look at."""

import dataclasses

from deepmaker_jax.arch import ArchSpec, Stage

PLAIN = Stage(
    num_layers=3, growth=8, kernel=3, bottleneck=0, connectivity="full", compression_percent=50
)
LAST = dataclasses.replace(PLAIN, compression_percent=0)
ARCH = ArchSpec(
    input_shape=(29, 32, 3),
    num_classes=7,
    stem_width=16,
    stem_reduction="none",
    order="post",
    activation="relu",
    stages=(PLAIN, LAST),
    optimizer="sgd",
    learning_rate_log2=0,
)
# On digits: trains in a second.
SMALL = dataclasses.replace(
    ARCH,
    input_shape=(8, 8, 1),
    num_classes=10,
    stem_width=8,
    stages=(dataclasses.replace(LAST, num_layers=2),),
)
