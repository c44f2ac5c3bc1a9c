"""Training and evaluation of one plain network."""

from deepmaker_jax.train.candidate import Split, Trained, evaluate, train
from deepmaker_jax.train.step import predict

__all__ = ["Split", "Trained", "evaluate", "predict", "train"]
