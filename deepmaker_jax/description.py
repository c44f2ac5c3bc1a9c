"""An architecture in words, for people who would rather read than decode a drawing."""

from deepmaker_jax.arch import ArchSpec, Layer, Stage, layers, split_activation

READS = {
    "full": "every earlier map of its stage",
    "harmonic": "earlier maps of its stage at distances 1, 2, 4, ... as in HarDNet",
    "window": "the last three maps of its stage",
}
STEMS = {"none": "", "stride": " with stride 2", "pool": " and a 2x2 max pool"}


def describe(arch: ArchSpec) -> str:
    """Returns two or three sentences: the stem, each stage, what layers do, the training."""
    network = layers(arch)
    first = arch.stages[0]
    stages = [
        _stage(stage, next(layer for layer in network if layer.stage == s))
        for s, stage in enumerate(arch.stages, 1)
    ]
    widths = [str(layer.shape[-1]) for layer in network if layer.name in _transitions(arch)]
    squeeze = f"a 1x1 bottleneck of {first.bottleneck} times its growth, then " * bool(
        first.bottleneck
    )
    norm = "after" if arch.order == "post" else "before"
    said = (
        f"A 3x3 convolution to {arch.stem_width} channels{STEMS[arch.stem_reduction]}, then "
        f"{_count(len(stages), 'dense stage')}: {_listed(stages)}"
    )
    if widths:
        said += f", with transitions to {_listed(widths)} channels (1x1, 2x2 pool) between them"
    return (
        f"{said}. Each layer reads {READS[first.connectivity]} through {squeeze}a "
        f"{first.kernel}x{first.kernel} convolution; batch norm and {_activation(arch)} come "
        f"{norm} each convolution. {_training(arch)}."
    )


def _stage(stage: Stage, layer: Layer) -> str:
    h, w, _ = layer.shape
    return f"{_count(stage.num_layers, 'layer')} of {stage.growth} channels at {h}x{w} pixels"


def _transitions(arch: ArchSpec) -> set[str]:
    return {f"t{s}" for s in range(1, len(arch.stages))}


def _activation(arch: ArchSpec) -> str:
    negative, positive = split_activation(arch.activation)
    if negative == positive:
        return positive
    return f"{negative} (below 0) or {positive} (above)"


def _training(arch: ArchSpec) -> str:
    rate = arch.learning_rate_log2
    return f"Trained by {arch.optimizer}" + (f", learning rate x{2.0**rate:g}" if rate else "")


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}{'s' * (num != 1)}"


def _listed(words: list[str]) -> str:
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last
