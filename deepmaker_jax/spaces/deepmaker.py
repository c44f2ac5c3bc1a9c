"""The default space: dense-inspired and pruned for hardware.

Post-activation layers (convolution, batch norm, activation, then concatenation),
so that every batch norm folds into its convolution, as PeleeNet does (Wang et
al. 2018). From about 1k to over 2M parameters on 32x32x3; with 16 layers a
stage, growth 12 and a 4x bottleneck it contains a DenseNet-BC-100-12.
"""

from collections.abc import Mapping

from deepmaker_jax.arch import (
    ArchSpec,
    Connectivity,
    Stage,
    outputs,
    sources,
    stage_channels,
    transition_channels,
)
from deepmaker_jax.errors import InputError
from deepmaker_jax.spaces.table import Choice, Gene, Row, Space

MAX_STAGES = 4
NUM_LAYERS = (1, 2, 3, 4, 6, 8, 12, 16)
GROWTH = (4, 8, 12, 16, 20, 24, 32, 40)
COMPRESSION_PERCENT = (50, 25, 75, 100)
CONNECTIVITY: tuple[Connectivity, ...] = ("full", "harmonic", "window")
STEM_REDUCTION = ("none", "stride", "pool")
GENES = (
    Gene("stem_width", (8, 12, 16, 24, 32, 48)),
    Gene("stem_reduction", STEM_REDUCTION),
    Gene("stages", tuple(range(1, MAX_STAGES + 1))),
    *(
        gene
        for s in range(1, MAX_STAGES + 1)
        for gene in (
            Gene(f"layers_{s}", NUM_LAYERS),
            Gene(f"growth_{s}", GROWTH),
            # The last possible stage has no transition.
            *([Gene(f"compression_percent_{s}", COMPRESSION_PERCENT)] if s < MAX_STAGES else []),
        )
    ),
    Gene("connectivity", CONNECTIVITY),
    Gene("kernel", (3, 5)),
    Gene("bottleneck", (0, 2, 4)),
    Gene("activation", ("relu", "relu6", "hard_swish", "silu", "elu")),
    Gene("optimizer", ("sgd", "adam", "adamw")),
    Gene("learning_rate_log2", (0, -1, 1)),
)


def _most_stages(stem_reduction: Choice, input_shape: tuple[int, int, int]) -> int:
    """Returns how many stages see a map of at least 2x2 pixels; at least 1."""
    side = min(input_shape[:2])
    after_stem = {"none": side, "stride": -(-side // 2), "pool": side // 2}
    return max(1, after_stem[str(stem_reduction)].bit_length() - 1)


def _num_stages(row: Row, input_shape: tuple[int, int, int]) -> int:
    """Returns how many of the row's stages the network has."""
    return min(int(row["stages"]), _most_stages(row["stem_reduction"], input_shape))


def _edges(connectivity, row: Row) -> list:
    """Returns who reads what in every stage: equal for connectivities that mean the same."""
    depths = [int(row[f"layers_{s}"]) for s in range(1, int(row["stages"]) + 1)]
    return [
        ([sources(connectivity, i) for i in range(1, depth + 1)], outputs(connectivity, depth))
        for depth in depths
    ]


def _compressions(connectivity: Connectivity, row: Row) -> Row:
    """Returns each transition's first choice that gives it the width it has in `row`.

    Widths are rounded to multiples of 4, so two compressions often are one network.
    """
    channels, found = int(row["stem_width"]), {}
    for s in range(1, int(row["stages"])):
        leaving = stage_channels(
            connectivity, channels, growth=int(row[f"growth_{s}"]), depth=int(row[f"layers_{s}"])
        )
        name = f"compression_percent_{s}"
        channels = transition_channels(leaving, int(row[name]))
        same = (p for p in COMPRESSION_PERCENT if transition_channels(leaving, p) == channels)
        found[name] = next(same, row[name])  # another space's compression may be none of these
    return found


def deepmaker(input_shape: tuple[int, int, int], num_classes: int) -> Space:
    """Returns the space for images of `input_shape` (h, w, c).

    Stages that would see a feature map below 2x2 are taken off, so the same
    table serves 8x8 digits and 224x224 pictures.
    """

    def to_arch(row: Row) -> ArchSpec:
        num_stages = _num_stages(row, input_shape)
        stages = tuple(
            Stage(
                num_layers=int(row[f"layers_{s}"]),
                growth=int(row[f"growth_{s}"]),
                kernel=int(row["kernel"]),
                bottleneck=int(row["bottleneck"]),
                connectivity=row["connectivity"],  # type: ignore[arg-type]
                compression_percent=int(row[f"compression_percent_{s}"]) if s < num_stages else 0,
            )
            for s in range(1, num_stages + 1)
        )
        return ArchSpec(
            input_shape=input_shape,
            num_classes=num_classes,
            stem_width=int(row["stem_width"]),
            stem_reduction=row["stem_reduction"],  # type: ignore[arg-type]
            order="post",
            activation=str(row["activation"]),
            stages=stages,
            optimizer=str(row["optimizer"]),
            learning_rate_log2=int(row["learning_rate_log2"]),
        )

    def from_arch(arch: ArchSpec) -> Row:
        first = arch.stages[0]
        row: Row = {
            "stem_width": arch.stem_width,
            "stem_reduction": arch.stem_reduction,
            "stages": len(arch.stages),
            "connectivity": first.connectivity,
            "kernel": first.kernel,
            "bottleneck": first.bottleneck,
            "activation": arch.activation,
            "optimizer": arch.optimizer,
            "learning_rate_log2": arch.learning_rate_log2,
        }
        for s, stage in enumerate(arch.stages, 1):
            row[f"layers_{s}"], row[f"growth_{s}"] = stage.num_layers, stage.growth
            if stage.compression_percent:
                row[f"compression_percent_{s}"] = stage.compression_percent
        return row

    def canonical(row: Row) -> Row:
        row = row | {"stages": _num_stages(row, input_shape)}
        wanted = _edges(row["connectivity"], row)
        same: list[Connectivity] = [c for c in CONNECTIVITY if _edges(c, row) == wanted]
        row = row | {"connectivity": same[0]}
        return row | _compressions(same[0], row)

    def unused(row: Row) -> set[str]:
        last = _num_stages(row, input_shape)
        beyond = range(last + 1, MAX_STAGES + 1)
        names = {f"{name}_{s}" for name in ("layers", "growth") for s in beyond}
        return names | {f"compression_percent_{s}" for s in range(last, MAX_STAGES)}

    def check_narrowed(choices: Mapping[str, tuple[Choice, ...]]) -> None:
        stages, stems = choices["stages"], choices["stem_reduction"]
        most = max(_most_stages(stem, input_shape) for stem in stems)
        if len(stages) < MAX_STAGES and max(map(int, stages)) > most:
            h, w, _ = input_shape
            raise InputError(
                f"gene stages (={'|'.join(map(str, stages))}) must be at most {most} for images of "
                f"{h}x{w} with stem_reduction {' or '.join(map(str, stems))}: a further stage "
                "would see a map below 2x2 pixels; allow fewer stages, or bring larger images"
            )

    return Space("deepmaker", GENES, to_arch, from_arch, canonical, unused, check_narrowed)
