"""What the tree says of itself is there."""

import fnmatch
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NAMED = re.compile(r"benchmarks/results/[\w./*-]+\.\w+")


def tracked(*patterns):
    """The paths of the tree's files, relative to its root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [name for name in found.split("\0") if name and (ROOT / name).exists()]


@pytest.mark.parametrize("kind", ["*.py", "*.md"])
def test_every_figure_that_is_named_is_in_the_tree(kind):
    there = tracked("benchmarks/results")
    named = {
        (path, name)
        for path in tracked(kind)
        for name in NAMED.findall((ROOT / path).read_text(encoding="utf-8"))
    }
    assert named
    assert not [(path, name) for path, name in named if not fnmatch.filter(there, name)]
