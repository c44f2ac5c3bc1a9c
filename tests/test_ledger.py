"""The ledger: whole lines, checked lines, one torn line forgiven."""

import json
import math
import tracemalloc

import pytest

from deepmaker_jax import ledger
from deepmaker_jax.errors import InputError, StorageError
from deepmaker_jax.files import checksum


def record(name="a" * 12, epochs=1, **rest):
    return {
        "id": name,
        "generation": 0,
        "genome": [0, 1],
        "arch": {},
        "parents": [],
        "fidelity": {"name": "search", "epochs": epochs},
        "objectives": {"error": 0.1},
        "seconds": {"compile": 1.0, "train": 2.0, "eval": 0.5},
        "status": "ok",
        "reason": None,
        **rest,
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def write(path, *records):
    book = ledger.Ledger(path)
    for item in records:
        book.append(item)
    book.close()


def test_what_was_appended_is_found_by_id_and_fidelity(path):
    write(path, record(), record(epochs=2, status="failed", reason="é\n\x00"))
    book = ledger.Ledger(path)
    found = book.find("a" * 12, {"epochs": 2, "name": "search"})
    assert found["status"] == "failed"
    assert found["reason"] == "é\n\x00"
    assert book.find("a" * 12, {"name": "search", "epochs": 3}) is None
    assert book.find("b" * 12, {"name": "search", "epochs": 1}) is None
    book.close()


def test_of_a_lost_measurement_that_was_made_again_the_last_counts(path):
    died = record(status="failed", reason="its worker died (signal 9)")
    write(path, died, record("b" * 12, status="failed", reason="ValueError: its worker died"))
    book = ledger.Ledger(path)
    assert book.num_lost() == 0
    for name in ("a", "b", "c"):
        book.find(name * 12, died["fidelity"])
    assert book.num_lost() == 1
    book.append(record())
    assert book.num_lost() == 0
    book.close()
    book = ledger.Ledger(path)
    assert book.find("a" * 12, died["fidelity"])["status"] == "ok"
    assert book.num_lost() == 0
    book.close()


def test_a_disk_that_takes_half_a_line_leaves_the_file_as_it_was(path):
    """And once there is room, the run goes on in it."""
    write(path, record())
    before = path.read_bytes()
    book = ledger.Ledger(path)
    whole = book._file

    class Full:
        def write(self, data):
            return whole.write(data[: len(data) // 2])

        def __getattr__(self, name):
            return getattr(whole, name)

    book._file = Full()
    with pytest.raises(StorageError, match=r"ledger\.jsonl cannot be written \(No space left"):
        book.append(record("b" * 12))
    assert path.read_bytes() == before
    book._file = whole
    book.append(record("c" * 12))
    book.close()
    assert [item["id"] for item in ledger.read(path)] == ["a" * 12, "c" * 12]


def test_a_ledger_that_was_removed_takes_nothing_more(path):
    book = ledger.Ledger(path)
    path.unlink()
    with pytest.raises(StorageError, match=r"was removed while the run went on"):
        book.append(record())
    assert not path.exists()
    book.close()


def test_not_a_number_is_written_as_null(path):
    write(path, record(objectives={"error": math.nan, "size": math.inf}))
    assert ledger.read(path)[0]["objectives"] == {"error": None, "size": None}


def test_lines_are_strict_json_with_sorted_keys_and_a_checksum(path):
    write(path, record())
    line = json.loads(path.read_text())
    assert list(line) == sorted(line)
    assert line["sum"] == checksum(line)
    assert len(line["sum"]) == 16


def test_a_missing_ledger_is_empty(path):
    assert ledger.read(path) == []


@pytest.mark.parametrize("kept", [1, 20, -2, -1])
def test_a_torn_last_line_is_cut_off_and_the_rest_kept(path, kept):
    write(path, record("a" * 12), record("b" * 12))
    whole = path.read_bytes()
    first, second = whole.split(b"\n")[:2]
    path.write_bytes(first + b"\n" + (second + b"\n")[:kept])
    write(path, record("c" * 12))
    assert [item["id"] for item in ledger.read(path)] == ["a" * 12, "c" * 12]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace('"status":"ok"', '"status":"no"', 1), "line 1 does not match"),
        (lambda text: text.replace("{", "", 1), "line 1 is not JSON"),
        (lambda text: "[]\n" + text, "line 1 is not a measurement"),
        (lambda text: "\n" + text, "line 1 is not JSON"),
        (lambda text: text + '{"id": 3}\n', "line 3 is not a measurement"),
    ],
)
def test_any_other_damage_is_refused_with_the_line(path, spoil, message):
    write(path, record("a" * 12), record("b" * 12))
    path.write_text(spoil(path.read_text()))
    with pytest.raises(InputError, match=message):
        ledger.Ledger(path)


def test_of_a_measurement_only_its_place_stays_in_memory(path):
    """A few hundred bytes, however much it says."""
    write(path, *(record(f"{i:012x}", arch={"layers": list(range(500))}) for i in range(500)))
    tracemalloc.start()
    try:
        book = ledger.Ledger(path)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        book.close()
    assert kept < 500 * 600
