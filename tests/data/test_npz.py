"""Arrays that users bring."""

import io
import zipfile

import numpy as np
import pytest

from deepmaker_jax.data import load, npz

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (30, 5, 6, 2), np.uint8)
Y = np.tile(np.arange(3), 10)


def write(folder, **arrays):
    np.savez_compressed(folder / "mine.npz", **{"x_train": X, "y_train": Y, **arrays})
    return folder / "mine.npz"


def test_train_and_test(tmp_path):
    path = write(tmp_path, x_test=X[:6], y_test=Y[:6], class_names=["a", "b", "c"], more=X)
    dataset = load("images", path=path)
    np.testing.assert_array_equal(dataset.train_images, X)
    np.testing.assert_array_equal(dataset.test_images, X[:6])
    np.testing.assert_array_equal(dataset.train_labels, Y)
    np.testing.assert_array_equal(dataset.test_labels, Y[:6])
    assert dataset.class_names == ("a", "b", "c")
    assert dataset.test_split == "official"
    assert dataset.source == "npz file with class_names, x_test, x_train, y_test, y_train"


def test_without_test_a_fifth_is_held_out(tmp_path):
    dataset = load("images", path=str(write(tmp_path)))
    assert dataset.test_split == "held out 20 % (stratified, seed 0)"
    assert np.bincount(dataset.test_labels).tolist() == [2, 2, 2]
    assert dataset.train_images.shape == (24, 5, 6, 2)
    assert dataset.class_names == ("0", "1", "2")


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float16, np.float32, np.float64])
def test_other_number_types(dtype, tmp_path):
    path = write(tmp_path, x_train=X[..., 0].astype(dtype), x_test=X[..., :1], y_test=Y)
    np.testing.assert_array_equal(load("images", path=path).train_images, X[..., :1])


def test_floats_are_rounded_to_the_nearest(tmp_path):
    x = X.astype(np.float32)
    x[0, 0, :4, 0] = [0.4, 0.6, 254.6, 1.5]
    dataset = load("images", path=write(tmp_path, x_train=x, x_test=X, y_test=Y))
    assert dataset.train_images[0, 0, :4, 0].tolist() == [0, 1, 255, 2]


def changed(value, dtype=np.float32):
    x = X.astype(dtype)
    x[3, 2, 1, 0] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"x_train": np.array([X[0], X[1][:2]], object)}, "x_train is an array of Python objects"),
        ({"y_train": Y.astype(object)}, "y_train is an array of Python objects: store plain"),
        ({"x_train": changed(256)}, r"x_train has pixels from 0.0 to 256.0: they must lie in 0"),
        ({"x_train": changed(-0.5)}, "x_train has pixels from -0.5 to"),
        ({"x_train": changed(np.nan)}, "x_train has pixels from nan to nan"),
        ({"x_train": changed(np.inf)}, "x_train has pixels from 0.0 to inf"),
        ({"x_train": changed(300, np.int32)}, "x_train has pixels from 0 to 300"),
        ({"x_train": X / np.float32(255)}, "would be black: multiply by 255"),
        ({"x_train": X > 3}, "x_train has dtype bool"),
        ({"x_train": X.astype("c8")}, "x_train has dtype complex64"),
        ({"x_train": X[..., None]}, r"shape \(30, 5, 6, 2, 1\): give numbers"),
        ({"x_train": X[:0]}, r"shape \(0, 5, 6, 2\)"),
        ({"x_train": X[:, :3]}, "train images are 3x6: they must be at least 4x4"),
        ({"y_train": Y[:-1]}, "30 train images but 29 train labels"),
        ({"y_train": Y[:, None]}, r"train labels have dtype int64 and shape \(30, 1\)"),
        ({"y_train": Y.astype(float)}, "train labels have dtype float64"),
        ({"y_train": Y * 0}, "images has 1 class"),
        ({"y_train": Y * 2}, r"class 1 \('1'\) and 1 more has no train images"),
        ({"y_train": Y - 1}, "train labels run from -1 to 1"),
        ({"x_test": X}, "has no y_test, it holds x_test, x_train, y_train"),
        ({"y_test": Y}, "has no x_test"),
        ({"x_test": X, "y_test": Y // 2}, r"class 2 \('2'\) has no test images: train and test"),
        ({"x_test": X[:, :, :4], "y_test": Y}, "bring both to one shape"),
        ({"x_test": X / 255.0, "y_test": Y}, "x_test has float pixels .* multiply by 255"),
        ({"class_names": ["a", "b"]}, "train labels run from 0 to 2 but there are 2 classes"),
        ({"class_names": [1, 2, 3]}, "class_names has dtype int64"),
    ],
)
def test_bad_arrays_are_refused(arrays, match, tmp_path, refuses):
    path = write(tmp_path, **arrays)
    with refuses(match):
        load("images", path=path)


def test_object_arrays_are_never_unpickled(tmp_path, refuses):
    marker = tmp_path / "marker"

    class Attack:
        def __reduce__(self):
            return open, (str(marker), "w")

    path = write(tmp_path, x_train=np.array([Attack()], object))
    with refuses("x_train is an array of Python objects"):
        load("images", path=path)
    assert not marker.exists()


def test_without_training_arrays(tmp_path, refuses):
    np.savez(tmp_path / "mine.npz", images=X, labels=Y)
    with refuses("has no x_train, it holds images, labels: store x_train, y_train"):
        load("images", path=tmp_path / "mine.npz")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_file_cut_short_is_refused(keep, tmp_path, refuses):
    path = write(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with refuses("mine.npz cannot be read as .npz"):
        load("images", path=path)


def test_flipped_byte_is_refused(tmp_path, refuses):
    path = write(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 255
    path.write_bytes(data)
    with refuses("mine.npz cannot be read as .npz"):
        load("images", path=path)


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_header_that_declares_more_than_there_is_is_refused(tmp_path, refuses):
    head = io.BytesIO()
    shape = (10**6, 1000, 1000, 3)
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    path = zipped(
        tmp_path / "a.npz", {"x_train.npy": head.getvalue() + b"x", "y_train.npy": npy(Y)}
    )
    with refuses("x_train declares 3000000000000 bytes but has 1"):
        load("images", path=path)


def test_other_npy_versions_and_no_npy_at_all_are_refused(tmp_path, refuses):
    version_3 = b"\x93NUMPY\x03\x00" + npy(X)[8:]
    path = zipped(tmp_path / "a.npz", {"x_train.npy": version_3, "y_train.npy": npy(Y)})
    with refuses(r"x_train has .npy version \(3, 0\)"):
        load("images", path=path)
    path = zipped(tmp_path / "a.npz", {"x_train.npy": b"no array", "y_train.npy": npy(Y)})
    with refuses("a.npz cannot be read as .npz"):
        load("images", path=path)


def test_too_much_is_refused_before_it_is_read(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr(npz, "_MOST_BYTES", 1000)
    with refuses("unpacks to .* bytes, more than 1000"):
        load("images", path=write(tmp_path))
