"""Stratified splits that depend on labels, share and seed alone."""

from typing import TYPE_CHECKING

import numpy as np

from deepmaker_jax.errors import InputError

if TYPE_CHECKING:
    from deepmaker_jax.data.dataset import Dataset


def stratified(
    labels: np.ndarray, *, share: float, seed: int, name: str = "share"
) -> tuple[np.ndarray, np.ndarray]:
    """Takes the same share of every class, chosen by seed.

    Each image draws one 64-bit number from Philox; of a class with k images the
    round(share * k) with the smallest numbers are taken (halves round up). So for
    one seed a smaller share is a part of a larger one. Philox's raw output is the
    same in every NumPy, unlike `Generator.permutation`.

    Args:
      labels: Int[n], any integers.
      share: part of every class to take, 0 < share < 1.
      seed: >= 0.
      name: how messages call the share.

    Returns:
      (rest, taken): Int64 indices into `labels`, each sorted, together 0..n-1.

    Raises:
      InputError: share or seed outside their range; a class that would have no
        image left on either side.
    """
    labels = np.asarray(labels)
    if not isinstance(share, int | float | np.number) or not 0 < share < 1:
        raise InputError(f"{name}={share!r} must lie between 0 and 1, exclusive, such as 0.1")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed!r} must be a whole number from 0 on")
    draws = np.random.Philox(int(seed)).random_raw(len(labels))
    taken = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = int(np.floor(share * len(members) + 0.5))
        if not 0 < count < len(members):
            side = "without any taken" if count == 0 else "with none left"
            raise InputError(
                f"{name}={share} leaves class {label} ({len(members)} images) {side}: "
                "choose another share or bring more images of that class"
            )
        taken.append(members[np.argsort(draws[members], kind="stable")[:count]])
    chosen = np.zeros(len(labels), bool)
    chosen[np.concatenate(taken) if taken else []] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def train_validation(
    dataset: "Dataset", *, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Carves a validation split from the training images; test images are not touched.

    Args:
      dataset: whose training images are split.
      share: part of every class that validates, 0 < share < 1.
      seed: the run's.

    Returns:
      (train, validation): Int64 indices into `dataset.train_images`, sorted.

    Raises:
      InputError: the share leaves a class empty on either side.
    """
    return stratified(dataset.train_labels, share=share, seed=seed, name="validation_share")
