"""Files that are whole or absent."""

import errno
import json
import os
import stat
import tempfile

import pytest

from deepmaker_jax import files, ledger
from deepmaker_jax.errors import InputError, StorageError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_bytes(path, b"old")

    def fail():
        with files.replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_a_file_system_refuses_is_one_error_and_leaves_the_old_file(
    tmp_path, monkeypatch, code
):
    path = tmp_path / "a.json"
    files.write_bytes(path, b"old")

    def refuse(*args, **rest):
        raise OSError(code, os.strerror(code))

    for place, name in ((tempfile, "mkstemp"), (os, "fsync"), (os, "replace")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, refuse)
            with pytest.raises(
                StorageError, match=rf"a\.json cannot be written \({os.strerror(code)}"
            ):
                files.write_bytes(path, b"new")
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["a.json"]


def test_what_stands_in_a_files_place_is_named(tmp_path):
    (tmp_path / "a.json").mkdir()
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(StorageError, match=r"a\.json is a folder: move it away"):
        files.write_bytes(tmp_path / "a.json", b"")
    with pytest.raises(InputError, match=r"a\.json is no plain file: move it away, then hope"):
        files.load_json(tmp_path / "a.json", remedy="hope")
    with pytest.raises(StorageError, match=r"b is a file: move it away"):
        files.write_bytes(tmp_path / "b" / "c.json", b"")
    (tmp_path / "c").symlink_to("nowhere")
    with pytest.raises(StorageError, match=r"c is a link: move it away"):
        files.write_bytes(tmp_path / "c" / "d.json", b"")
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b", "c"]


def test_a_new_file_and_its_name_are_on_the_disk(tmp_path, monkeypatch):
    """A power cut may take whatever nobody has asked to be kept, names too."""
    kept, whole = [], os.fsync

    def fsync(handle):
        kept.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        whole(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_bytes(tmp_path / "a.json", b"")
    assert kept == ["file", "folder"]
    kept.clear()
    ledger.Ledger(tmp_path / "ledger.jsonl").close()
    assert kept == ["folder"]


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a.json.k3v_9xyz", ".b.json.k3v_9xyz", ".a.json", "a.json"):
        (tmp_path / name).write_bytes(b"")
    files.remove_leftovers(tmp_path / "a.json")
    assert sorted(os.listdir(tmp_path)) == [".a.json", ".b.json.k3v_9xyz", "a.json"]
    files.remove_leftovers(tmp_path / "nowhere" / "a.json")


def test_written_files_are_as_readable_as_any_other(tmp_path):
    files.write_bytes(tmp_path / "new", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_is_strict_sorted_and_stable(tmp_path):
    value = {"b": float("nan"), "a": [1.5, float("-inf"), (2,)]}
    files.write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [1.5, None, [2]], "b": None}
    assert text.index('"a"') < text.index('"b"')


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is missing"), (b"{", "cannot be read"), (b"\xff", "cannot be")]
)
def test_a_bad_json_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        files.load_json(path)


def test_sha256_is_the_files(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "[" * 65 + "]" * 65, "[" * 99_999, "{", ""])
def test_loose_or_bottomless_json_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(
        InputError, match=r"a\.json cannot be read as JSON .*: restore or remove it"
    ):
        files.load_json(tmp_path / "a.json")


def test_nested_json_is_read(tmp_path):
    (tmp_path / "a.json").write_text("[" * 64 + "]" * 64)
    assert str(files.load_json(tmp_path / "a.json")) == "[" * 64 + "]" * 64
