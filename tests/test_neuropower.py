"""NeuroPower's published search beside ours, on networks whose accuracy is made up."""

import numpy as np
import pytest

from benchmarks import neuropower
from deepmaker_jax.cost import cost

PARTS = ("validation", "test")  # of the images


def sizes():
    """Parameters of every network."""
    of = neuropower.space()
    return {g: cost(of.decode(np.array(g))).params for g in neuropower.genomes()}


def test_the_published_sort_goes_by_how_many_dominate_past_the_first_front():
    # The second front is rows 0 and 4; two dominate row 0, as they do row 2 of the third front.
    values = np.array([[4, 1], [0, 1], [2, 4], [2, 0], [1, 3]])
    assert neuropower.sound_order(values) == [1, 3, 0, 4, 2]
    assert neuropower.published_order(values) == [1, 3, 4, 0, 2]
    rng = np.random.default_rng(0)
    for order in (neuropower.sound_order, neuropower.published_order):
        for values in rng.integers(0, 6, (20, 30, 2)):
            assert sorted(order(values)) == list(range(30))


def test_the_first_of_a_search_are_no_larger_than_the_others_of_their_generation():
    rows = {}
    for genome, params in sizes().items():
        rows[genome] = neuropower.Row(params, 0.5 + params / 1e7, 0.5, 0.5 + params / 1e7)
    found = neuropower.ours(rows, 0, by="validation")
    num = neuropower.POPULATION * neuropower.GENERATIONS
    assert len(found.trained) == len(set(found.trained)) == num
    places = np.array([rows[g].params for g in found.trained]).reshape(-1, neuropower.POPULATION)
    halves = places[:, : neuropower.POPULATION // 2].mean(), places.mean()
    assert halves[0] == pytest.approx(halves[1], rel=0.1)
    judged = neuropower.judge(rows, found.trained, "validation")
    assert judged["points_promised_too_much"] == 0
    published = neuropower.published(rows, 0, by="validation")
    assert len(published.trained) == len(set(published.trained)) < num
    first = {*neuropower.first_draws(0)}
    assert first == {*published.trained[: len(first)]} == {*found.trained[: len(first)]}


def test_who_selects_by_test_images_promises_what_others_do_not_keep(monkeypatch):
    """All networks of a size are equally good; which images they are right about is luck."""
    monkeypatch.setattr(neuropower, "SEEDS", 3)
    rng = np.random.default_rng(0)
    networks = {
        genome: neuropower.Trained(
            params, *(rng.uniform(size=neuropower.NUM[part]) < 0.3 + params / 1e7 for part in PARTS)
        )
        for genome, params in sizes().items()
    }
    found = neuropower.summary(networks)
    rows = {(row["method"], row["front_of"]): row for row in found}
    assert len(rows) == len(found) == len(neuropower.METHODS) + 4
    for (name, kind), row in rows.items():
        if name == "published":
            assert (row["above_published"], row["interval"]) == (0, [0, 0])
        if kind == neuropower.FIRST_TRAINED:
            assert len(row["by_populations"]) == row["trained"] // 45
            assert row["by_populations"][0] < row["hypervolume"]
        assert row["points_promised_too_much"] > 1
        if neuropower.METHODS[name][1] == "test":
            assert row["points_test_flatters"] == row["points_promised_too_much"]
        else:
            assert row["points_test_flatters"] < row["points_promised_too_much"] / 2


def test_a_seed_knows_its_own_images_and_the_others_judge():
    right = [np.arange(neuropower.NUM[part]) % 2 == 0 for part in PARTS]
    networks = {(0,): neuropower.Trained(10, *right)}
    one, two = (neuropower.known_to(networks, seed)[0,] for seed in (0, 1))
    assert one != two
    for row in (one, two):
        whole = row.test * neuropower.NUM_SEEN + row.others * 4000
        assert whole == pytest.approx(2500)
        assert abs(row.validation - 0.5) < 0.05


def test_answers_come_back_from_a_table_as_they_were_written(tmp_path, monkeypatch):
    right = {p: np.random.default_rng(0).uniform(size=neuropower.NUM[p]) < 0.3 for p in PARTS}
    line = {"genome": [0, 1], "params": 10}
    line |= {name: neuropower.packed(some) for name, some in right.items()}
    monkeypatch.setattr(neuropower, "train_missing", lambda *words, **rest: [line])
    ((genome, network),) = neuropower.table("", tmp_path, 1).items()
    assert (genome, network.params) == ((0, 1), 10)
    for name, some in right.items():
        np.testing.assert_array_equal(getattr(network, name), some)
