"""Every setting of a run: frozen dataclasses, checked once, before any work starts.

The command line is made from these classes, so each field's docstring is its
help text: what it is, its unit, what is allowed.
"""

import ast
import dataclasses
import inspect
import itertools
import os
from typing import Annotated, Any, Literal, TypeVar

import tyro

from deepmaker_jax.errors import InputError
from deepmaker_jax.rules import COSTS, check, check_reference

__all__ = [
    "COSTS", "FREE_FIELDS", "Config", "FinalConfig", "LimitConfig", "SearchConfig", "SpaceConfig",
    "TrainConfig", "check", "check_reference", "from_json", "to_json", "with_board",
]  # fmt: skip

Hidden = tyro.conf.Suppress
Class = TypeVar("Class", bound=type)


def _documented(cls: Class) -> Class:
    """Gives each field its docstring as help on one line; tyro alone keeps its line breaks."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in itertools.pairwise(definition.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                told = tyro.conf.arg(help=" ".join(words.split()))
                cls.__annotations__[name] = Annotated[cls.__annotations__[name], told]
    return cls


class _Settings:
    """Takes what Python has for the same: a list for a tuple, a path for its text."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
            elif isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))


@_documented
@dataclasses.dataclass(frozen=True)
class SpaceConfig(_Settings):
    """Which networks can be found."""

    name: str = "deepmaker"
    """Search space: deepmaker (dense-inspired, folds for hardware) or neuropower (the published
    one)."""

    only: tuple[str, ...] = ()
    """Genes to narrow, each as GENE=CHOICE or GENE=CHOICE|CHOICE, e.g. "activation=relu|relu6";
    the help ends with all of them."""


@_documented
@dataclasses.dataclass(frozen=True)
class LimitConfig(_Settings):
    """Costs that no candidate may exceed; None for no limit. Checked before any training."""

    params: int | None = None
    """Trainable parameters, at least 1."""

    macs: int | None = None
    """Multiply-accumulates for one image, at least 1."""

    peak_activation_bytes: int | None = None
    """Peak int8 activation memory (SRAM) in bytes, without the runtime's structures, at least 1."""

    arena_bytes: int | None = None
    """Estimated arena (SRAM) of TensorFlow Lite Micro in bytes, at least 1."""

    ethos_u_sram_bytes: int | None = None
    """Estimated SRAM on an Ethos-U in bytes, at least 1."""

    flash_bytes: int | None = None
    """Estimated size of the int8 TFLite file in bytes, at least 1."""


@_documented
@dataclasses.dataclass(frozen=True)
class SearchConfig(_Settings):
    """The evolutionary search and the cheap training that its candidates get."""

    strategy: Literal["nsga2", "nsga3", "random"] = "nsga2"
    """How new candidates are chosen; nsga3 is for three and more objectives."""

    population: int = 16
    """Candidates a generation; a whole number, 4 to 8192."""

    generations: int = 5
    """Generations, the initial population included; 1 to 1000000."""

    objectives: tuple[str, ...] = ("error", "flash_bytes")
    """What is minimised: error first, then one or more of params, macs, peak_activation_bytes,
    arena_bytes, ethos_u_sram_bytes, flash_bytes, robust_error, latency_ms. robust_error is 1 -
    accuracy on corrupted validation images. latency_ms is the int8 TFLite file's on this machine,
    one thread, measured once for each candidate while none trains: keep other work away; such a run
    is not byte for byte repeatable."""

    floor: int | None = None
    """Value of the first cost among the objectives below which less is worth nothing, at least 1
    and below its limit: what is smaller counts as this large, and the first candidates are drawn
    from here to the limit. None for none."""

    crossover: Literal["uniform", "two_point"] = "uniform"
    """How two parents' genes are mixed."""

    crossover_rate: float = 0.9
    """Share of children that mix two parents, 0 to 1."""

    mutation_rate: float | None = None
    """Chance that a gene takes another choice, 0 to 1; None for 1 over the number of genes."""

    mutation: Literal["redraw", "step"] = "redraw"
    """What it takes then: redraw, any other; step, mostly a near one where choices are numbers."""

    epochs: int = 3
    """Epochs that each candidate trains, at the highest rung; 1 to 100000."""

    rungs: int = 1
    """Rungs of successive halving, 1 to 16; 1 trains every candidate in full. With more, all train
    for epochs / reduction^(rungs - 1) epochs, the better ones for `reduction` times as many, and so
    on; whoever goes on does so from where it was."""

    reduction: int = 3
    """Of so many candidates at a rung one goes on to the next; 2 to 16."""

    oversample: int = 1
    """Children that are proposed for each that is trained, 1 to 64. With more than 1, those are
    trained that a Gaussian process over the latest measurements holds most promising."""

    images: int | None = None
    """Training images that the search uses, a stratified subset, at least 1; None for all but the
    validation split."""

    mode: Literal["generational", "asynchronous"] = "generational"
    """generational waits for the slowest of a generation, and is byte for byte repeatable;
    asynchronous proposes the next candidate as soon as one ends, so that many workers are never
    idle, and which it proposes depends on which ended first."""

    time_limit_seconds: float | None = None
    """Seconds that a candidate may train, compiling apart, above 0; what takes longer ranks last.
    None for no limit: with one, a clock decides, and the run is not repeatable."""


@_documented
@dataclasses.dataclass(frozen=True)
class TrainConfig(_Settings):
    """How one network is trained, in the search and at the end."""

    batch_size: int = 128
    """Images a step; at least 2, at most the training images."""

    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """Learning rate over the training: one_cycle rises over the first quarter and falls to 0."""

    sgd_learning_rate: float = 0.2
    """Peak learning rate of sgd, above 0."""

    adam_learning_rate: float = 0.004
    """Peak learning rate of adam, adamw, adamax and nadam, above 0."""

    adagrad_learning_rate: float = 0.02
    """Peak learning rate of adagrad, above 0."""

    momentum: float = 0.9
    """Nesterov momentum of sgd, 0 up to 1."""

    weight_decay: float = 5e-4
    """L2 penalty on kernels, never on norms and biases; at least 0. adamw decouples it and takes
    10 times as much."""

    clip_norm: float = 0.0
    """Largest norm of the whole gradient, at least 0; 0 for no clipping."""

    crop: int | None = None
    """Largest shift of a random crop in pixels, at least 0 and below the side; None for an eighth
    of the side."""

    flip: bool | None = None
    """Mirror half of the images left to right; None for CIFAR only."""

    compute: Literal["float32", "bfloat16"] = "float32"
    """Type that convolutions take their operands in, in training and validation; weights and batch
    statistics are float32, sums too in a size class's program, while a plain program rounds each
    convolution's result. bfloat16 is for accelerators. There float32 is what XLA makes of it by
    default: products of TF32 on recent GPUs, of bfloat16 on TPUs."""

    pixel_scale: Literal["deviation", "unit"] = "deviation"
    """Pixels are divided by each channel's deviation over the training images, or by 255."""


@_documented
@dataclasses.dataclass(frozen=True)
class FinalConfig(_Settings):
    """What happens to the front once the search is over."""

    members: int = 8
    """Members of the front that are trained in full and exported; 1 to 8192. More of them on a
    finished run train the further ones."""

    epochs: int = 10
    """Epochs of the final training, from scratch on all training images; 1 to 100000."""

    seeds: int = 1
    """Seeds that each member is trained with, for the spread of its accuracy: the run's, whose
    weights are exported, and those that follow it; 1 to 1000. More of them on a finished run train
    the further ones."""

    export: bool = True
    """Write TFLite files, run them on the test set and compare them with JAX."""

    calibration_images: int = 500
    """Training images that set the int8 ranges and correct the last bias; at least 1. The
    default takes all where there are fewer; any other number must be there."""


@_documented
@dataclasses.dataclass(frozen=True)
class Config(_Settings):
    """Searches for small, accurate networks and trains the best of them."""

    seed: int = 0
    """Seed of everything random, 0 to 2147483647."""

    data: str | None = None
    """Folder or archive of the data; None downloads with TFDS where the experiment can."""

    out: str | None = None
    """Run folder; an existing one is resumed. None for runs/EXPERIMENT-PRESET-seedSEED."""

    side: int | None = None
    """Side in pixels that pictures are resized to, 4 to 1024; None for the data's own size."""

    validation_share: float = 0.1
    """Share of the training images that fitness is measured on, between 0 and 1."""

    reference: str | None = None
    """Member id or published network that compression and lost accuracy are counted against; None
    for the most accurate member."""

    space: SpaceConfig = SpaceConfig()
    limits: LimitConfig = LimitConfig()
    search: SearchConfig = SearchConfig()
    train: TrainConfig = TrainConfig()
    final: FinalConfig = FinalConfig()

    board: str | None = None
    """Microcontroller board whose networks are searched for, e.g. pico: its flash and SRAM, less
    the half that is left to the application, become limits unless a stricter one is set."""

    targets: tuple[str, ...] = ("light",)
    """Devices that the finished front is built for and measured on, as `deepmaker deploy` does
    later just as well: arm, mcu, cpu, gpu, fpga; the search keeps to what those that are named can
    do (mcu no elu, fpga only relu). light for those that take seconds a network (mcu), as far as
    their tools are installed, the search as it is; none for none."""

    executor: Literal["auto", "inline", "processes", "ray"] = "auto"
    """Where candidates train that do not train side by side (see --program): one after the other in
    this process, in one process per core, or on the processors of a Ray cluster; auto takes
    processes on a CPU and inline on an accelerator."""

    address: str | None = None
    """Ray cluster for --executor ray: HOST:PORT, or auto for the one that this machine is a node
    of; None starts one here for this run alone."""

    workers: int = 0
    """Processes that train at once, up to 1024; 0 for one per core, on a cluster as many as it has,
    also as nodes join and leave."""

    retries: int = 1
    """Times that a candidate is tried again whose worker process died or hung, or that ran out of
    memory there: alone, once the others are through; at least 0."""

    program: Literal["auto", "plain", "map", "vmap"] = "auto"
    """How networks are compiled: map trains all that fit a size class in one program, vmap many of
    them side by side in it, plain each in a program of its own; auto takes what is faster on a CPU
    for trainings of this length, and on an accelerator vmap, or plain if --executor is given."""

    quiet: bool = False
    """Print only the final front, and what must not be missed."""

    accept_platform: bool = False
    """Resume a run that other package versions or another processor began, or go on with nodes of a
    cluster that have such; it is recorded."""

    experiment: Annotated[str, Hidden] = "custom"
    preset: Annotated[str, Hidden] = "default"


# What changes no result, so that a resumed run may have it otherwise.
FREE_FIELDS = (
    "data", "out", "board", "targets", "executor", "address", "workers", "retries", "program",
    "quiet", "accept_platform", "reference", "experiment", "preset",
)  # fmt: skip


def to_json(config: Config) -> dict[str, Any]:
    """Returns the settings as nested plain values."""
    value = dataclasses.asdict(config)
    return {k: _plain(v) for k, v in value.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_json(value: Any) -> Config:
    """Rebuilds settings from `to_json`'s object; unknown keys are refused.

    Raises:
      InputError: the object does not describe settings.
    """
    groups: dict[str, Any] = {
        "space": SpaceConfig,
        "limits": LimitConfig,
        "search": SearchConfig,
        "train": TrainConfig,
        "final": FinalConfig,
    }
    try:
        fields = dict(value)
        for name, group in groups.items():
            fields[name] = group(**fields[name])
        fields.setdefault("targets", ())
        config = Config(**fields)
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"not a run's settings: {error}; restore config.json") from None
    check(config)
    return config


def with_board(config: Config) -> Config:
    """Returns the settings with the limits of `config.board`; a stricter one of its own stays.

    Raises:
      InputError: there is no such board.
    """
    if config.board is None:
        return config
    from deepmaker_jax.backends import boards

    own = dataclasses.asdict(config.limits)
    room = boards.limits(config.board)
    stricter = {k: v if own[k] is None else min(v, own[k]) for k, v in room.items()}
    return dataclasses.replace(config, limits=dataclasses.replace(config.limits, **stricter))
