"""Successive halving: who goes on, in what order, and that nothing is trained twice."""

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest

from benchmarks.cluster import accuracy
from deepmaker_jax.asynchronous import search_asynchronously
from deepmaker_jax.config import Config, SearchConfig, check
from deepmaker_jax.errors import InputError
from deepmaker_jax.events import GenerationDone, GenerationStarted, Measured
from deepmaker_jax.evolve import non_dominated_rank
from deepmaker_jax.evolve.hypervolume import hypervolume
from deepmaker_jax.ladder import Ladder, best, rungs
from deepmaker_jax.ledger import read
from deepmaker_jax.preselection import Preselection
from deepmaker_jax.search import Teller, first_candidates, search
from deepmaker_jax.spaces import deepmaker
from tests.standin import StandIn
from tests.test_asynchronous import DIED, TOTAL, Workers
from tests.test_search import FIDELITY, OBJECTIVES, bare, finish, of_kind, prepare

HALVING = {"epochs": 9, "rungs": 3, "reduction": 3}
EPOCHS = (1, 3, 9)
SPACE = deepmaker((16, 16, 3), 10)


def halving(path, executor, *, oversample=1):
    s = prepare(path, executor)
    search = dataclasses.replace(s.config.search, **HALVING, oversample=oversample)
    return s._replace(config=dataclasses.replace(s.config, search=search))


@pytest.mark.parametrize(
    ("epochs", "num", "reduction", "expected"),
    [(9, 3, 3, (1, 3, 9)), (10, 3, 3, (1, 3, 10)), (8, 4, 2, (1, 2, 4, 8)), (5, 1, 3, (5,))],
)
def test_rungs_are_a_geometric_ladder_that_ends_in_full_training(epochs, num, reduction, expected):
    assert rungs(SearchConfig(epochs=epochs, rungs=num, reduction=reduction)) == expected


def test_a_ladder_without_an_epoch_at_its_first_rung_is_refused():
    with pytest.raises(InputError, match=r"search.epochs \(=8\) must be at least .* \(=9\)"):
        check(Config(search=SearchConfig(epochs=8, rungs=3, reduction=3)))


def test_the_best_are_chosen_by_front_then_the_least_error_then_by_added_hypervolume():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = rng.integers(1, 7, (12, 2)) / 8  # with ties and equal points
        among = sorted(rng.choice(12, 6, replace=False).tolist())
        num = int(rng.integers(0, 7))
        chosen = best(points, points, among=among, num=num)
        assert len(chosen) == len(set(chosen)) == num
        assert set(chosen) <= set(among)
        rank = np.asarray(non_dominated_rank(points))
        left = [i for i in among if i not in chosen]
        assert all(rank[a] <= rank[b] for a, b in itertools.product(chosen, left))
        if chosen:  # of the last front, in turn, those that add the most to who is there anyway
            last = rank[chosen].max()
            front = [i for i in range(12) if rank[i] == last]
            there = [i for i in front if i not in among]
            ahead = min(front, key=lambda i: points[i, 0])
            for i in (i for i in chosen if rank[i] == last):
                if set(front) & set(among) <= set(chosen):
                    break
                if ahead not in there:
                    assert i == ahead
                    there.append(i)
                    continue
                rest = [k for k in front if k in among and k not in there]
                volumes = {k: hypervolume(points[[*there, k]]) for k in rest}
                assert volumes[i] == pytest.approx(max(volumes.values()))
                there.append(i)


def test_the_most_accurate_of_a_front_goes_on_even_at_the_limit_where_it_adds_nothing():
    points = np.array([[0.05, 1.0], [0.9, 0.1], [0.91, 0.05]])  # the reference is 1
    assert best(points, points, among=range(3), num=1) == [0]
    assert best(points, points, among=range(3), num=2) == [0, 1]


def test_each_generation_is_halved_and_only_the_last_rung_makes_the_front(tmp_path):
    s = halving(tmp_path / "ledger.jsonl", StandIn())
    events, front = finish(s)
    started = of_kind(events, GenerationStarted)
    assert [(e.rung, e.num_candidates) for e in started] == [(0, 8), (1, 3), (2, 1)] * 5
    records = read(s.ledger.path)
    assert [r["fidelity"]["epochs"] for r in records[:12]] == [1] * 8 + [3] * 3 + [9]
    assert records[11]["fidelity"] == FIDELITY | {"epochs": 9, "rungs": [1, 3, 9]}
    assert all(r["fidelity"]["epochs"] == 9 for r in front)
    assert [e.num_candidates for e in of_kind(events, GenerationDone)] == [8, 16, 24, 32, 40]
    lowest = [r for r in records if r["fidelity"]["epochs"] == 1]
    by_rank = _ranked([r for r in lowest if r["generation"] == 0])
    gone = {r["id"] for r in records[8:11]}
    assert max(by_rank[id] for id in gone) <= min(
        rank for id, rank in by_rank.items() if id not in gone
    )


def _ranked(records):
    values = np.array([[r["objectives"][o.name] for o in OBJECTIVES] for r in records])
    ranks = np.asarray(non_dominated_rank(values)).tolist()
    return {r["id"]: rank for r, rank in zip(records, ranks, strict=True)}


def test_preselection_is_told_who_is_in_training(tmp_path, monkeypatch):
    workers, told = Workers(3), []
    choose = Preselection.choose

    def watched(self, genomes, *, num, front, pending):
        told.append(sorted(SPACE.id(g) for g in pending) == sorted(workers._units))
        told.append(len(pending) == 2)
        return choose(self, genomes, num=num, front=front, pending=pending)

    monkeypatch.setattr(Preselection, "choose", watched)
    finish(halving(tmp_path / "ledger.jsonl", workers, oversample=2), search_asynchronously)
    assert len(told) > 40
    assert all(told)


@pytest.mark.parametrize("oversample", [1, 3])
@pytest.mark.parametrize("mode", [search, search_asynchronously])
def test_a_search_goes_on_from_any_line_and_pays_nothing_twice(tmp_path, mode, oversample):
    path = tmp_path / "whole"
    _, front = finish(halving(path, Workers(1), oversample=oversample), mode)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in (0, 5, 8, 10, 12, 30, len(lines)):
        cut = tmp_path / f"cut-{kept}"
        cut.write_bytes(b"".join(lines[:kept]))
        workers = Workers(1)
        _, same = finish(halving(cut, workers, oversample=oversample), mode)
        assert len(workers.ids) == len(lines) - kept
        assert bare(same) == bare(front)
        assert cut.read_bytes() == path.read_bytes()


def test_whoever_fails_goes_no_further_and_the_search_goes_on(tmp_path):
    calm = StandIn(order=list)
    finish(halving(tmp_path / "calm", calm))
    best = calm.done[11][0]  # of the first generation, at the last rung
    s = halving(tmp_path / "ledger.jsonl", StandIn(order=list, failing={best}))
    finish(s)
    assert [r["fidelity"]["epochs"] for r in read(s.ledger.path) if r["id"] == best] == [1]
    assert [r["fidelity"]["epochs"] for r in read(s.ledger.path)[:12]] == [1] * 8 + [3] * 3 + [9]


class Dying(StandIn):
    """Loses all that train for so many epochs."""

    def __init__(self, epochs):
        super().__init__(failure=DIED)
        self._epochs = epochs

    def submit(self, unit):
        self._failing = {*self._failing, unit.id} if unit.num_epochs == self._epochs else ()
        super().submit(unit)


def test_whoever_is_lost_at_a_rung_counts_as_at_the_one_before_and_may_go_on(tmp_path, monkeypatch):
    tell, told = Teller.tell, []

    def watched(self, turn, records):
        told.extend(records)
        tell(self, turn, records)

    monkeypatch.setattr(Teller, "tell", watched)
    s = halving(tmp_path / "ledger.jsonl", Dying(3))
    with contextlib.closing(s.ledger):
        for event in search(s):
            if isinstance(event, Measured):
                _unit_path(tmp_path, event.record["id"]).parent.mkdir(parents=True, exist_ok=True)
                _unit_path(tmp_path, event.record["id"]).touch()
    lost = {r["id"] for r in read(s.ledger.path) if r["status"] == "failed"}
    assert len(lost) == 3 * 5
    assert told
    assert {r["status"] for r in told} == {"ok"}
    assert {path.stem for path in tmp_path.glob("checkpoints/search/*")} == lost


def test_checkpoints_stay_only_of_candidates_that_may_go_on(tmp_path):
    s = halving(tmp_path / "ledger.jsonl", StandIn())
    loop, left = search(s), []
    with contextlib.closing(s.ledger):
        for event in loop:
            if isinstance(event, Measured):  # as the trainer leaves them
                path = _unit_path(tmp_path, event.record["id"])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            if isinstance(event, GenerationStarted):
                left.append(len(list(tmp_path.glob("checkpoints/search/*"))))
    assert left == [0, 3, 1] * 5
    assert not list(tmp_path.glob("checkpoints/search/*"))


def _unit_path(out, id):
    return out / "checkpoints" / "search" / f"{id}.msgpack"


def test_a_unit_names_the_epochs_in_all_and_where_it_goes_on(tmp_path):
    class Watching(StandIn):
        def submit(self, unit):
            super().submit(unit)
            seen.append((unit.num_epochs, unit.checkpoint))

    seen = []
    finish(halving(tmp_path / "ledger.jsonl", Watching()))
    assert [epochs for epochs, _ in seen[:12]] == [1] * 8 + [3] * 3 + [9]
    assert seen[11][1] in {path for _, path in seen[:8]}
    plain = []
    seen = plain
    finish(prepare(tmp_path / "plain.jsonl", Watching()))
    assert len({path for _, path in plain}) == len(plain)  # each goes on from its own


def test_without_generations_the_better_third_of_each_rung_goes_on(tmp_path):
    path = tmp_path / "ledger.jsonl"
    events, front = finish(halving(path, Workers(3)), search_asynchronously)
    counts = [sum(r["fidelity"]["epochs"] == e for r in read(path)) for e in EPOCHS]
    assert counts[0] == 40
    # A third of what was there at each moment, and who was among them once stays.
    assert 40 // 3 <= counts[1] <= 2 * 40 // 3
    assert counts[1] // 3 <= counts[2] <= counts[1]
    assert [e.num_candidates for e in of_kind(events, GenerationDone)] == [8, 16, 24, 32, 40]
    assert front
    assert all(r["fidelity"]["epochs"] == 9 for r in front)
    order = [(r["id"], r["fidelity"]["epochs"]) for r in read(path)]
    assert len(order) == len(set(order))
    for id, epochs in order:
        if epochs > 1:
            before = EPOCHS[EPOCHS.index(epochs) - 1]
            assert order.index((id, before)) < order.index((id, epochs))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_without_generations_a_strategy_holds_each_candidate_once_as_it_was_last(
    tmp_path, monkeypatch, num_workers
):
    """And each turn of telling has a key of its own, as has each of asking."""
    tell, propose, told, asked = Teller.tell, Teller.propose, [], []

    def watched(self, turn, records):
        tell(self, turn, records)
        told.append((turn, np.asarray(self._state.population), np.asarray(self._state.fitness)))

    def asked_for(self, turn, *args, **rest):
        asked.append(turn)
        return propose(self, turn, *args, **rest)

    monkeypatch.setattr(Teller, "tell", watched)
    monkeypatch.setattr(Teller, "propose", asked_for)
    path = tmp_path / "ledger.jsonl"
    finish(halving(path, Workers(num_workers)), search_asynchronously)
    assert {len(np.unique(population, axis=0)) for _, population, _ in told} == {8}
    _, population, fitness = told[-1]
    last = {tuple(r["genome"]): [r["objectives"][o.name] for o in OBJECTIVES] for r in read(path)}
    for genome, values in zip(population.tolist(), fitness, strict=True):
        np.testing.assert_array_equal(values, np.array(last[tuple(genome)], np.float32))
    for turns in ([turn for turn, *_ in told], asked):
        assert len(turns) == len(set(turns)) > 20


@pytest.mark.parametrize("epochs", EPOCHS)
@pytest.mark.parametrize("num_workers", [2, 3])
def test_what_was_lost_at_a_rung_is_measured_there_once_more(tmp_path, num_workers, epochs):
    """The best, which would be promoted first if it were not known to have been."""
    path = tmp_path / "ledger.jsonl"
    _, front = finish(halving(tmp_path / "calm", Workers(num_workers)), search_asynchronously)
    best = front[0]["id"]

    def fate(unit):
        return DIED if unit.num_epochs == epochs and unit.id == best else None

    finish(halving(path, Workers(num_workers, fate=fate)), search_asynchronously)
    lost = {r["id"] for r in read(path) if r["status"] == "failed"}
    assert lost == {best}
    s = halving(path, Workers(num_workers))
    events, front = finish(s, search_asynchronously)
    assert s.ledger.num_lost() == 0
    done = [(r["id"], r["fidelity"]["epochs"]) for r in read(path) if r["status"] == "ok"]
    assert len(done) == len(set(done))
    assert {(id, epochs) for id in lost} <= set(done)
    assert [e.num_candidates for e in of_kind(events, GenerationDone)][-1] == TOTAL
    assert front


def test_one_worker_goes_on_from_any_line_after_what_was_lost(tmp_path):
    first, path = tmp_path / "first", tmp_path / "whole"

    def fate(unit):
        return DIED if unit.num_epochs == 3 and int(unit.id, 16) % 2 else None

    finish(halving(first, Workers(1, fate=fate)), search_asynchronously)
    num_lines = 3 + [record["status"] for record in read(first)].index("failed")
    path.write_bytes(b"".join(first.read_bytes().splitlines(keepends=True)[:num_lines]))
    finish(halving(path, Workers(1)), search_asynchronously)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in (num_lines + 1, num_lines + 2, num_lines + 20, len(lines)):
        cut = tmp_path / f"cut-{kept}"
        cut.write_bytes(b"".join(lines[:kept]))
        finish(halving(cut, Workers(1)), search_asynchronously)
        assert cut.read_bytes() == path.read_bytes()


def test_without_generations_checkpoints_stay_only_of_candidates_that_may_go_on(tmp_path):
    def fate(unit):
        return {0: DIED, 1: ("diverged", "loss nan")}.get(int(unit.id, 16) % 7)

    s, may_go_on = halving(tmp_path / "ledger.jsonl", Workers(fate=fate)), set()
    with contextlib.closing(s.ledger):
        for event in search_asynchronously(s):
            if isinstance(event, Measured):
                record = event.record
                is_lost = record["status"] == "failed"
                goes_on = record["status"] == "ok" and record["fidelity"]["epochs"] < 9
                (may_go_on.add if is_lost or goes_on else may_go_on.discard)(record["id"])
                left = {path.stem for path in tmp_path.glob("checkpoints/search/*")}
                assert left == may_go_on
    assert may_go_on
    assert not list(tmp_path.glob("checkpoints/search/*"))


def test_without_generations_whoever_goes_on_last_counts_to_the_last_generation(tmp_path):
    path = tmp_path / "ledger.jsonl"
    s = halving(path, Workers(1))
    s = s._replace(config=dataclasses.replace(s.config, seed=2))
    events, _ = finish(s, search_asynchronously)
    records = read(path)
    assert records[-1]["fidelity"]["epochs"] > 1  # all of the first rung had ended
    generations = [record["generation"] for record in records]
    assert generations == sorted(generations)
    assert set(generations) == set(range(5))
    assert all(1 <= e.num_done <= e.num_total == 8 for e in of_kind(events, Measured))


def test_the_stand_in_learns_with_epochs_and_ranks_change_a_little(tmp_path):
    s = halving(tmp_path / "ledger.jsonl", StandIn())
    archs = [s.feasible.space.decode(c.genome) for c in first_candidates(s, at_least=50)]
    s.ledger.close()
    table = np.array([[accuracy(arch, epochs) for arch in archs] for epochs in EPOCHS])
    assert (np.diff(table, axis=0) > 0).all()
    orders = table.argsort(axis=1)
    assert (orders[0] != orders[-1]).any()
    assert np.corrcoef(table)[0, -1] > 0.95


def test_a_ladder_of_one_rung_promotes_nobody():
    ladder = Ladder(SearchConfig(), OBJECTIVES, FIDELITY)
    values = {"error": 0.5, "params": 1000.0}
    ladder.add(0, [{"id": "a", "status": "ok", "objectives": values}])
    assert ladder.promote_any() is None
    assert ladder.fidelities == [FIDELITY | {"epochs": 3}]
