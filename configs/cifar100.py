"""Presets of `experiments.cifar100`."""

from deepmaker_jax.config import Config, FinalConfig, LimitConfig, SearchConfig


def smoke() -> Config:
    """A quick test on a subset of the images, minutes on 2 cores; not a result."""
    return Config(
        limits=LimitConfig(flash_bytes=60_000, macs=4_000_000),
        search=SearchConfig(population=4, generations=3, epochs=1, images=4_000),
        final=FinalConfig(members=3, epochs=1),
    )


def small() -> Config:
    """A search for networks under 200 KB, a few hours on 2 cores (not measured)."""
    return Config(
        limits=LimitConfig(flash_bytes=200_000, macs=20_000_000),
        search=SearchConfig(
            population=8, generations=14, epochs=6, rungs=2, oversample=32, images=15_000
        ),
        final=FinalConfig(members=8, epochs=20),
    )


PRESETS = {"smoke": smoke, "small": small}
