"""Presets of `experiments.digits`."""

from deepmaker_jax.config import (
    Config,
    FinalConfig,
    LimitConfig,
    SearchConfig,
    SpaceConfig,
    TrainConfig,
)


def demo() -> Config:
    """A whole search on scikit-learn's 8x8 digits: a minute and a half on 2 cores, no download.

    The test split is 20 % of the digits, held out by a fixed seed.
    """
    return Config(
        validation_share=0.2,
        # Activations that int8 keeps well, in one operator or none.
        space=SpaceConfig(only=("optimizer=sgd", "activation=relu|relu6|hard_swish")),
        limits=LimitConfig(params=60_000),
        search=SearchConfig(
            population=12, generations=5, epochs=12, oversample=8, objectives=("error", "params")
        ),
        train=TrainConfig(batch_size=64),
        final=FinalConfig(members=8, epochs=60, seeds=3),
    )


PRESETS = {"demo": demo}
