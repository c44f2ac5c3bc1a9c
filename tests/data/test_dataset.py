"""The rules that every data set must keep, whoever read it."""

import numpy as np
import pytest

from deepmaker_jax.data import check, fingerprint, make_dataset, stratified


def arrays(classes=3, each=10, shape=(6, 5, 2)):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes, dtype=np.int32), each)
    return rng.integers(0, 256, (len(labels), *shape), np.uint8), labels


def build(**changes):
    x, y = arrays()
    fields = {
        "train_images": x,
        "train_labels": y,
        "test_images": x[::2].copy(),
        "test_labels": y[::2].copy(),
        "source": "a test",
    }
    return make_dataset("mine", **{**fields, **changes})


def test_arrays_of_the_right_form_are_kept_and_not_copied():
    x, y = arrays()
    made = build(train_images=x, train_labels=y)
    assert made.train_images is x
    assert made.train_labels is y
    assert made.class_names == ("0", "1", "2")
    assert made.test_split == "official"
    assert made.name == "mine"
    assert made.source == "a test"


def test_missing_channel_axis_is_added_and_labels_become_int32():
    x, y = arrays(shape=(6, 5))
    made = build(
        train_images=x, train_labels=y.astype(np.uint64), test_images=x, test_labels=y.tolist()
    )
    assert made.train_images.shape == (30, 6, 5, 1)
    assert made.train_labels.dtype == made.test_labels.dtype == np.int32
    np.testing.assert_array_equal(made.train_images[..., 0], x)


def test_strided_images_become_contiguous():
    x, _ = arrays()
    made = build(train_images=x[:, ::-1])
    assert made.train_images.flags.c_contiguous
    np.testing.assert_array_equal(made.train_images, x[:, ::-1])


def test_without_test_images_a_fifth_of_every_class_is_held_out():
    x, y = arrays()
    made = build(train_images=x, train_labels=y, test_images=None, test_labels=None)
    rest, held_out = stratified(y, share=0.2, seed=0)
    assert made.test_split == "held out 20 % (stratified, seed 0)"
    assert np.bincount(made.test_labels).tolist() == [2, 2, 2]
    assert np.bincount(made.train_labels).tolist() == [8, 8, 8]
    np.testing.assert_array_equal(made.train_images, x[rest])
    np.testing.assert_array_equal(made.test_images, x[held_out])


def test_fingerprint_changes_with_everything_that_counts_and_nothing_else():
    x, y = arrays()
    base = build()
    one_pixel = x.copy()
    one_pixel[0, 0, 0, 0] ^= 1
    swapped = y.copy()
    swapped[[0, -1]] = swapped[[-1, 0]]
    changed = [
        build(train_images=one_pixel),
        build(test_images=one_pixel[::2]),
        build(train_labels=swapped),
        build(test_labels=y[::2][::-1]),
        build(class_names=("0", "1", "two")),
        build(
            train_images=x.reshape(30, 5, 6, 2), test_images=x[::2].reshape(15, 5, 6, 2)
        ),  # the same bytes
    ]
    prints = {made.fingerprint for made in changed} | {base.fingerprint}
    assert len(prints) == 7
    assert all(len(text) == 64 for text in prints)
    assert build(source="elsewhere").fingerprint == base.fingerprint == fingerprint(base)


def test_fingerprint_is_golden():
    assert build().fingerprint == "e24c1644fc71b88b89bb53f851851c9f1324ca080111baadd1003bf84c29e57a"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train_images": arrays()[0].astype(np.float32)}, "dtype float32: pixels are uint8"),
        ({"train_images": arrays()[0][0, 0]}, r"shape \(5, 2\): give \[n, h, w\]"),
        ({"train_images": arrays()[0][:0]}, "with at least one image"),
        ({"train_labels": arrays()[1].astype(float)}, "train labels have dtype float64"),
        ({"train_labels": arrays()[1][:, None]}, r"shape \(30, 1\): give integers \[n\]"),
        ({"train_labels": arrays()[1][:-1]}, "30 train images but 29 train labels"),
        ({"test_labels": arrays()[1][:4]}, "15 test images but 4 test labels"),
        ({"train_labels": arrays()[1] - 1}, "train labels run from -1 to 1: number the classes"),
        ({"train_labels": arrays()[1] // 2 - 1}, "train labels run from -1 to 0: number the"),
        ({"class_names": ("a", "b")}, r"labels run from 0 to 2 but .* must lie in 0\.\.1"),
        ({"test_labels": arrays()[1][::2] + 1}, "test labels run from 1 to 3"),
        (
            {"test_labels": arrays()[1][::2].astype(np.int64) + 2**32},
            "test labels run from 4294967296",
        ),
        ({"train_labels": arrays()[1] * 10**6}, "labels reach 2000000 but there are 30 training"),
        ({"class_names": tuple("abcd")}, r"class 3 \('d'\) has no train images"),
        ({"class_names": tuple("abcdef")}, r"class 3 \('d'\) and 2 more has no train images"),
        ({"test_labels": arrays()[1][::2] // 2}, r"class 2 \('2'\) has no test images: train and"),
        ({"train_labels": arrays()[1] * 0}, r"mine has 1 class \(0\): a classifier needs at least"),
        ({"class_names": tuple("aba")}, "class name 'a' occurs twice"),
        ({"test_images": None}, "mine has no test images: give test images and labels"),
        ({"test_labels": None}, "mine has no test labels"),
        ({"test_images": arrays(shape=(5, 6, 2))[0][::2]}, "bring both to one shape"),
        (
            {
                "train_images": arrays(shape=(3, 9, 1))[0],
                "test_images": arrays(shape=(3, 9, 1))[0][::2],
            },
            "train images are 3x9: they must be at least 4x4",
        ),
    ],
)
def test_bad_content_is_refused(changes, match, refuses):
    with refuses(match):
        build(**changes)


def test_classes_too_small_to_hold_out_from_are_refused(refuses):
    x, y = arrays(each=2)
    with refuses("held-out test share=0.2 leaves class 0 .2 images. without any taken"):
        build(train_images=x, train_labels=y, test_images=None, test_labels=None)


@pytest.mark.parametrize("data", [None, (1, 2), build()._asdict()])
def test_check_refuses_what_is_no_dataset(data, refuses):
    with refuses(r"data \(of type .*\) must be a Dataset: build it with make_dataset"):
        check(data)


def test_check_takes_what_make_dataset_made_and_finds_later_changes(refuses):
    made = build()
    check(made)
    with refuses("mine: fingerprint='' but the content has"):
        check(made._replace(fingerprint=""))
    made.train_images[0] ^= 255
    with refuses("build the data set with make_dataset after the last change"):
        check(made)


@pytest.mark.parametrize(
    ("field", "change", "match"),
    [
        ("train_images", lambda x: x[:, ::-1], "no C-contiguous array"),
        ("test_images", lambda x: x[..., 0], "test images are no C-contiguous array"),
        ("train_images", lambda x: x.tolist(), "train images have dtype int64"),
        ("train_labels", lambda y: y.astype(np.int64), "train labels are no int32 array"),
        ("test_labels", lambda y: y * 0, "has no test images"),
        ("class_names", lambda names: names[:1], "mine has 1 class"),
    ],
)
def test_check_refuses_a_dataset_built_by_hand(field, change, match, refuses):
    made = build()
    with refuses(match):
        check(made._replace(**{field: change(getattr(made, field))}))
