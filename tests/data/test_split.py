"""Stratified splits: partition, counts, determinism."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmaker_jax.data import make_dataset, stratified, train_validation
from deepmaker_jax.data.split import subset
from deepmaker_jax.errors import InputError

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=80)
SHARES = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**40)


def expected(labels, share):
    counts = np.bincount(labels)
    return counts, np.floor(share * counts + 0.5).astype(int)


@settings(deadline=None)
@given(LABELS, SHARES, SEEDS)
def test_split_is_a_stratified_partition_or_an_error(labels, share, seed):
    labels = np.array(labels)
    counts, taken_counts = expected(labels, share)
    present = counts > 0
    possible = np.all((taken_counts > 0)[present] & (taken_counts < counts)[present])
    if not possible:
        with pytest.raises(InputError, match=r"share=.* leaves class \d"):
            stratified(labels, share=share, seed=seed)
        return
    rest, taken = stratified(labels, share=share, seed=seed)
    assert np.all(np.diff(rest) > 0)
    assert np.all(np.diff(taken) > 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, taken])), np.arange(len(labels)))
    found = np.bincount(labels[taken], minlength=len(counts))
    np.testing.assert_array_equal(found, taken_counts)


@settings(deadline=None)
@given(SEEDS, st.integers(0, 10))
def test_smaller_shares_are_parts_of_larger_ones_and_names_of_classes_do_not_matter(seed, shift):
    labels = np.repeat([0, 1, 2], [20, 30, 40])
    _, small = stratified(labels, share=0.1, seed=seed)
    _, large = stratified(labels, share=0.5, seed=seed)
    _, renamed = stratified(labels * 3 - shift, share=0.1, seed=seed)
    assert set(small) < set(large)
    np.testing.assert_array_equal(small, renamed)


def test_seed_decides():
    labels = np.repeat([0, 1], 50)
    first, again, other = (stratified(labels, share=0.3, seed=s)[1] for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_choice_is_golden():
    """The held-out test pictures may not change with a version of NumPy."""
    _, taken = stratified(np.tile(np.arange(3), 10), share=0.2, seed=0)
    assert taken.tolist() == [0, 7, 8, 9, 19, 26]


def test_every_image_is_taken_equally_often():
    labels = np.repeat([0, 1], 10)
    times = np.zeros(20)
    for seed in range(2000):
        times[stratified(labels, share=0.3, seed=seed)[1]] += 1
    # Binomial(2000, 0.3): mean 600, standard deviation 20.5.
    assert np.abs(times - 600).max() < 5 * 20.5


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), True, "0.1", None])
def test_bad_share_is_refused(share, refuses):
    with refuses("share=.* must lie between 0 and 1"):
        stratified(np.repeat([0, 1], 9), share=share, seed=0)


@pytest.mark.parametrize("seed", [-1, 0.5, None, True])
def test_bad_seed_is_refused(seed, refuses):
    with refuses("seed=.* must be a whole number from 0 on"):
        stratified(np.repeat([0, 1], 9), share=0.5, seed=seed)


def test_validation_comes_from_training_images_alone(refuses):
    labels = np.repeat([0, 1], 20)
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), np.uint8)
    dataset = make_dataset(
        "mine",
        train_images=images,
        train_labels=labels,
        test_images=images[::4],
        test_labels=labels[::4],
        source="a test",
    )
    train, validation = train_validation(dataset, share=0.25, seed=3)
    assert len(train) == 30
    assert len(validation) == 10
    assert sorted([*train, *validation]) == list(range(40))
    assert dataset.train_labels[validation].sum() == 5
    with refuses(r"validation_share=0.01 leaves class 0 \(20 images\) without any taken"):
        train_validation(dataset, share=0.01, seed=3)
    with refuses(r"validation_share=0.99 leaves class 0 \(20 images\) with none left"):
        train_validation(dataset, share=0.99, seed=3)


@pytest.mark.parametrize("sizes", [(50, 30, 20), (9, 8, 7), (40, 3)])
def test_a_subset_is_stratified_and_the_least_that_is_named_works(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    total = len(labels)
    with pytest.raises(InputError, match=rf"search.images \(=1\) .* to {total} here") as caught:
        subset(labels, num=1, least=6, seed=0)
    smallest = int(str(caught.value).split("must be ")[1].split()[0])
    for num in range(smallest, total + 1):  # one less than all included: no class needs a rest
        taken = subset(labels, num=num, least=6, seed=0)
        assert len(set(taken)) == len(taken) >= 6
        counts = np.bincount(labels[taken], minlength=len(sizes))
        np.testing.assert_array_less(abs(counts - num * np.array(sizes) / total), 0.51)
        assert counts.min() > 0
    with pytest.raises(InputError, match=f"must be at most {total}"):
        subset(labels, num=total + 1, least=6, seed=0)
