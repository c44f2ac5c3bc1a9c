"""What the benchmarks publish: figures, and nothing of the machine's folders."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks.many_workers import MODES
from benchmarks.record import portable
from deepmaker_jax import program
from deepmaker_jax.files import load_json

GPU = pathlib.Path(__file__).parent.parent / "benchmarks" / "gpu.sh"
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


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "usage: benchmarks/gpu.sh OUT"),
        (["here", "lanes", "heat"], "PART (=heat) must be one of: lanes devices batch depth"),
        (["here", "lanes"], "JAX (backend=cpu) must see an accelerator"),
    ],
)
def test_an_accelerator_is_measured_or_nothing(args, said, tmp_path):
    env = {**os.environ, "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [str(GPU), *args], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["here"] * bool(args)
    assert not list(tmp_path.rglob("*.json"))


def test_what_readme_says_of_kills_and_long_runs():
    """A hundred kills, twenty full disks, 20,000 measurements in either mode."""
    kinds = load_json(RESULTS / "kill.json")["by"]["kind"]
    assert (kinds["clock"] + kinds["file"], kinds["full"] + kinds["limit"]) == (100, 20)
    found = load_json(RESULTS / "soak.json")
    for mode in MODES:
        parts = found[mode]["parts"]
        more = parts[-1]["measurements"] - parts[0]["measurements"]
        assert parts[-1]["measurements"] >= 20_000
        assert 2**20 * (parts[-1]["resident_mib"] - parts[0]["resident_mib"]) / more < 2000


def test_the_program_is_chosen_by_published_figures():
    found = load_json(RESULTS / "programs.json")
    assert round(found["compile_seconds"], 1) == program.COMPILE_SECONDS
    assert 1e9 * found["gflops_a_second"] == program.FLOPS_A_SECOND
    assert found["class_slower"] == program.CLASS_SLOWER
    assert max(found["class_compile_seconds"].values()) <= 30
    shares = [row["share"] for row in load_json(RESULTS / "compile_share.json")["runs"]]
    assert len(shares) == 2
    assert max(shares) <= 0.4


def test_every_network_of_a_search_has_a_size_class_and_few_larger_ones_none():
    """What stands beside the table of size classes."""
    found = load_json(RESULTS / "size_classes.json")
    assert found["networks"] == sum(row["networks_up_to_200k"] for row in found["classes"]) == 1000
    assert sum(found["no_class"].values()) == 3
