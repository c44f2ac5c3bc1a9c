"""The faithful space: pre-activation DenseNets as NeuroPower searched them.

Source: Loni et al., "NeuroPower: Designing Energy Efficient Convolutional Neural
Network Architecture for Embedded Systems", ICANN 2019, and its public code:
growth 12, stem 24, 3x3 kernels, (depth - 4) / 3 layers a block whatever the
number of blocks, no bottleneck, no compression.
"""

from deepmaker_jax.arch import ArchSpec, Stage, split_activation
from deepmaker_jax.spaces.table import Gene, Row, Space

ACTIVATIONS = ("relu", "elu", "tanh", "sigmoid", "selu", "swish")
IDENTITIES = ("relu", "elu")  # what these are for x >= 0; selu is scaled there
GENES = (
    Gene("depth", (16, 28, 40)),
    Gene("blocks", (2, 3)),
    Gene("activation_negative", ACTIVATIONS),
    Gene("activation_positive", ACTIVATIONS),
    Gene("optimizer", ("adam", "sgd", "adagrad", "adamax", "nadam")),
)
GROWTH, STEM_WIDTH = 12, 24


def neuropower(input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """Returns the space of 1,080 genomes for images of `input_shape` (h, w, c).

    relu and elu are the same function for x >= 0, so 900 of them are different networks.
    """

    def to_arch(row: Row) -> ArchSpec:
        blocks = int(row["blocks"])
        negative, positive = row["activation_negative"], row["activation_positive"]
        stages = tuple(
            Stage(
                num_layers=(int(row["depth"]) - 4) // 3,
                growth=GROWTH,
                kernel=3,
                bottleneck=0,
                connectivity="full",
                compression_percent=100 if i < blocks - 1 else 0,
            )
            for i in range(blocks)
        )
        return ArchSpec(
            input_shape=input_shape,
            num_classes=num_classes,
            stem_width=STEM_WIDTH,
            stem_reduction="none",
            order="pre",
            activation=f"{negative}/{positive}",
            stages=stages,
            optimizer=str(row["optimizer"]),
            learning_rate_log2=0,
        )

    def from_arch(arch: ArchSpec) -> Row:
        negative, positive = split_activation(arch.activation)
        return {
            "depth": 3 * arch.stages[0].num_layers + 4,
            "blocks": len(arch.stages),
            "activation_negative": negative,
            "activation_positive": positive,
            "optimizer": arch.optimizer,
        }

    def canonical(row: Row) -> Row:
        """For x >= 0 takes the side below for relu and elu: one operator then; else relu."""
        if row["activation_positive"] not in IDENTITIES:
            return row
        negative = row["activation_negative"]
        return row | {"activation_positive": negative if negative in IDENTITIES else "relu"}

    return Space("neuropower", GENES, to_arch, from_arch, canonical)
