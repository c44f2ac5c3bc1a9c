"""Ledgers that are damaged, or written anew by somebody else, sums and all."""

import functools
import json
import os

import numpy as np
import pytest

from deepmaker_jax import ledger
from deepmaker_jax import search as search_module
from deepmaker_jax.cli import main
from deepmaker_jax.config import Config, LimitConfig, SearchConfig
from deepmaker_jax.evolve import NSGA2
from deepmaker_jax.feasible import make
from deepmaker_jax.measurement import Search
from deepmaker_jax.objective import built_in
from deepmaker_jax.search import search, strategy_scale
from deepmaker_jax.spaces import deepmaker
from tests.fuzz.core import Door, as_text, changed, damaged, generator, listing
from tests.report.conftest import ERROR, FLASH, make_config, make_records, write_run
from tests.standin import StandIn

LIMITS = LimitConfig(params=50_000)
OBJECTIVES = (built_in("error", LIMITS), built_in("params", LIMITS))
FIDELITY = {"name": "search", "epochs": 2, "images": 100, "side": 16}


def forged(rng, lines):
    """A ledger with one or two other measurements, each with the sum that it then has."""
    good, lines = lines, list(lines)
    for _ in range(rng.integers(1, 3)):
        at = int(rng.integers(len(lines)))
        record = json.loads(good[at])
        record.pop("sum")
        value = changed(rng, record)
        if isinstance(value, dict):
            value["sum"] = _sum(value)
        lines[at] = as_text(value)
    if rng.integers(4) == 0:
        lines.append(lines[rng.integers(len(lines))])
    return ("\n".join(lines) + "\n").encode()


def _sum(value):
    try:
        return ledger.checksum(value)
    except (RecursionError, ValueError):
        return "0" * 16


def test_ledgers(tmp_path, capsys):
    """`deepmaker show` prints a run's front from a ledger, and writes nothing."""
    door = Door("ledgers", capsys)
    objectives = [ERROR, FLASH]
    run = write_run(
        tmp_path / "run", config=make_config(objectives), records=make_records(10, objectives)
    )
    path = run / ledger.NAME
    good = path.read_bytes()
    lines = good.decode().splitlines()
    for case in range(320):
        rng = generator(door.name, case)
        bad = forged(rng, lines) if 0 < case < 200 else damaged(rng, good) if case else good
        path.write_bytes(bad)
        before = listing(tmp_path)
        door.give(case, bad, lambda: main(["show", str(run)]))
        assert listing(tmp_path) == before, case
    door.check(refused=100, accepted=80)


@functools.cache
def strategy(num_choices):
    genome = np.zeros(len(num_choices), np.int32)
    return NSGA2(4, genome, num_choices=num_choices, scale=strategy_scale(OBJECTIVES))


def resume(path):
    """Goes on with a search, a formula instead of training, and returns its front."""
    space = deepmaker((16, 16, 3), 10)
    config = Config(limits=LIMITS, search=SearchConfig(population=4, generations=2))
    feasible = make(space, LIMITS, spread="params")
    book = ledger.Ledger(path)
    s = Search(config, feasible, OBJECTIVES, strategy(space.num_choices), StandIn(), book, FIDELITY)
    loop = search(s)
    try:
        while True:
            next(loop)
    except StopIteration as end:
        return end.value
    finally:
        book.close()


def test_a_search_goes_on_from_its_own_measurements_alone(tmp_path, capsys, monkeypatch):
    """It ends with the same front as before, or in one line; a half line at the end is cut off."""
    door = Door("resumed ledgers", capsys)
    drawn = []  # the first population, which is the same each time and takes most of it

    def first_candidates(s):
        drawn.extend([] if drawn else whole(s))
        return list(drawn)

    whole = search_module.first_candidates
    monkeypatch.setattr(search_module, "first_candidates", first_candidates)
    path = tmp_path / ledger.NAME
    wanted = [record["id"] for record in resume(path)]
    good = path.read_bytes()
    lines = good.decode().splitlines()
    for case in range(240):
        rng = generator(door.name, case)
        bad = forged(rng, lines) if 0 < case < 160 else damaged(rng, good) if case else good
        path.write_bytes(bad)
        fronts = []
        code = door.call(case, bad, lambda fronts=fronts: fronts.append(resume(path)))
        assert os.listdir(tmp_path) == [ledger.NAME]
        assert code == 2 or [record["id"] for record in fronts[0]] == wanted or case < 160, case
    door.check(refused=60, accepted=8)


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_a_ledger_that_is_no_file_of_its_own_is_refused(kind, tmp_path, capsys):
    """What it leads to is neither read nor cut nor made; a pipe is not waited for."""
    door = Door("ledgers' places", capsys)
    outside, path = tmp_path / "outside", tmp_path / "run" / ledger.NAME
    path.parent.mkdir()
    outside.write_text("half a line")
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "missing")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = listing(tmp_path)
    assert door.call(kind, kind, lambda: ledger.Ledger(path)) == 2
    if kind in ("folder", "pipe"):
        assert door.call(kind, kind, lambda: ledger.read(path)) == 2
    assert listing(tmp_path) == before
