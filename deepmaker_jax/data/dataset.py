"""What every data source hands over: two splits of labelled pictures, checked in one place."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deepmaker_jax.data.split import stratified
from deepmaker_jax.errors import InputError

OFFICIAL = "official"
HELD_OUT_SHARE = 0.2
HELD_OUT_SEED = 0  # fixed: the test pictures are the same for every run seed
HELD_OUT = f"held out {HELD_OUT_SHARE * 100:.0f} % (stratified, seed {HELD_OUT_SEED})"
SMALLEST_SIDE = 4


class Dataset(NamedTuple):
    """Labelled pictures in memory; build one with `make_dataset`.

    Attributes:
      name: "cifar10", "digits", ...
      train_images: UInt8[n, h, w, c], C-contiguous, raw pixels 0..255.
      train_labels: Int32[n], 0..len(class_names) - 1, every class present.
      test_images: UInt8[t, h, w, c], same h, w, c.
      test_labels: Int32[t], every class present.
      class_names: one per class, all different.
      source: what was read, in words, for `config.json`; no absolute path.
      fingerprint: SHA-256 (hex) over all arrays' bytes, shapes and the class names.
      test_split: "official" or "held out 20 % (stratified, seed 0)".
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    fingerprint: str
    test_split: str


def make_dataset(
    name: str,
    *,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    source: str,
) -> Dataset:
    """Checks pictures and labels, and carves the test split where there is none.

    Without test pictures 20 % of every class are held out by a fixed seed, so
    that the test split doesn't depend on the run seed.

    Args:
      name: short name of the data set.
      train_images: UInt8[n, h, w, c], or UInt8[n, h, w] for one channel.
      train_labels: any integers [n], 0..classes - 1.
      test_images: UInt8[t, h, w, c] or UInt8[t, h, w]; None: hold out.
      test_labels: any integers [t]; None exactly if `test_images` is.
      class_names: one per class; None: "0", "1", ... up to the largest training label.
      source: what was read, in words.

    Returns:
      The `Dataset`; arrays that already had the right form are not copied.

    Raises:
      InputError: a rule above or one of `check`'s is broken.
    """
    train_images = _images(train_images, "train")
    train_labels = _labels(train_labels, "train", len(train_images))
    if (test_images is None) != (test_labels is None):
        missing = "images" if test_images is None else "labels"
        raise InputError(f"{name} has no test {missing}: give test images and labels, or neither")
    if class_names is None:
        smallest, largest = int(train_labels.min()), int(train_labels.max())
        if smallest < 0:
            raise InputError(
                f"{name}: train labels run from {smallest} to {largest}: number the classes "
                "0, 1, 2, ..."
            )
        if largest >= len(train_labels):
            raise InputError(
                f"{name}: labels reach {largest} but there are {len(train_labels)} training "
                f"images, so some class is empty: number the classes 0, 1, 2, ..."
            )
        class_names = [str(i) for i in range(largest + 1)]
    class_names = tuple(str(label) for label in class_names)
    _check_classes(name, class_names)
    _check_labels(name, train_labels, class_names, "train")  # before int32 could wrap them
    if test_images is None or test_labels is None:
        test_split = HELD_OUT
        rest, held_out = stratified(
            train_labels, share=HELD_OUT_SHARE, seed=HELD_OUT_SEED, name="held-out test share"
        )
        test_images, test_labels = train_images[held_out], train_labels[held_out]
        train_images, train_labels = train_images[rest], train_labels[rest]
    else:
        test_split = OFFICIAL
        test_images = _images(test_images, "test")
        test_labels = _labels(test_labels, "test", len(test_images))
        _check_labels(name, test_labels, class_names, "test")
    dataset = Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels.astype(np.int32, copy=False),
        test_images=test_images,
        test_labels=test_labels.astype(np.int32, copy=False),
        class_names=class_names,
        source=source,
        fingerprint="",
        test_split=test_split,
    )
    _check_content(dataset)
    return dataset._replace(fingerprint=fingerprint(dataset))


def check(dataset: Dataset) -> None:
    """Checks a data set that somebody else built or changed.

    Raises:
      InputError: images that aren't UInt8[n, h, w, c] of one shape, at least 4x4;
        labels that exceed the classes or don't fit the images in number; fewer
        than two classes; a class without images in either split; a fingerprint
        that isn't that of the content; no `Dataset` at all.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"data (of type {type(dataset).__name__}) must be a Dataset: build it with "
            "make_dataset, or read it with load_data"
        )
    _check_content(dataset)
    found = fingerprint(dataset)
    if dataset.fingerprint != found:
        raise InputError(
            f"{dataset.name}: fingerprint={dataset.fingerprint!r} but the content has {found}: "
            "build the data set with make_dataset after the last change"
        )


def fingerprint(dataset: Dataset) -> str:
    """Returns the SHA-256 (hex) over all arrays' bytes, types and shapes, and the class names."""
    digest = hashlib.sha256()
    for array in dataset[1:5]:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B"))
    digest.update(repr(tuple(dataset.class_names)).encode())
    return digest.hexdigest()


def _images(images: np.ndarray, split: str) -> np.ndarray:
    """Returns UInt8[n, h, w, c], C-contiguous, from [n, h, w] or [n, h, w, c]."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise InputError(
            f"{split} images have dtype {images.dtype}: pixels are uint8, 0..255; "
            "scale and round them first"
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"{split} images have shape {images.shape}: give [n, h, w] or [n, h, w, c], "
            "with at least one image"
        )
    return np.ascontiguousarray(images)


def _labels(labels: np.ndarray, split: str, num_images: int) -> np.ndarray:
    """Returns the labels as they are, integers [num_images]."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(
            f"{split} labels have dtype {labels.dtype} and shape {labels.shape}: "
            "give integers [n], one class number an image"
        )
    if len(labels) != num_images:
        raise InputError(
            f"{num_images} {split} images but {len(labels)} {split} labels: "
            "give one label for each image"
        )
    return labels


def _check_classes(name: str, class_names: tuple[str, ...]) -> None:
    if len(class_names) < 2:
        raise InputError(
            f"{name} has {len(class_names)} class ({', '.join(class_names)}): "
            "a classifier needs at least 2; add pictures of another class"
        )
    if len(set(class_names)) < len(class_names):
        double = next(x for i, x in enumerate(class_names) if x in class_names[:i])
        raise InputError(f"{name}: class name {double!r} occurs twice: give every class its own")


def _check_labels(name: str, labels: np.ndarray, class_names: Sequence[str], split: str) -> None:
    """Every label names a class, and every class has an image."""
    low, high, classes = int(labels.min()), int(labels.max()), len(class_names)
    if low < 0 or high >= classes:
        raise InputError(
            f"{name}: {split} labels run from {low} to {high} but there are {classes} classes: "
            f"labels must lie in 0..{classes - 1}"
        )
    empty = np.flatnonzero(np.bincount(labels.astype(np.int64), minlength=classes) == 0)
    if len(empty):
        first = f"{empty[0]} ({class_names[empty[0]]!r})"
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        rule = (
            "add images or leave the class out"
            if split == "train"
            else "train and test must have the same classes"
        )
        raise InputError(f"{name}: class {first}{more} has no {split} images: {rule}")


def _check_content(dataset: Dataset) -> None:
    """All of `check`'s rules but the fingerprint."""
    name, class_names = dataset.name, tuple(dataset.class_names)
    _check_classes(name, class_names)
    for split, images, labels in (
        ("train", dataset.train_images, dataset.train_labels),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        if _images(images, split) is not images:
            raise InputError(
                f"{name}: {split} images are no C-contiguous array [n, h, w, c]: "
                "build the data set with make_dataset"
            )
        if _labels(labels, split, len(images)) is not labels or labels.dtype != np.int32:
            raise InputError(
                f"{name}: {split} labels are no int32 array: build the data set with make_dataset"
            )
        _check_labels(name, labels, class_names, split)
        if min(images.shape[1:3]) < SMALLEST_SIDE:
            raise InputError(
                f"{name}: {split} images are {images.shape[1]}x{images.shape[2]}: "
                f"they must be at least {SMALLEST_SIDE}x{SMALLEST_SIDE}"
            )
    train, test = dataset.train_images.shape[1:], dataset.test_images.shape[1:]
    if train != test:
        raise InputError(
            f"{name}: train images are {train} and test images {test} (h, w, c): "
            "bring both to one shape"
        )
