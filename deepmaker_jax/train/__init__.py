"""Training and evaluation: by a network's own program, or in a size class's."""

from deepmaker_jax.train.candidate import Score, Split, Trained, evaluate, train
from deepmaker_jax.train.step import predict

__all__ = ["Score", "Split", "Trained", "evaluate", "predict", "train"]
