"""A long search with a stand-in trainer: what it keeps in memory and on disk does not run away.

The long form is `benchmarks/soak.py`.
"""

import pytest

from benchmarks.many_workers import MODES
from benchmarks.soak import POPULATION, soak

GENERATIONS = 30


@pytest.mark.parametrize("mode", MODES)
def test_memory_stays_flat_the_ledger_grows_by_its_lines_and_nothing_is_paid_again(tmp_path, mode):
    path = tmp_path / "ledger.jsonl"
    soak(tmp_path / "first", mode, GENERATIONS)  # what a process takes once is not growth
    rows = soak(path, mode, GENERATIONS)
    assert [row["measurements"] for row in rows][-1] == POPULATION * GENERATIONS
    middle, last = rows[len(rows) // 2], rows[-1]
    added = last["measurements"] - middle["measurements"]
    # Of a record's arch, genome and costs as Python objects 8 KB would stay; of its place 0.3.
    assert (last["resident_mib"] - middle["resident_mib"]) * 2**20 < 4000 * added
    sizes = [row["ledger_bytes_per_measurement"] for row in rows]
    assert max(sizes) < 1.1 * min(sizes)
    before = path.read_bytes()
    soak(path, mode, GENERATIONS)
    assert path.read_bytes() == before
