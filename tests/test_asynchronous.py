"""The search without generations: no worker waits, and the ledger replays what happened."""

import contextlib
import itertools

import numpy as np
import pytest

from benchmarks.cluster import Cluster
from deepmaker_jax.asynchronous import search_asynchronously
from deepmaker_jax.events import GenerationDone, GenerationStarted, Measured, Note
from deepmaker_jax.feasible import make
from deepmaker_jax.ledger import WORKER_DIED, read
from deepmaker_jax.search import first_candidates, search
from deepmaker_jax.spaces import neuropower
from tests.standin import StandIn
from tests.test_search import LIMITS, finish, of_kind, prepare

TOTAL = 5 * 8  # of `prepare`
DIED = "failed", f"{WORKER_DIED} (signal 9)"


def go(path, executor, **rest):
    """Returns (events, front) of an asynchronous search."""
    return finish(prepare(path, executor, **rest), search_asynchronously)


class Workers(Cluster):
    """Workers whose units take a time that the id decides, and leave a checkpoint.

    The host loop takes none, else who ends first would depend on what else runs.
    `ids` are of what they were given; `fate` gives a unit's status and reason, if it fails.
    """

    def __init__(self, num_workers=3, *, fate=lambda unit: None):
        super().__init__(num_workers, lambda unit: 1 + int(unit.id, 16) % 97, clock=lambda: 0.0)
        self.ids, self._fate, self._units = [], fate, {}

    def submit(self, unit):
        assert unit.id not in self._units  # the two would write one checkpoint
        super().submit(unit)
        self.ids.append(unit.id)
        self._units[unit.id] = unit

    def results(self):
        for outcome in super().results():
            unit = self._units.pop(outcome.id)
            unit.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            unit.checkpoint.touch()
            if fate := self._fate(unit):
                outcome = outcome._replace(status=fate[0], reason=fate[1], measured={})
            yield outcome


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns (ledger, events, front, workers) of a search that nobody disturbed."""
    path, workers = tmp_path_factory.mktemp("whole") / "ledger.jsonl", Workers()
    return path, *go(path, workers), workers


def test_every_evaluation_is_of_a_new_candidate_and_no_worker_waits(whole):
    path, events, front, workers = whole
    ids = [event.record["id"] for event in of_kind(events, Measured)]
    assert len(ids) == len(set(ids)) == TOTAL
    assert ids == [record["id"] for record in read(path)]
    assert sorted(ids) == sorted(workers.ids)
    assert workers.idle_share < 0.1  # the last ones, that have nobody to wait for
    assert {record["id"] for record in front} <= set(ids)
    assert all(record["costs"]["params"] <= LIMITS.params for record in front)


def test_children_come_from_what_had_ended_by_then(whole):
    path, *_ = whole
    order = {record["id"]: i for i, record in enumerate(read(path))}
    children = [record for record in read(path) if record["parents"]]
    assert len(children) > 20
    for child in children:
        assert all(order[parent] < order[child["id"]] for parent in child["parents"])


def test_generations_are_counted_by_what_ended(whole):
    path, events, *_ = whole
    assert [e.generation for e in of_kind(events, GenerationStarted)] == list(range(5))
    done = of_kind(events, GenerationDone)
    assert [(e.generation, e.num_candidates) for e in done] == [(g, 8 * g + 8) for g in range(5)]
    assert [e.hypervolume for e in done] == sorted(e.hypervolume for e in done)
    assert [record["generation"] for record in read(path)] == [i // 8 for i in range(TOTAL)]
    told = [(e.num_done, e.num_total) for e in of_kind(events, Measured)]
    assert told == [(i, 8) for i in range(1, 9)] * 5


def test_its_ledger_replays_it(whole, tmp_path):
    path, events, front, _ = whole
    copy = tmp_path / "ledger.jsonl"
    copy.write_bytes(path.read_bytes())
    again, same = go(copy, StandIn())
    assert same == front
    assert copy.read_bytes() == path.read_bytes()
    assert of_kind(again, GenerationDone) == of_kind(events, GenerationDone)
    assert of_kind(again, Measured) == []


def test_one_worker_goes_on_from_any_line_as_if_nothing_had_been(tmp_path):
    """With one worker the order is known, so that what was cut off comes back to the byte."""
    path = tmp_path / "whole"
    _, front = go(path, Workers(1))
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in (0, 3, 8, 9, 25, 39):
        cut = tmp_path / f"cut-{kept}"
        cut.write_bytes(b"".join(lines[:kept]))
        workers = Workers(1)
        _, same = go(cut, workers)
        assert len(workers.ids) == TOTAL - kept
        assert same == front
        assert cut.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("number", [0, 16, 20])
def test_what_was_lost_with_its_worker_is_measured_again(tmp_path, number):
    """One of the first population, and children that another search would not propose."""
    other = StandIn(order=list)
    go(tmp_path / "other", other)
    lost, path = other.done[number][0], tmp_path / "ledger.jsonl"
    s = prepare(path, StandIn(order=list, failing={lost}, failure=DIED))
    events, _ = finish(s, search_asynchronously)
    # Each once, though number 0 begins its generation, and so does the one after it.
    assert [e.generation for e in of_kind(events, GenerationStarted)] == list(range(5))
    assert s.ledger.num_lost() == 1
    assert [r["status"] for r in read(path) if r["id"] == lost] == ["failed"]
    resumed = StandIn()
    events, _ = go(path, resumed)
    assert [e.generation for e in of_kind(events, GenerationStarted)] == list(range(5))
    assert [id for id, _ in resumed.done] == [lost]
    assert [r["status"] for r in read(path) if r["id"] == lost] == ["failed", "ok"]
    assert [e.num_candidates for e in of_kind(events, GenerationDone)][-1] == TOTAL


@pytest.mark.parametrize("num_lost", [1, 8])
def test_one_worker_goes_on_though_some_of_the_first_population_were_lost(tmp_path, num_lost):
    """They count as failed until they are measured again."""
    path, lost = tmp_path / "ledger.jsonl", []
    s = prepare(path, Workers(1, fate=lambda unit: DIED if unit.id in lost else None))
    lost += [candidate.id for candidate in first_candidates(s)[-num_lost:]]
    events, _ = finish(s, search_asynchronously)
    assert len(of_kind(events, Measured)) == TOTAL
    assert sum(bool(record["parents"]) for record in read(path)) > 20
    resumed = Workers(1)
    events, _ = go(path, resumed)
    assert resumed.ids == lost
    assert [e.num_candidates for e in of_kind(events, GenerationDone)][-1] == TOTAL


@pytest.mark.parametrize("fate", [None, DIED, ("diverged", "loss nan")])
def test_a_checkpoint_stays_only_where_a_worker_died_and_none_beyond_the_end(tmp_path, fate):
    workers, ids = Workers(fate=lambda unit: fate if int(unit.id, 16) % 5 == 0 else None), set()
    s, left = prepare(tmp_path / "ledger.jsonl", workers), tmp_path / "checkpoints" / "search"
    with contextlib.closing(s.ledger):
        for event in search_asynchronously(s):
            if isinstance(event, Measured):
                if fate == DIED and event.record["status"] == "failed":
                    ids.add(event.record["id"])
                assert {path.stem for path in left.iterdir()} == ids
    assert bool(ids) == (fate == DIED)
    assert not left.exists()


def test_with_more_workers_than_before_a_search_still_proposes(whole, tmp_path):
    path, *_ = whole
    lines = path.read_bytes().splitlines(keepends=True)
    cut = tmp_path / "ledger.jsonl"
    cut.write_bytes(b"".join(lines[:20]))
    go(cut, Workers(30))
    assert sum(bool(record["parents"]) for record in read(cut)[20:]) > 10


def test_a_strategy_that_only_samples_works_too(tmp_path):
    from deepmaker_jax.evolve import RandomSearch

    path = tmp_path / "ledger.jsonl"
    go(path, Workers(), strategy=RandomSearch)
    ids = [record["id"] for record in read(path)]
    assert len(set(ids)) == TOTAL


def test_a_space_with_nothing_left_ends_the_search_and_says_so(tmp_path):
    space = neuropower((16, 16, 3), 10).narrow(
        {"optimizer": ("adam",), "depth": (16,), "activation_negative": ("relu",), "blocks": (2,)}
    )
    s = prepare(tmp_path / "a", StandIn(), space=space, population=4)
    s = s._replace(feasible=make(space, type(LIMITS)(), spread="params"))
    events, _ = finish(s, search_asynchronously)
    (note,) = of_kind(events, Note)
    num_networks = len(read(s.ledger.path))
    assert 4 < num_networks < 20
    assert f"the search ends after {num_networks} of 20 candidates" in note.text


def test_it_ends_no_later_and_idles_less_than_with_generations(tmp_path):
    seconds, idle = {}, {}
    for name, (loop, seed) in enumerate(itertools.product((search, search_asynchronously), (0, 1))):
        workers = Workers(4)
        finish(prepare(tmp_path / str(name), workers, seed=seed), loop)
        seconds.setdefault(loop, []).append(workers.seconds)
        idle.setdefault(loop, []).append(workers.idle_share)
    assert np.mean(seconds[search_asynchronously]) <= np.mean(seconds[search])
    assert np.mean(idle[search_asynchronously]) < np.mean(idle[search])
