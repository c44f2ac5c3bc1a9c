"""CIFAR from the official folder and archive, small ones made here and the real one."""

import collections
import hashlib
import io
import os
import pickle
import shutil
import tarfile
import warnings

import numpy as np
import pytest

from deepmaker_jax.data import cifar, load
from deepmaker_jax.errors import InputError

PICKLERS = ["python 2, protocol 2", "python 3, protocol 2", "python 3, protocol 4"]
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def expected(contents, files, key):
    """What the official description says: 1024 red, green, blue bytes, row by row."""
    rows = np.concatenate([contents[file]["data"] for file in files])
    images = np.stack([row.reshape(3, 32, 32).transpose(1, 2, 0) for row in rows])
    return images, np.concatenate([contents[file][key] for file in files])


def entry(name, data=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def write_tar(path, entries):
    with tarfile.open(path, "w:gz") as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return path


def official(contents, picklers, name="cifar10", pickler=PICKLERS[0]):
    """The archive's entries in the official order of kinds: folder, extras, data."""
    folder = FOLDERS[name]
    extra = "readme.html" if name == "cifar10" else "file.txt~"
    entries = [entry(folder, kind=tarfile.DIRTYPE), entry(f"{folder}/{extra}", b"read me")]
    return entries + [
        entry(f"{folder}/{file}", picklers[pickler](content)) for file, content in contents.items()
    ]


@pytest.mark.parametrize("pickler", PICKLERS)
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_folder_parent_and_archive_give_the_same_images(
    name, pickler, tmp_path, write_cifar, picklers
):
    contents = write_cifar(tmp_path / FOLDERS[name], name, pickler)
    archive = write_tar(tmp_path / "a.tar.gz", official(contents, picklers, name, pickler))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load(name, path=tmp_path / FOLDERS[name])
        unpacked = cifar.read_archive(name, archive, md5=None)
    train = ["train"] if name == "cifar100" else [f"data_batch_{i}" for i in range(1, 6)]
    test = ["test"] if name == "cifar100" else ["test_batch"]
    key = "fine_labels" if name == "cifar100" else "labels"
    for files, images, labels in (
        (train, dataset.train_images, dataset.train_labels),
        (test, dataset.test_images, dataset.test_labels),
    ):
        wanted_images, wanted_labels = expected(contents, files, key)
        np.testing.assert_array_equal(images, wanted_images)
        np.testing.assert_array_equal(labels, wanted_labels)
    assert dataset.class_names[:2] == ("kind 0", "kind 1")
    assert dataset.test_split == "official"
    assert str(tmp_path) not in dataset.source + unpacked.source
    assert load(name, path=str(tmp_path)).fingerprint == dataset.fingerprint
    assert unpacked.fingerprint == dataset.fingerprint


def test_order_in_the_archive_does_not_matter(tmp_path, cifar_contents, picklers):
    entries = official(cifar_contents(), picklers)
    one = cifar.read_archive("cifar10", write_tar(tmp_path / "1", entries), md5=None)
    two = cifar.read_archive("cifar10", write_tar(tmp_path / "2", entries[::-1]), md5=None)
    assert one.fingerprint == two.fingerprint


def test_load_checks_the_official_sum(tmp_path, cifar_contents, picklers, monkeypatch, refuses):
    path = write_tar(tmp_path / "cifar-10-python.tar.gz", official(cifar_contents(), picklers))
    found = hashlib.md5(path.read_bytes()).hexdigest()
    match = f"has md5 {found}, the official archive c58f30108f718f92721af3b95e74349a: get .* again"
    for place in (path, tmp_path):
        with refuses(match):
            load("cifar10", path=place)
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", cifar.LAYOUTS["cifar10"]._replace(md5=found))
    by_file, by_folder = load("cifar10", path=path), load("cifar10", path=tmp_path)
    assert by_file.fingerprint == by_folder.fingerprint
    assert by_file.source == f"official archive cifar-10-python.tar.gz, md5 {found}"
    assert os.listdir(tmp_path) == ["cifar-10-python.tar.gz"]  # nothing was unpacked


def test_official_sums_are_the_published_ones():
    assert cifar.LAYOUTS["cifar10"].md5 == "c58f30108f718f92721af3b95e74349a"
    assert cifar.LAYOUTS["cifar100"].md5 == "eb9058c3a382ffc7106e4002c42a8d85"


@pytest.mark.parametrize("keep", [0, 1, 9, 0.3, 0.9, 0.9999])
def test_archive_cut_short_is_refused(keep, tmp_path, cifar_contents, picklers, refuses):
    path = write_tar(tmp_path / "a.tar.gz", official(cifar_contents(), picklers))
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with refuses(r"a\.tar\.gz(:.*)? (is cut short or no tar.gz|is damaged|lacks)"):
        cifar.read_archive("cifar10", path, md5=None)


def test_archive_of_another_kind_is_refused(tmp_path, refuses):
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with refuses("is cut short or no tar.gz .BadGzipFile"):
        cifar.read_archive("cifar10", path, md5=None)


@pytest.mark.parametrize(
    ("odd", "match"),
    [
        (entry("cifar-10-batches-py/../../evil", b"x"), "'cifar-10-batches-py/../../evil'"),
        (entry("/etc/evil", b"x"), "'/etc/evil', which is no plain file of the official"),
        (entry("evil/test_batch", b"x"), "'evil/test_batch'"),
        (
            entry("cifar-10-batches-py/readme.html", kind=tarfile.SYMTYPE, link="/etc/passwd"),
            "readme.html', which is no plain file",
        ),
        (
            entry("cifar-10-batches-py/test_batch", kind=tarfile.LNKTYPE, link="/etc/passwd"),
            "test_batch', which is no plain file",
        ),
        (entry("cifar-10-batches-py/data_batch_1", kind=tarfile.CHRTYPE), "no plain file"),
    ],
)
def test_archive_with_an_odd_member_is_refused(
    odd, match, tmp_path, cifar_contents, picklers, refuses
):
    path = write_tar(tmp_path / "a", [odd, *official(cifar_contents(), picklers)])
    with refuses(match):
        cifar.read_archive("cifar10", path, md5=None)
    assert os.listdir(tmp_path) == ["a"]


def test_archive_with_a_file_twice_is_refused(tmp_path, cifar_contents, picklers, refuses):
    entries = official(cifar_contents(), picklers)
    path = write_tar(tmp_path / "a", [*entries, entries[-1]])
    with refuses("batches.meta', which is no plain file of the official archive or is there twice"):
        cifar.read_archive("cifar10", path, md5=None)


def test_archive_without_a_file_is_refused(tmp_path, cifar_contents, picklers, refuses):
    entries = [x for x in official(cifar_contents(), picklers) if "batch_3" not in x[0].name]
    with refuses("lacks cifar-10-batches-py/data_batch_3"):
        cifar.read_archive("cifar10", write_tar(tmp_path / "a", entries), md5=None)


def test_archive_that_unpacks_to_too_much_is_refused(
    tmp_path, cifar_contents, picklers, monkeypatch, refuses
):
    monkeypatch.setattr(cifar, "_MOST_BYTES", 1 << 20)
    bomb = entry("cifar-10-batches-py/readme.html", bytes(1 << 21))
    path = write_tar(tmp_path / "a", [bomb, *official(cifar_contents(), picklers)])
    with refuses("unpacks to more than 1 MiB"):
        cifar.read_archive("cifar10", path, md5=None)


def test_file_too_big_is_refused(tmp_path, write_cifar, monkeypatch, refuses):
    write_cifar(tmp_path)
    monkeypatch.setattr(cifar, "_MOST_BYTES", 1 << 10)
    with refuses("data_batch_1 has .* bytes: no official file is so big"):
        load("cifar10", path=tmp_path)


def test_folder_without_a_file_is_refused(tmp_path, write_cifar, refuses):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_1").unlink()
    (tmp_path / "batches.meta").unlink()
    with refuses("lacks data_batch_1, batches.meta: unpack cifar-10-python.tar.gz again"):
        load("cifar10", path=tmp_path)


class Attack:
    """Pickles into a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("where", ["folder", "archive"])
def test_malicious_pickle_does_not_run(protocol, where, tmp_path, write_cifar, picklers, refuses):
    marker = tmp_path / "marker"
    evil = pickle.dumps({"data": Attack(os.system, f"touch {marker}")}, protocol)
    pickle.loads(evil)
    assert marker.exists()  # an ordinary unpickler runs it
    marker.unlink()
    contents = write_cifar(tmp_path / "data")
    (tmp_path / "data" / "data_batch_2").write_bytes(evil)
    with refuses(r"data_batch_2 asks for the global (posix|nt)\.system, which no official file"):
        if where == "folder":
            load("cifar10", path=tmp_path / "data")
        else:
            entries = official(contents, picklers)
            entries[3] = entry("cifar-10-batches-py/data_batch_2", evil)
            cifar.read_archive("cifar10", write_tar(tmp_path / "a", entries), md5=None)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (Attack(eval, "1"), r"the global (__builtin__|builtins)\.eval"),
        (Attack(getattr, "a", "b"), r"the global (__builtin__|builtins)\.getattr"),
        (collections.OrderedDict(), r"the global collections\.OrderedDict"),
        (np.float64(1), r"the global numpy(\._core|\.core)\.multiarray\.scalar"),
    ],
)
def test_any_other_global_is_refused(value, match, tmp_path, write_cifar, refuses):
    write_cifar(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({"data": value}, protocol=2))
    with refuses(f"test_batch asks for {match}"):
        load("cifar10", path=tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 30, -2000, -1])
def test_pickle_cut_short_is_refused(keep, tmp_path, write_cifar, refuses):
    write_cifar(tmp_path)
    data = (tmp_path / "data_batch_4").read_bytes()
    (tmp_path / "data_batch_4").write_bytes(data[:keep])
    with refuses("data_batch_4 is damaged or no CIFAR pickle"):
        load("cifar10", path=tmp_path)


def test_random_damage_gives_one_line_or_other_content(tmp_path, write_cifar):
    """Any byte of the pickle's opcodes may be wrong: never another exception."""
    write_cifar(tmp_path)
    good = (tmp_path / "batches.meta").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] = rng.integers(256)
        (tmp_path / "batches.meta").write_bytes(bad)
        messages = []
        try:
            load("cifar10", path=tmp_path)
        except InputError as error:
            messages.append(str(error))
        assert all("\n" not in message for message in messages)
        refused += len(messages)
    assert refused > 100


def test_huge_memo_index_takes_no_memory(tmp_path, write_cifar, refuses):
    write_cifar(tmp_path)
    (tmp_path / "test_batch").write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")
    with refuses("test_batch: 'data' is not a uint8 array"):
        load("cifar10", path=tmp_path)


@pytest.mark.parametrize(
    "name", [b"numpy\ndtype", b"numpy\nndarray", b"_codecs\nencode", b"numpy\n_reconstruct"]
)
def test_state_cannot_be_written_into_the_reader(name, tmp_path, write_cifar, refuses):
    """BUILD with a state for slots sets attributes: on what an admitted global names, too."""
    write_cifar(tmp_path)
    name = name.replace(b"numpy\n_", b"numpy.core.multiarray\n_")
    evil = b"\x80\x02c" + name + b"\nN}U\x05stateK\x01s\x86b."
    (tmp_path / "test_batch").write_bytes(evil)
    with refuses("test_batch is damaged or no CIFAR pickle .TypeError"):
        load("cifar10", path=tmp_path)


def pixels(dtype=np.uint8, shape=(10, 3072)):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("file", "change", "match"),
    [
        ("test_batch", {"data": pixels(np.int16)}, "test_batch: 'data' is not a uint8 array"),
        ("test_batch", {"data": pixels(shape=(10, 3071))}, r"'data' is not .* \[images, 3072\]"),
        ("test_batch", {"data": pixels(shape=(30720,))}, "'data' is not a uint8 array"),
        ("test_batch", {"data": [1, 2]}, "'data' is not a uint8 array"),
        ("test_batch", {"data": pixels(shape=(9, 3072))}, "'labels' is no list of 9 labels"),
        ("data_batch_5", {"labels": [0] * 9 + [10]}, "label 10 in 'labels' must be one of 0..9"),
        ("data_batch_5", {"labels": [0] * 9 + [-1]}, "label -1 in 'labels'"),
        ("data_batch_5", {"labels": [0] * 9 + ["cat"]}, "label b'cat' in 'labels'"),
        ("data_batch_5", {"labels": 3}, "'labels' is no list of 10 labels"),
        ("batches.meta", {"label_names": ["a"] * 9}, "'label_names' is no list of 10 names"),
        ("batches.meta", {"label_names": ["a"] * 10}, "class name 'a' occurs twice"),
        ("test_batch", {"labels": [0] * 10}, r"class 1 \('kind 1'\) and 8 more has no test images"),
    ],
)
def test_wrong_content_is_refused(
    file, change, match, tmp_path, write_cifar, cifar_contents, refuses
):
    contents = cifar_contents()
    contents[file].update(change)
    write_cifar(tmp_path, contents=contents)
    with refuses(match):
        load("cifar10", path=tmp_path)


def test_one_batch_in_the_place_of_another_is_refused(tmp_path, write_cifar, refuses):
    write_cifar(tmp_path)
    shutil.copy(tmp_path / "data_batch_1", tmp_path / "test_batch")
    with refuses("test_batch holds the same images as data_batch_1: unpack cifar-10-python.tar.gz"):
        load("cifar10", path=tmp_path)


def test_bytes_that_do_not_fit_the_shape_are_refused(tmp_path, write_cifar, picklers, refuses):
    contents = write_cifar(tmp_path)
    data = picklers[PICKLERS[0]](contents["test_batch"])
    claim = b"(J\x0a\x00\x00\x00J\x00\x0c\x00\x00t"  # (10, 3072)
    assert data.count(claim) == 1
    (tmp_path / "test_batch").write_bytes(
        data.replace(claim, b"(J\x0a\x00\x00\x7fJ\x00\x0c\x00\x00t")
    )
    with refuses("'data' is not a uint8 array"):
        load("cifar10", path=tmp_path)


def test_pickle_of_no_dictionary_is_refused(tmp_path, write_cifar, refuses):
    write_cifar(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps([1, 2]))
    with refuses("test_batch holds a list, not the dictionary of a CIFAR file"):
        load("cifar10", path=tmp_path)


def test_real_cifar10(real_data):
    folder = real_data / "cifar-10-batches-py"
    dataset = load("cifar10", path=folder)
    assert dataset.train_images.shape == (50_000, 32, 32, 3)
    assert dataset.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(dataset.train_labels).tolist() == [5000] * 10
    assert np.bincount(dataset.test_labels).tolist() == [1000] * 10
    assert dataset.class_names[0] == "airplane"
    assert dataset.class_names[9] == "truck"
    assert load("cifar10", path=real_data).fingerprint == dataset.fingerprint
    with (folder / "data_batch_3").open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy dislikes how old arrays name their type
        batch = pickle.load(file, encoding="latin1")
    planes = np.array(batch["data"][17]).reshape(3, 32, 32)
    np.testing.assert_array_equal(dataset.train_images[20_017], np.stack(list(planes), axis=-1))
    assert dataset.train_labels[20_017] == batch["labels"][17]
