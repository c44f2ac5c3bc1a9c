"""What the benchmarks publish: figures, and nothing of the machine's folders."""

import pathlib
import re

from benchmarks.record import portable

RESULTS = pathlib.Path(__file__).parent.parent / "benchmarks" / "results"


def test_published_words_name_no_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--data", str(tmp_path / "a" / "b"), str(tmp_path.parent / "c.tflite"), "../d", "e/f"]
    assert [portable(word) for word in given] == ["--data", "a/b", "c.tflite", "d", "e/f"]


def test_results_name_no_place():
    found = sorted(RESULTS.rglob("*.json"))
    assert len(found) > 5
    for path in found:
        assert not re.search(r"(?<![\w.])(/|\.\./)\w+/\w+", path.read_text()), path
