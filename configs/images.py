"""Presets of `experiments.images`: pictures of one's own."""

from deepmaker_jax.config import Config, FinalConfig, LimitConfig, SearchConfig, TrainConfig


def small() -> Config:
    """A search for networks under 100 KB on a few thousand pictures."""
    return Config(
        validation_share=0.2,
        limits=LimitConfig(flash_bytes=98_496, macs=12_000_000),
        search=SearchConfig(population=8, generations=9, epochs=9, rungs=2, oversample=32),
        train=TrainConfig(batch_size=32),
        final=FinalConfig(members=6, epochs=40),
    )


def smoke() -> Config:
    """A quick test that the pictures can be read and learned from; not a result."""
    return Config(
        validation_share=0.2,
        limits=LimitConfig(flash_bytes=40_000, macs=4_000_000),
        search=SearchConfig(population=4, generations=2, epochs=2),
        train=TrainConfig(batch_size=16),
        final=FinalConfig(members=2, epochs=3),
    )


PRESETS = {"small": small, "smoke": smoke}
