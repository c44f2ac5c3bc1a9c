"""Presets of `experiments.mnist` and `experiments.fashion_mnist`: 28x28x1, 10 classes."""

from deepmaker_jax.config import Config, FinalConfig, LimitConfig, SearchConfig


def smoke() -> Config:
    """A quick test on a subset of the images, minutes on 2 cores; not a result."""
    return Config(
        limits=LimitConfig(flash_bytes=40_000, macs=2_000_000),
        search=SearchConfig(population=4, generations=3, epochs=1, images=4_000),
        final=FinalConfig(members=3, epochs=1),
    )


def small() -> Config:
    """A search for networks under 50 KB, about half an hour on 2 cores (not measured)."""
    return Config(
        limits=LimitConfig(flash_bytes=50_000, macs=4_000_000),
        search=SearchConfig(
            population=8, generations=11, epochs=3, rungs=2, oversample=32, images=10_000
        ),
        final=FinalConfig(members=6, epochs=8),
    )


PRESETS = {"smoke": smoke, "small": small}
