"""The host loop, with a formula instead of training."""

import contextlib
import dataclasses
import functools

import numpy as np
import pytest

from deepmaker_jax.config import Config, LimitConfig, SearchConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.events import GenerationDone, GenerationStarted, Measured, Note
from deepmaker_jax.evolve import NSGA2, RandomSearch
from deepmaker_jax.feasible import make
from deepmaker_jax.ledger import Ledger, read
from deepmaker_jax.measurement import Search
from deepmaker_jax.objective import built_in
from deepmaker_jax.search import search, strategy_scale
from deepmaker_jax.spaces import deepmaker, neuropower
from deepmaker_jax.tally import Tally, objective_values
from deepmaker_jax.types import Objective
from tests.standin import StandIn, StandInTimer

LIMITS = LimitConfig(params=50_000)
OBJECTIVES = (built_in("error", LIMITS), built_in("params", LIMITS))
FIDELITY = {"name": "search", "epochs": 2, "images": 100, "side": 16}


def front_records(records, objectives=OBJECTIVES):
    """Returns those that came through and that nobody dominates, by error, then size, then id."""
    good = [(*objective_values(r, objectives), r["id"], r) for r in records if r["status"] == "ok"]

    def dominates(a, b):
        pairs = list(zip(a[:-2], b[:-2], strict=True))
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    best = [row for row in good if not any(dominates(other, row) for other in good)]
    return [row[-1] for row in sorted(best, key=lambda row: row[:-1])]


@functools.cache
def compiled(strategy, population, num_choices):
    """One instance a shape: each compiles anew."""
    return strategy(
        population,
        np.zeros(len(num_choices), np.int32),
        num_choices=num_choices,
        scale=strategy_scale(OBJECTIVES),
    )


def prepare(path, executor, *, strategy=NSGA2, space=None, seed=0, generations=5, population=8):
    space = space or deepmaker((16, 16, 3), 10)
    settings = SearchConfig(population=population, generations=generations)
    config = Config(seed=seed, limits=LIMITS, search=settings)
    algorithm = compiled(strategy, population, space.num_choices)
    feasible = make(space, LIMITS, spread="params")
    return Search(config, feasible, OBJECTIVES, algorithm, executor, Ledger(path), FIDELITY)


def prepare_timed(path, executor, timer, **rest):
    objectives = (built_in("error", LIMITS), built_in("latency_ms", LIMITS))
    return prepare(path, executor, **rest)._replace(objectives=objectives, timer=timer)


def finish(s, search=search):
    """Runs the search to its end; returns (events, front)."""
    events, loop = [], search(s)
    with contextlib.closing(s.ledger):
        while True:
            try:
                events.append(next(loop))
            except StopIteration as end:
                return events, end.value


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


def bare(records):
    return [{k: v for k, v in r.items() if k not in ("seconds", "sum")} for r in records]


def test_every_candidate_is_new_feasible_and_measured_once(tmp_path):
    s = prepare(tmp_path / "ledger.jsonl", StandIn())
    events, _ = finish(s)
    ids = [event.record["id"] for event in of_kind(events, Measured)]
    assert len(ids) == len(set(ids)) == 5 * 8
    assert [e.num_new for e in of_kind(events, GenerationStarted)] == [8] * 5
    for record in read(s.ledger.path):
        assert cost(s.feasible.space.decode(record["genome"])).params <= 50_000
        assert s.feasible.space.id(record["genome"]) == record["id"]
        assert record["objectives"]["error"] == pytest.approx(
            1 - record["measured"]["val_accuracy"]
        )
        assert record["objectives"]["params"] == record["costs"]["params"]


def test_the_front_is_the_non_dominated_set_of_everything_measured(tmp_path):
    s = prepare(tmp_path / "ledger.jsonl", StandIn())
    _, front = finish(s)
    points = {
        r["id"]: (r["objectives"]["error"], r["costs"]["params"]) for r in read(s.ledger.path)
    }
    best = {
        i
        for i, (e, p) in points.items()
        if not any((a <= e and b <= p) and (a, b) != (e, p) for a, b in points.values())
    }
    assert {record["id"] for record in front} == best
    assert front == sorted(front, key=lambda r: r["objectives"]["error"])


def test_the_tally_of_measurements_one_by_one_is_the_front_of_all(tmp_path):
    """With ties, equal points, failures, in any order."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        tally, records = Tally(OBJECTIVES, FIDELITY), []
        for i, (error, params) in enumerate(rng.integers(1, 9, (40, 2))):
            status = "ok" if rng.uniform() < 0.9 else "failed"
            values = {"error": float(error), "params": float(params)}
            records.append(
                {"id": f"{i:012d}", "status": status, "objectives": values, "fidelity": FIDELITY}
            )
        for record in records:
            tally.add([record])
        assert tally.front == front_records(records)
        assert tally.summary(0).num_candidates == 40


def test_children_name_parents_of_earlier_generations(tmp_path):
    s = prepare(tmp_path / "ledger.jsonl", StandIn())
    finish(s)
    generation = {record["id"]: record["generation"] for record in read(s.ledger.path)}
    assert all(r["parents"] == [] for r in read(s.ledger.path) if r["generation"] == 0)
    children = [r for r in read(s.ledger.path) if r["generation"] > 0 and r["parents"]]
    assert len(children) > 20
    for record in children:
        assert 1 <= len(record["parents"]) <= 2
        assert all(generation[p] < record["generation"] for p in record["parents"])


def test_the_order_of_results_changes_nothing(tmp_path):
    fronts = []
    for name, order in (
        ("a", reversed),
        ("b", list),
        ("c", lambda u: sorted(u, key=lambda x: x.id)),
    ):
        _, front = finish(prepare(tmp_path / name, StandIn(order=order)))
        fronts.append(bare(front))
    assert fronts[0] == fronts[1] == fronts[2]


def test_a_search_that_was_stopped_goes_on_and_pays_nothing_twice(tmp_path):
    _, whole = finish(prepare(tmp_path / "whole", StandIn()))
    for stop in (0, 3, 8, 20, 39):
        path = tmp_path / f"stopped-{stop}"
        stopped = StandIn(stop_after=stop)
        with pytest.raises(KeyboardInterrupt):
            finish(prepare(path, stopped))
        resumed = StandIn()
        _, front = finish(prepare(path, resumed))
        assert bare(front) == bare(whole)
        assert len(stopped.done) + len(resumed.done) == 40
        assert not set(stopped.done) & set(resumed.done)


def test_more_generations_go_on_from_where_it_stood(tmp_path):
    _, whole = finish(prepare(tmp_path / "whole", StandIn()))
    finish(prepare(tmp_path / "grown", StandIn(), generations=3))
    executor = StandIn()
    _, front = finish(prepare(tmp_path / "grown", executor))
    assert bare(front) == bare(whole)
    assert len(executor.done) == 2 * 8


def test_seeds_differ(tmp_path):
    _, first = finish(prepare(tmp_path / "0", StandIn()))
    _, second = finish(prepare(tmp_path / "1", StandIn(), seed=1))
    assert bare(first) != bare(second)


def test_failed_candidates_are_recorded_with_their_reason_and_never_in_the_front(tmp_path):
    _, front = finish(prepare(tmp_path / "a", StandIn()))
    failing = {record["id"] for record in front[:2]}
    s = prepare(tmp_path / "b", StandIn(failing=failing))
    _, other = finish(s)
    failed = [r for r in read(s.ledger.path) if r["id"] in failing]
    assert failed
    assert {(r["status"], r["reason"]) for r in failed} == {("diverged", "loss nan")}
    assert all(r["objectives"] == {"error": None, "params": None} for r in failed)
    assert not failing & {record["id"] for record in other}


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_candidate_without_a_place_on_a_log2_scale_fails_and_the_search_goes_on(tmp_path, value):
    """With preselection too, which fits a process to what was measured."""

    def excess(measured):
        return measured["val_error"] if measured["params"] > 5_000 else value

    mine = Objective("excess", "share", "log2", 1e-3, 1.0, excess)
    s = prepare(tmp_path / "a", StandIn())
    oversampled = dataclasses.replace(s.config.search, oversample=2)
    config = dataclasses.replace(s.config, search=oversampled)
    s = s._replace(config=config, objectives=(OBJECTIVES[0], mine))
    _, front = finish(s)
    records = read(s.ledger.path)
    failed = [r for r in records if r["costs"]["params"] <= 5_000]
    assert 0 < len(failed) < len(records) == 5 * 8
    reason = f"objective excess (={value}) must be above 0 on a log2 scale: make its scale linear"
    assert {(r["status"], r["reason"]) for r in failed} == {("failed", reason)}
    assert front
    assert not {r["id"] for r in failed} & {r["id"] for r in front}


def test_a_candidate_lost_with_its_worker_is_measured_again_on_resume(tmp_path):
    """So the run ends as if the worker had lived; one that diverged stays so."""
    _, whole = finish(prepare(tmp_path / "whole", StandIn()))
    failing = {whole[0]["id"]}
    died = StandIn(failing=failing, failure=("failed", "its worker died (signal 9)"))
    s = prepare(tmp_path / "run", died)
    _, without = finish(s)
    assert s.ledger.num_lost() == len(failing)
    assert not failing & {record["id"] for record in without}
    resumed = StandIn()
    s = prepare(tmp_path / "run", resumed)
    _, front = finish(s)
    assert resumed.done[0] == (whole[0]["id"], "search")
    # Not `bare`: a child that both searches asked for has its first one's generation and parents.
    assert [(r["id"], r["measured"]) for r in front] == [(r["id"], r["measured"]) for r in whole]
    assert s.ledger.num_lost() == 0


def test_a_search_in_which_everything_fails_ends_with_an_empty_front(tmp_path):
    class Failing(StandIn):
        def results(self):
            self._failing = {unit.id for unit in self.units}
            yield from super().results()

    events, front = finish(prepare(tmp_path / "a", Failing()))
    assert front == []
    assert [e.hypervolume for e in of_kind(events, GenerationDone)] == [0.0] * 5


def test_if_nobody_comes_through_the_last_rung_the_front_is_that_of_the_rung_below(tmp_path):
    class Failing(StandIn):
        def submit(self, unit):
            super().submit(unit)
            self._failing = {unit.id for unit in self.units if unit.num_epochs == 9}

    s = prepare(tmp_path / "a", Failing(), generations=2)
    halving = dataclasses.replace(s.config.search, epochs=9, rungs=3)
    s = s._replace(config=dataclasses.replace(s.config, search=halving))
    events, front = finish(s)
    measured = [r for r in read(s.ledger.path) if r["fidelity"]["epochs"] == 3]
    assert len(measured) == 2 * 3
    assert bare(front) == bare(front_records(measured))
    assert [e.front for e in of_kind(events, GenerationDone)] == [[], []]


def test_a_space_with_nothing_left_ends_the_search_early_and_says_so(tmp_path):
    space = neuropower((16, 16, 3), 10).narrow(
        {"optimizer": ("adam",), "depth": (16,), "activation_negative": ("relu",), "blocks": (2,)}
    )
    s = prepare(tmp_path / "a", StandIn(), space=space, population=4)
    s = s._replace(feasible=make(space, LimitConfig(), spread="params"))
    events, _ = finish(s)
    assert [e.num_new for e in of_kind(events, GenerationStarted)] == [4, 1]
    (note,) = of_kind(events, Note)
    assert "has no network left" in note.text
    assert "ends after 2 of 5 generations" in note.text


def test_hypervolume_never_falls_and_beats_random_search(tmp_path):
    final = {}
    for strategy in (NSGA2, RandomSearch):
        volumes = []
        for seed in range(5):
            path = tmp_path / f"{strategy.__name__}{seed}"
            s = prepare(path, StandIn(), strategy=strategy, seed=seed, generations=8, population=16)
            events, _ = finish(s)
            trace = [e.hypervolume for e in of_kind(events, GenerationDone)]
            assert trace == sorted(trace)
            volumes.append(trace[-1])
        final[strategy] = np.median(volumes)
    assert final[NSGA2] > final[RandomSearch]


def test_random_search_is_asked_and_its_draws_are_spread_over_the_sizes(tmp_path, monkeypatch):
    asked, ask = [], RandomSearch.ask

    def counted(self, *args):
        asked.append(self)
        return ask(self, *args)

    monkeypatch.setattr(RandomSearch, "ask", counted)
    s = prepare(tmp_path / "a", StandIn(), strategy=RandomSearch, generations=4, population=16)
    finish(s)
    assert len(asked) >= 3
    ids = [record["id"] for record in read(s.ledger.path)]
    assert len(set(ids)) == len(ids) == 4 * 16
    assert all(record["parents"] == [] for record in read(s.ledger.path))
    sizes = np.sort([r["costs"]["params"] for r in read(s.ledger.path) if r["generation"] > 0])
    assert sizes[-1] <= LIMITS.params
    assert np.median(sizes) < 0.3 * LIMITS.params  # of uniform draws half are at the limit
    assert sizes[0] < 0.05 * LIMITS.params


def latencies(records):
    return [r for r in records if r["fidelity"]["name"] == "latency"]


def test_latency_is_measured_once_before_training_and_kept(tmp_path):
    executor, timer = StandIn(), StandInTimer()
    s = prepare_timed(tmp_path / "a", executor, timer, generations=3)
    events, front = finish(s)
    assert len(timer.timed) == len(set(timer.timed)) == 3 * 8
    assert set(timer.timed) == {id for id, _ in executor.done}
    stages = [(e.stage, e.record["generation"]) for e in of_kind(events, Measured)]
    assert stages == [x for g in range(3) for x in [("latency", g)] * 8 + [("search", g)] * 8]
    clock = {r["id"]: r["measured"]["latency_ms"] for r in latencies(read(s.ledger.path))}
    trained = [r for r in read(s.ledger.path) if r["fidelity"]["name"] == "search"]
    assert {r["id"]: r["objectives"]["latency_ms"] for r in trained} == clock
    assert {r["id"]: r["costs"]["latency_ms"] for r in trained} == clock
    assert len(front) > 1
    for record in latencies(read(s.ledger.path)):
        assert record["objectives"] == {"error": None, "latency_ms": None}


def test_a_search_that_was_stopped_reads_latencies_back(tmp_path):
    """A clock that drifts would give another front if anything were measured again."""
    for stop in (0, 3, 8, 13):
        path = tmp_path / f"stopped-{stop}"
        first, second = StandInTimer(), StandInTimer(drift=0.5)
        with pytest.raises(KeyboardInterrupt):
            finish(prepare_timed(path, StandIn(stop_after=stop), first, generations=3))
        s = prepare_timed(path, StandIn(), second, generations=3)
        _, front = finish(s)
        assert not set(first.timed) & set(second.timed)
        assert len(latencies(read(s.ledger.path))) == len(first.timed) + len(second.timed) == 24
        third = StandInTimer(drift=1.0)
        _, again = finish(prepare_timed(path, StandIn(), third, generations=3))
        assert again == front
        assert third.timed == []


def test_a_candidate_without_a_latency_is_not_trained_and_says_why(tmp_path):
    _, front = finish(prepare_timed(tmp_path / "a", StandIn(), StandInTimer(), generations=2))
    failing = {front[0]["id"]}
    executor = StandIn()
    s = prepare_timed(tmp_path / "b", executor, StandInTimer(failing=failing), generations=2)
    _, other = finish(s)
    assert not failing & {record["id"] for record in other}
    assert not failing & {id for id, _ in executor.done}
    failed = [r for r in read(s.ledger.path) if r["id"] in failing]
    assert [r["fidelity"]["name"] for r in failed] == ["latency", "search"]
    assert {(r["status"], r["reason"]) for r in failed} == {("failed", "no latency: RuntimeError")}


def test_a_latency_lost_with_its_worker_is_measured_again_on_resume(tmp_path):
    s = prepare_timed(tmp_path / "a", StandIn(), StandInTimer(), generations=1)
    finish(s)
    ids = {read(s.ledger.path)[0]["id"]}
    died = StandInTimer(failing=ids, reason="its worker died while its latency was measured")
    finish(prepare_timed(tmp_path / "b", StandIn(), died, generations=1))
    timer, executor = StandInTimer(), StandIn()
    s = prepare_timed(tmp_path / "b", executor, timer, generations=1)
    finish(s)
    assert set(timer.timed) == {id for id, _ in executor.done} == ids
    assert s.ledger.num_lost() == 0


def test_a_busy_machine_is_told(tmp_path):
    timer = StandInTimer(waiting=0.31)
    events, _ = finish(prepare_timed(tmp_path / "a", StandIn(), timer, generations=1))
    (note,) = of_kind(events, Note)
    assert "up to 31%" in note.text
