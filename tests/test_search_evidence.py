"""What the benchmarks of searches rest on, and the bars that their figures reach."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import scipy.stats

from benchmarks import (
    curves,
    inheritance,
    on_paper,
    real_search,
    rungs,
    search_methods,
    search_plot,
    seed_spread,
    surrogate,
)
from benchmarks.curves import RUNGS, feasible
from configs import cifar10
from deepmaker_jax.arch import layers
from deepmaker_jax.cost import cost
from deepmaker_jax.files import load_json, sha256
from deepmaker_jax.models import Network
from deepmaker_jax.train.init import init
from tests.examples import SMALL
from tests.test_benchmarks import RESULTS
from tests.tiny import DIGITS

CURVES = RESULTS / "curves.jsonl"
RANGES = ("population", "sample", "first")  # whose best value may lie beyond a grid


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
    tried = load_json(RESULTS / "search_tuning.json")["methods"]
    assert {row["method"] for row in tried} == set(search_methods.SETTINGS)
    kinds = {n + d for n in search_methods.OTHERS for d in ("", search_methods.OUR_DRAWS)}
    assert set(search_methods.BEST) == kinds <= set(search_methods.METHODS)
    for name, words in search_methods.BEST.items():
        rows = [row for row in tried if row["method"].startswith(f"{name}: ")]
        best = next(row["hypervolume"] for row in rows if row["method"] == words)
        assert best == max(row["hypervolume"] for row in rows)
    for preset in (cifar10.small, cifar10.night):
        search = preset().search
        assert {name: getattr(search, name) for name in search_methods.OURS} == search_methods.OURS


def test_no_best_size_of_a_crowd_is_the_greatest_or_the_least_that_was_tried():
    for name, words in search_methods.BEST.items():
        grid = search_methods.grids()[name.removesuffix(search_methods.OUR_DRAWS)]
        for part in words.partition(": ")[2].split(", "):
            key, value = part.split()
            if key in RANGES:
                at_an_end = int(value) in (min(grid[key]), max(grid[key]))
                assert not at_an_end or int(value) > search_methods.NUM_FULL, words


def test_what_readme_says_of_the_search_is_what_was_measured():
    """Ours ends above every other; the interval of the medians' difference holds no 0."""
    found, rough = (load_json(RESULTS / f"search_methods{end}.json") for end in ("", "_rough"))
    assert (found["rough"], rough["rough"]) == (False, True)
    others = {*search_methods.RANDOM, *search_methods.BEST}
    for document in (found, rough):
        assert document["seeds"] == len(search_methods.SEEDS)
        assert set(document["settings"]) == set(search_methods.BEST.values())
        rows = {row["method"]: row for row in document["methods"]}
        assert others | {"ours"} <= set(rows) <= set(search_methods.METHODS)
        for name in others:
            assert rows[name]["ours_above_by"]["interval"][0] > 0, name
    assert {row["method"] for row in found["methods"]} == set(search_methods.METHODS)
    readme = (RESULTS.parents[1] / "README.md").read_text()
    lines = search_plot.table(found)
    assert len(lines) == 2 + 6 + len(search_methods.RANDOM) + len(search_methods.BEST)
    assert "\n".join(lines) in readme


def test_selection_is_as_good_and_as_fast_as_pymoos():
    for row in load_json(RESULTS / "standard_problems.json")["searches"]:
        assert row["over_pymoo"] >= 0.99, row
    for row in load_json(RESULTS / "sorting.json")["sorts"]:
        assert row["ours_over_pymoo"] <= 2, row
        assert row["ours_over_pymoo_compiled"] <= 2, row


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
    assert [row["cost_share_to"][goal]["value"] for row in rows] == [0.5, 0.5, None]
    assert [row["cost_share_to"][goal]["interval"] for row in rows] == 2 * [[0.5, 0.5]] + [
        [None] * 2
    ]
    assert rows[0]["hypervolume"] == round(found[-1], 4)
    fallen = found + 1e-3
    fallen[40] = 0  # what was believed to be the front was not: reached is what lasts
    rows = search_methods.summary(table | {"fallen": np.stack([fallen] * 2)})["methods"]
    assert rows[-1]["cost_share_to"][goal]["value"] == 42 / on_paper.POINTS


def test_methods_are_compared_on_the_same_seeds():
    rng = np.random.default_rng(0)
    ours = np.tile(rng.normal(0.5, 0.05, (30, 1)), on_paper.POINTS)
    rows = search_methods.summary({"ours": ours, "behind": ours - 0.01})["methods"]
    assert "ours_above_by" not in rows[0]
    assert rows[1]["ours_above_by"] == {"value": 0.01, "interval": [0.01, 0.01]}
    low, high = rows[1]["quartiles"]
    assert high - low > 0.03
    rows = search_methods.summary({"ours": ours, "another": rng.permutation(ours)})["methods"]
    low, high = rows[1]["ours_above_by"]["interval"]
    assert low < 0 < high


def test_a_real_search_is_told_with_each_of_its_seeds():
    first, second = search_methods.RANDOM
    points = on_paper.POINTS
    rows = [
        {"method": method, "volumes": [0.0] * (points - 2) + [value, value + 0.1],
         "trained_in_full": 5}
        for method, values in ((first, (0.1, 0.2, 0.3)), (second, (0.4, 0.3, 0.2)))
        for value in values
    ]  # fmt: skip
    one, two = real_search.summary(rows)["methods"]
    assert one["hypervolumes"] == pytest.approx([0.2, 0.3, 0.4])
    assert two["by_cost"][-3:] == pytest.approx([0, 0.3, 0.4])
    assert two["range_by_cost"][-3:] == [[0, 0], [0.2, 0.4], [0.3, 0.5]]
    assert two["cost_share_to"] == {first: (points - 1) / points, second: 1}
    assert one["cost_share_to"] == {first: 1, second: None}


def test_what_a_surrogate_misses_is_of_the_network_and_no_luck_of_a_seed(monkeypatch):
    archs = [SMALL] * 400
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.3, (2000, 3))
    odds = rng.normal(0, [0.5, 0.4, 0.1], (400, 3))  # as if foreseen as 0, luck included
    monkeypatch.setattr(surrogate, "held_out", lambda archs, odds, seed: np.zeros_like(odds))
    left = surrogate.missed(archs, odds, luck).std(0)
    np.testing.assert_allclose(left, [0.4, 0.07**0.5, 0], rtol=0.15, atol=1e-9)


def test_a_rough_table_is_the_smooth_one_with_what_another_network_was_missed_by(monkeypatch):
    monkeypatch.setattr(surrogate.Surrogate, "__init__", lambda self, archs, odds: None)
    monkeypatch.setattr(surrogate.Surrogate, "odds", lambda self, archs: np.zeros((1, len(RUNGS))))
    missed = np.random.default_rng(0).normal(size=(50, len(RUNGS)))
    monkeypatch.setattr(surrogate, "missed", lambda archs, odds, luck: missed)
    part = feasible()
    archs = [part.space.decode(g) for g in part.sample(np.random.default_rng(0), num=5)]
    one, again = (on_paper.Table(CURVES, rough=True) for _ in range(2))
    smooth = on_paper.Table(CURVES)
    found = {tuple(one.odds(arch)) for arch in archs}
    assert len(found) > 1
    assert found <= set(map(tuple, missed))
    assert found == {tuple(again.odds(arch)) for arch in archs}
    assert all((smooth.odds(arch) == 0).all() for arch in archs)


def test_inheritance_is_judged_by_the_difference_within_the_same_families():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 0.8, 48)
    rows = [
        {"parent": f"{i // 4}", "parent_accuracy": i // 4 / 12, "params": i, "macs": i, "truth": t,
         "inherited_1": t + 0.1, "inherited_3": t, "scratch_1": rng.uniform(),
         "scratch_3": t if i else None}
        for i, t in enumerate(truth)
    ]  # fmt: skip
    summary = inheritance.summary(rows)
    assert summary["diverged"] == {
        "scratch_1": 0, "scratch_3": 1, "inherited_1": 0, "inherited_3": 0, "truth": 0
    }  # fmt: skip
    found = {row["measured"]: row for row in summary["measurements"]}
    assert abs(found["parent_accuracy"]["tau"]["value"]) < 0.4
    assert found["inherited_1"]["tau"] == {"value": 1, "interval": [1, 1]}
    same, across, _ = summary["gains"]
    assert (across["of"], across["beside"]) == ("inherited_1", "scratch_3")
    assert same["tau_of_siblings"]["interval"][0] > 0.5
    assert same["tau_of_siblings"]["value"] == pytest.approx(
        1 - found["scratch_1"]["tau_of_siblings"]["value"]
    )
    assert 0 < across["tau"]["value"] < same["tau"]["value"]
    assert found["inherited_1"]["accuracy"]["value"] == pytest.approx(truth.mean() + 0.1, abs=1e-3)
    assert found["scratch_3"]["tau"]["value"] < found["inherited_3"]["tau"]["value"] == 1


def test_a_jackknife_of_a_mean_is_its_t_interval():
    values = np.random.default_rng(0).normal(size=12)
    families = [np.array([i]) for i in range(12)]
    found = inheritance.jackknifed(inheritance.mean_accuracy, families, values, values)
    expected = scipy.stats.t.interval(0.9, 11, values.mean(), scipy.stats.sem(values))
    assert found["interval"] == pytest.approx(expected, abs=1e-3)


def test_a_rung_gains_by_the_tau_that_it_has_more():
    truth = np.arange(30.0)
    luck = np.random.default_rng(0).permutation(30.0 * np.ones(30).cumsum())
    found = rungs.gain(truth**2, luck, truth)
    assert found["more"] == pytest.approx(1 - rungs.tau(luck, truth), abs=1e-3)
    assert 0 < found["interval"][0] < found["more"] < found["interval"][1]


def test_a_rung_is_worth_what_it_says_beyond_what_is_known_before():
    rng = np.random.default_rng(0)
    costs, own = rng.uniform(size=(40, 2)), rng.normal(size=40)

    def accuracy(odds):
        return 1 / (1 + np.exp(-odds))

    truth = accuracy(4 * costs[:, 0] + 0.4 * own)
    by_size = accuracy(4 * costs[:, 0] + 0.4 * rng.normal(size=40))
    found = {rungs.TODAY: by_size, "an epoch": truth}
    guess = 4 * costs[:, :1] + 0.4 * own[:, None] + rng.normal(0, 0.2, (40, 1))
    today, epoch, none, best = rungs.summary(found, truth, {"costs": costs, "surrogate": guess})
    assert (today["rung"], today["work"], epoch["work"], none["work"]) == ("today", 1, 0.333, 0)
    assert epoch["tau"] == epoch["beyond_costs"] == epoch["beyond_surrogate"] == 1
    assert today["tau"] > none["tau"] - 0.1 > 0.5 > today["beyond_costs"]
    assert epoch["more_beyond_costs"]["more"] > epoch["more_tau"]["more"] > 0
    assert best["tau"] > none["tau"]


def test_rungs_of_smaller_images_are_tried_on_networks_that_the_space_has_for_them():
    found, shape = surrogate.load(CURVES), (16, 16, 3)
    of = rungs.chosen(found, feasible().space)
    assert len(of) == len({found.ids[i] for i in of}) == 2 * rungs.NUM
    smaller = feasible(shape).space
    for i in of:
        assert found.seeds[i] == 0
        arch = dataclasses.replace(found.archs[i], input_shape=shape)
        assert smaller.decode(smaller.encode(arch)) == arch
    assert not all(rungs.is_comparable(arch) for arch in found.archs)


def test_a_real_search_is_judged_by_images_of_its_own_and_needs_a_core(tmp_path, monkeypatch):
    monkeypatch.setattr(real_search, "RUNGS", (1, 2))
    monkeypatch.setattr(real_search, "NUM_IMAGES", 300)
    monkeypatch.setattr(real_search, "NUM_JUDGED", 400)
    monkeypatch.setattr(real_search.data_module, "load", lambda name, path: DIGITS)
    trainer = real_search.Trainer("", tmp_path, seed=0, seconds=600, rungs=(2,))
    (genome,) = trainer.feasible.sample(np.random.default_rng(0), num=1)
    arch = trainer.feasible.space.decode(genome)
    first, error = trainer.train(arch, 0), trainer.train(arch, 1)
    assert 0 < error < 1
    assert first != error
    ((share, told, judged, params),) = trainer.full
    assert (told, params) == (error, cost(arch).params)
    assert 0 < judged < 1
    assert judged != error
    assert 0 < share < 1
    used = {*trainer._task.search_rows, *trainer._task.validation_rows}
    assert len(trainer._judging.labels) == 400
    images = {image.tobytes() for image in DIGITS.train_images[sorted(used)]}
    assert not images & {image.tobytes() for image in trainer._judging.images}
    trainer._seconds = 1e-9
    with pytest.raises(on_paper.SpentError):
        trainer._check()
    trainer._began -= 1000
    with pytest.raises(RuntimeError, match="of a core"):
        trainer._check()


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


def test_a_layer_that_knows_nothing_of_what_it_reads_begins_anew():
    parent = dataclasses.replace(SMALL, stages=SMALL.stages * 2)
    child = dataclasses.replace(parent, stages=(SMALL.stages[0],))
    theirs, fresh = (init(a, seed=s, input_scale=np.ones(1)) for a, s in ((parent, 0), (child, 1)))
    trained = jax.tree.map(lambda leaf: leaf + 1, theirs)
    begun = inheritance.inherit(child, parent, trained, fresh)
    ours, known = inheritance.channels(child), inheritance.channels(parent)
    is_new = {name: known[name] and not {*read} & {*known[name]} for name, read in ours.items()}
    assert is_new["logits"]
    for layer in layers(child):
        for name in (layer.name, f"{layer.name}_bn"):
            for key, leaf in begun["params"].get(name, {}).items():
                assert np.array_equal(leaf, fresh["params"][name][key]) == is_new[layer.name]
