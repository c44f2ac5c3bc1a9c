"""Data sources, splits and augmentation.

`augment` is the one module here that imports JAX; import it by its own name.
"""

from deepmaker_jax.data.dataset import Dataset, check, fingerprint, make_dataset
from deepmaker_jax.data.load import NAMES, load
from deepmaker_jax.data.split import stratified, train_validation

__all__ = [
    "NAMES",
    "Dataset",
    "check",
    "fingerprint",
    "load",
    "make_dataset",
    "stratified",
    "train_validation",
]
