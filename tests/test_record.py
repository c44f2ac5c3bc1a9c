"""Rows that benchmarks keep: which are known, and which are to be made anew."""

import pytest

from benchmarks import record


def _square(number):
    if number > 9:
        raise ValueError("too large")
    return {"square": number**2}


def test_rows_are_made_of_what_their_function_reaches(tmp_path, monkeypatch):
    benchmarks = tmp_path / "benchmarks"
    benchmarks.mkdir()
    monkeypatch.setattr(record, "__file__", str(benchmarks / "record.py"))
    other, one, whole = (benchmarks / f"{name}.py" for name in ("other", "one", "whole"))
    texts = {
        whole: '"Words."\nat = len("x")\n',
        other: "def used(x):\n    return x\n\n\ndef idle():\n    pass\n",
        one: '''"""Words."""
from benchmarks import whole
from benchmarks.other import idle, used

NUM, OTHER = 3, 4
SEEDS = 30


def do_job(x):
    """Words."""
    return used(x) + NUM + whole.at  # a remark


def main():
    print(do_job(SEEDS), idle())
''',
    }

    def reached(of, old, new):
        for path, text in texts.items():
            path.write_text(text.replace(old, new) if path == of else text)
        return record._reached(one, "do_job", set())

    kept = reached(one, "", "")
    for old, new in (("Words", "O"), ("  # a remark", ""), ("print", "repr"), ("= 30", "= 40")):
        assert reached(one, old, new) == kept
    assert reached(other, "pass", "return") == reached(whole, "Words", "O") == kept
    assert reached(whole, "len", "ord") != kept
    assert reached(one, "+ NUM", "- NUM") != kept
    assert reached(one, "3, 4", "3, 5") != kept
    assert reached(other, "return x", "return 2") != kept


def test_what_was_cut_off_in_writing_is_done_again_and_others_rows_stay_away(tmp_path):
    path = tmp_path / "rows.jsonl"
    jobs = {f"of {i}": (i,) for i in (1, 2)}
    first = record.train_missing(_square, jobs, path, num_workers=1)
    assert first == [{"job": "of 1", "square": 1}, {"job": "of 2", "square": 4}]
    path.write_text(path.read_text()[:-3])
    assert record.train_missing(_square, jobs, path, num_workers=1) == first
    other = {"of 3": (3,)}
    assert record.train_missing(_square, other, path, num_workers=1) == [
        {"job": "of 3", "square": 9}
    ]
    mixed = {"of 10": (10,), "of 4": (4,)}
    with pytest.raises(RuntimeError, match="of 10 failed"):
        record.train_missing(_square, mixed, path, num_workers=1)
    assert record.known(path)["of 4"] == [{"square": 16}]  # the others are done nevertheless


def test_rows_of_another_making_are_done_again(tmp_path):
    path, jobs = tmp_path / "rows.jsonl", {"of 2": (2,)}
    for made in ("one", "other", "one"):
        assert record.train_missing(_square, jobs, path, num_workers=1, made_of=made) == [
            {"job": "of 2", "square": 4}
        ]
    assert list(record.known(path)) == ["of 2, of one", "of 2, of other"]
