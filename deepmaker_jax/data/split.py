"""Stratified splits that depend on labels, share and seed alone."""

from typing import TYPE_CHECKING

import numpy as np

from deepmaker_jax.errors import InputError

if TYPE_CHECKING:
    from deepmaker_jax.data.dataset import Dataset


def counts(sizes: np.ndarray, *, share: float) -> np.ndarray:
    """Returns how many of a class's images a share is, Int64; `sizes` Int[n]; halves round up."""
    return np.floor(share * sizes + 0.5).astype(np.int64)


def stratified(
    labels: np.ndarray, *, share: float, seed: int, name: str = "share", rest: bool = True
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
      rest: every class must have an image left in the rest too.

    Returns:
      (rest, taken): Int64 indices into `labels`, each sorted, together 0..n-1.

    Raises:
      InputError: share or seed outside their range; a class that would have no
        image taken or, with `rest`, none left.
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
        count = int(counts(np.array([len(members)]), share=share)[0])
        if count == 0 or (rest and count == len(members)):
            side = "without any taken" if count == 0 else "with none left"
            raise InputError(
                f"{name}={share} leaves class {label} ({len(members)} images) {side}: "
                "choose another share or bring more images of that class"
            )
        taken.append(members[np.argsort(draws[members], kind="stable")[:count]])
    chosen = np.zeros(len(labels), bool)
    chosen[np.concatenate(taken) if taken else []] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def subset(labels: np.ndarray, *, num: int, least: int, seed: int) -> np.ndarray:
    """Picks about `num` of the training images for the search, of every class its share.

    Args:
      labels: Int[n], of those that are not for validation.
      num: `search.images`.
      least: the fewest images that can be trained on; for the message alone.
      seed: the run's.

    Returns:
      Int64 indices into `labels`, sorted.

    Raises:
      InputError: there are not as many, or a class would have none.
    """
    sizes = np.unique(labels, return_counts=True)[1]

    def works(number: int) -> bool:
        taken = counts(sizes, share=number / len(labels))
        return taken.min() > 0 and taken.sum() >= least

    if num > len(labels):
        raise InputError(
            f"search.images (={num}) must be at most {len(labels)}, the training images without "
            "the validation split"
        )
    if num == len(labels):
        return np.arange(num)
    if counts(sizes, share=num / len(labels)).min() == 0:
        smallest = next(filter(works, range(num, len(labels))), len(labels))
        raise InputError(
            f"search.images (={num}) leaves some of the {len(sizes)} classes without an image: it "
            f"must be {smallest} to {len(labels)} here"
        )
    return stratified(labels, share=num / len(labels), seed=seed, rest=False)[1]


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
