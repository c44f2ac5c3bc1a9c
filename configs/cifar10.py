"""Presets of `experiments.cifar10`."""

from deepmaker_jax.config import (
    Config,
    FinalConfig,
    LimitConfig,
    SearchConfig,
    SpaceConfig,
    TrainConfig,
)

# Activations that every int8 runtime fuses or has a kernel for, and the optimizer that wins where
# a training is short.
DEPLOYABLE = ("activation=relu|relu6|hard_swish", "optimizer=sgd")

# Half of what is usual: small networks have little to spare for shifts of four pixels in trainings
# of 24 epochs; in one of 96 it was all the same (benchmarks/results/recipes.json).
CROP = 2

# Numbers that the authors published, float networks trained for hundreds of epochs; the MLPerf
# Tiny ones are int8 files.
REFERENCES = (
    {"name": "CondenseNet-0.22M", "params": 220_000, "accuracy": 0.938, "source": "Huang 2018"},
    {"name": "CondenseNet-0.41M", "params": 410_000, "accuracy": 0.947, "source": "Huang 2018"},
    {"name": "CondenseNet-0.52M", "params": 520_000, "accuracy": 0.949, "source": "Huang 2018"},
    {"name": "CondenseNet-0.95M", "params": 950_000, "accuracy": 0.955, "source": "Huang 2018"},
    {"name": "DenseNet-BC-100-12", "params": 800_000, "accuracy": 0.955, "source": "Huang 2017"},
    {"name": "ResNet-20", "params": 270_000, "accuracy": 0.913, "source": "He 2016"},
    {
        "name": "ResNet-8 int8",
        "params": 78_666,
        "bytes": 98_496,
        "accuracy": 0.8697,
        "source": "MLPerf Tiny",
    },
    {
        "name": "ResNet large int8",
        "params": None,
        "bytes": 512_024,
        "accuracy": 0.9131,
        "source": "MLPerf Tiny",
    },
)


def smoke() -> Config:
    """A quick test on a subset of the images: 1 min 10 s on 2 cores, 3 networks.

    The networks it finds are real and poor: nobody should quote them.
    """
    return Config(
        space=SpaceConfig(only=DEPLOYABLE),
        limits=LimitConfig(flash_bytes=40_000, macs=2_000_000),
        search=SearchConfig(population=4, generations=3, epochs=1, images=4_000),
        train=TrainConfig(batch_size=64, sgd_learning_rate=0.1),
        final=FinalConfig(members=3, epochs=1),
    )


def small() -> Config:
    """A real search for networks below the 98,496 bytes of MLPerf Tiny's int8 ResNet-8.

    At commit 76e0501: 30 minutes on 2 cores (96 candidates in 11, 8 final trainings in 16), int8
    files from 2.4 KB at 44 % to 75 KB at 86.3 % of the test images; README has the table.
    """
    return Config(
        space=SpaceConfig(only=DEPLOYABLE),
        limits=LimitConfig(flash_bytes=96_000, macs=8_000_000),
        search=SearchConfig(
            population=8, generations=12, epochs=6, rungs=2, oversample=32, images=10_000
        ),
        train=TrainConfig(batch_size=64, sgd_learning_rate=0.1, crop=CROP),
        final=FinalConfig(members=8, epochs=24),
    )


def night() -> Config:
    """A search over a night, for more accuracy than MLPerf Tiny's int8 files have at their size.

    Files up to 200,000 bytes, those below 16,384 worth no more than these, three times the
    multiply-accumulates of `small`, 160 candidates on 20,000 images, and a final training of 100
    epochs. Two workers searched for 11 hours beside other work (seconds in the ledger of
    benchmarks/results/cifar10_night).
    """
    return Config(
        space=SpaceConfig(only=DEPLOYABLE),
        limits=LimitConfig(flash_bytes=200_000, macs=24_000_000),
        search=SearchConfig(
            population=8,
            generations=20,
            floor=16_384,
            epochs=9,
            rungs=2,
            oversample=32,
            images=20_000,
        ),
        train=TrainConfig(batch_size=64, sgd_learning_rate=0.1),
        final=FinalConfig(members=8, epochs=100),
    )


def neuropower() -> Config:
    """The published protocol: population 45, 8 generations, 16 epochs, batch 100.

    Projected from single steps on one core (benchmarks/results/preset_cost.json), never run:
    490 core-hours if all 360 were the smallest genome (0.7 s a step), 3,992 if all were the largest
    (5.5 s). For an accelerator. Ours: a validation split in place of the test set, and selection.
    """
    return Config(
        space=SpaceConfig(name="neuropower"),
        search=SearchConfig(
            population=45,
            generations=8,
            epochs=16,
            objectives=("error", "params"),
        ),
        train=TrainConfig(
            batch_size=100,
            schedule="constant",
            sgd_learning_rate=0.01,
            adam_learning_rate=0.001,
            adagrad_learning_rate=0.01,
            momentum=0.0,
            weight_decay=0.0,
            crop=0,
            flip=False,
            pixel_scale="unit",
        ),
        final=FinalConfig(epochs=16),
    )


def full() -> Config:
    """A search over the whole space, for an accelerator.

    Projected from single steps on one core (benchmarks/results/preset_cost.json), never run: 22
    core-hours if all 1,920 were the smallest of its first population (0.008 s a step), 13,443 if
    all were the largest (4.8 s).
    """
    return Config(
        search=SearchConfig(
            population=64, generations=30, epochs=15, objectives=("error", "params")
        ),
        final=FinalConfig(members=16, epochs=300),
    )


PRESETS = {"smoke": smoke, "small": small, "night": night, "neuropower": neuropower, "full": full}
