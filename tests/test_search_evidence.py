"""What the benchmarks of searches rest on, and the bars that their figures reach."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from benchmarks import (
    curves,
    inheritance,
    neuropower,
    on_paper,
    record,
    search_methods,
    seed_spread,
)
from benchmarks.curves import RUNGS, feasible
from configs import cifar10
from deepmaker_jax.arch import layers
from deepmaker_jax.files import load_json, sha256
from deepmaker_jax.models import Network
from deepmaker_jax.train.init import init
from tests.examples import SMALL
from tests.test_benchmarks import RESULTS

CURVES = RESULTS / "curves.jsonl"


def test_the_surrogate_is_fitted_to_enough_and_orders_what_it_has_not_seen():
    found = load_json(RESULTS / "surrogate.json")
    assert found["curves"] == sha256(CURVES)
    assert found["networks"] >= 250
    assert found["of_them_proposed"] >= 50
    for row in found["rungs"]:
        assert min(row["kendall_tau_held_out"], row["kendall_tau_proposed"]) >= 0.8
    lines = [json.loads(line) for line in CURVES.read_text().splitlines()]
    assert len({line["id"] for line in lines}) == found["networks"]
    seeds = {line["id"] for line in lines if line["seed"] == curves.SEEDS[-1]}
    assert len(seeds) == curves.NUM_REPEATED
    assert CURVES.stat().st_size < 1_000_000


def test_the_others_have_the_best_settings_that_were_tried_and_ours_are_the_presets():
    tried = {row["method"]: row for row in load_json(RESULTS / "search_tuning.json")["methods"]}
    assert set(tried) == set(search_methods.SETTINGS)
    for name, settings in {
        "NSGA-II": search_methods.PLAIN,
        "regularised evolution": search_methods.AGING,
        "Optuna NSGA-II": search_methods.OPTUNA_NSGA2,
        "Optuna TPE": search_methods.OPTUNA_TPE,
        "pymoo NSGA-II": search_methods.PYMOO_NSGA2,
        "pymoo NSGA-III": search_methods.PYMOO_NSGA3,
    }.items():
        rows = [row for row in tried.values() if row["method"].startswith(f"{name}: ")]
        best = max(rows, key=lambda row: row["hypervolume"])["method"]
        assert best == f"{name}: " + ", ".join(f"{k} {v}" for k, v in settings.items())
    for preset in (cifar10.small, cifar10.night):
        search = preset().search
        assert {name: getattr(search, name) for name in search_methods.OURS} == search_methods.OURS


def test_selection_is_as_good_and_as_fast_as_pymoos():
    for row in load_json(RESULTS / "standard_problems.json")["searches"]:
        assert row["over_pymoo"] >= 0.99, row
    for row in load_json(RESULTS / "sorting.json")["sorts"]:
        assert row["ours_over_pymoo"] <= 2, row


def test_the_spread_over_seeds_is_of_the_demo_as_it_is():
    found = load_json(RESULTS / "seed_spread.json")
    assert found["preset"] == seed_spread.preset()
    assert [row["seed"] for row in found["runs"]] == list(seed_spread.SEEDS)
    assert found["files_equal_with_one_seed"] > 50


def test_going_on_costs_less_than_beginning_and_work_costs_as_much_everywhere():
    prices = on_paper.Prices(CURVES)
    part = feasible()
    first, *_ = [part.space.decode(g) for g in part.sample(np.random.default_rng(0), num=1)]
    one, three, nine = (prices.seconds(first, 0, rung) for rung in RUNGS)
    assert one < three < nine
    assert nine - three == pytest.approx(3 * (three - one))
    assert prices.seconds(first, 3, 9) < nine < one + prices.seconds(first, 1, 9)


class Known:
    """A table in which every network costs a second an epoch and has an error of a half."""

    prices = on_paper.Prices.__new__(on_paper.Prices)

    def __init__(self):
        self.prices.seconds = lambda arch, begun, epochs: epochs - begun

    def odds(self, arch):
        return np.zeros(len(RUNGS))

    def luck(self, arch, seed):
        return np.zeros(len(RUNGS))


def test_a_trainer_on_paper_is_paid_for_what_is_new_and_stops_when_all_is_spent():
    part = feasible()
    one, two = (part.space.decode(g) for g in part.sample(np.random.default_rng(0), num=2))
    trainer = on_paper.Trainer(Known(), 19, 0)
    assert trainer.train(one, 0) == 0.5
    assert trainer.spent == pytest.approx(1 / 19)
    trainer.train(one)
    trainer.train(one)
    assert trainer.spent == pytest.approx(9 / 19)
    assert len(trainer.full) == 2
    trainer.train(two)
    with pytest.raises(on_paper.SpentError):
        trainer.train(dataclasses.replace(two, stem_width=16))


def test_the_curve_is_of_trainings_in_full_and_the_share_of_its_median():
    full = [(0.1, 0.5, 0.6, 1000), (0.5, 0.4, 0.3, 1000)]
    found = on_paper.volumes_by_cost(full, on_paper.OBJECTIVES)
    assert found[3] == 0 < found[4] == found[23] < found[24] == found[-1]
    goal = search_methods.RANDOM[0]
    table = {goal: np.stack([found] * 2), "better": np.stack([found + 1e-3] * 2)}
    rows = search_methods.summary(table | {"worse": table[goal] / 2})["methods"]
    assert [row["cost_share_to"][goal] for row in rows] == [0.5, 0.5, None]
    assert rows[0]["hypervolume"] == round(found[-1], 4)


def test_the_published_sort_goes_by_how_many_dominate_past_the_first_front():
    # The second front is rows 0 and 4; two dominate row 0, as they do row 2 of the third front.
    values = np.array([[4, 1], [0, 1], [2, 4], [2, 0], [1, 3]])
    assert neuropower.sound_order(values) == [1, 3, 0, 4, 2]
    assert neuropower.published_order(values) == [1, 3, 4, 0, 2]
    rng = np.random.default_rng(0)
    for order in (neuropower.sound_order, neuropower.published_order):
        for values in rng.integers(0, 6, (20, 30, 2)):
            assert sorted(order(values)) == list(range(30))


def test_a_child_that_only_grew_computes_what_its_parent_did():
    parent = SMALL
    (stage,) = parent.stages
    grown = dataclasses.replace(stage, growth=12, kernel=5)
    child = dataclasses.replace(parent, stem_width=12, stages=(grown,))
    theirs, fresh = (init(a, seed=s, input_scale=np.ones(1)) for a, s in ((parent, 0), (child, 1)))
    rng = np.random.default_rng(0)
    trained = jax.tree.map(lambda leaf: np.abs(leaf + rng.normal(0, 0.1, leaf.shape)), theirs)
    trained |= {"constants": theirs["constants"]}
    images = rng.uniform(0, 1, (4, *parent.input_shape)).astype(np.float32)
    begun = inheritance.inherit(child, parent, trained, fresh)
    before, after, other = (
        np.asarray(Network(layers(arch)).apply(variables, images))
        for arch, variables in ((parent, trained), (child, begun), (child, fresh))
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    assert not np.allclose(other, before, atol=1e-2)


def _square(number):
    if number > 9:
        raise ValueError("too large")
    return {"square": number**2}


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
    with pytest.raises(RuntimeError, match="of 10 failed"):
        record.train_missing(_square, {"of 10": (10,)}, path, num_workers=1)
