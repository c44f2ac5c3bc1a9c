"""NeuroPower's published search beside ours, on networks whose accuracy is made up."""

import numpy as np
import pytest

from benchmarks import neuropower
from deepmaker_jax.cost import cost


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
        rows[genome] = neuropower.Row(params, 0.5 + params / 1e7, 0.5 + params / 1e7)
    found = neuropower.ours(rows, 0)
    num = neuropower.POPULATION * neuropower.GENERATIONS
    assert len(found.trained) == len(set(found.trained)) == num
    places = np.array([rows[g].params for g in found.trained]).reshape(-1, neuropower.POPULATION)
    halves = places[:, : neuropower.POPULATION // 2].mean(), places.mean()
    assert halves[0] == pytest.approx(halves[1], rel=0.1)
    judged = neuropower.judge(rows, found.trained)
    assert judged["points_promised_too_much"] == 0
    published = neuropower.published(rows, 0)
    assert len(published.trained) == len(set(published.trained)) < num
    first = {*neuropower.first_draws(0)}
    assert first == {*published.trained[: len(first)]} == {*found.trained[: len(first)]}


def test_who_selects_by_few_images_promises_what_others_do_not_keep(monkeypatch):
    """All networks of a size are equally good; which images they are right about is luck."""
    monkeypatch.setattr(neuropower, "SEEDS", 2)
    rng = np.random.default_rng(0)
    networks = {
        genome: neuropower.Trained(
            params, rng.uniform(size=neuropower.NUM_JUDGING) < 0.3 + params / 1e7
        )
        for genome, params in sizes().items()
    }
    few, many = (neuropower.summary(networks, num) for num in (1000, 10_000))
    assert [row["method"] for row in few] == [*neuropower.METHODS, "all known"]
    for row, with_many in zip(few, many, strict=True):
        assert "above_published" in row["ends_with"] or row["method"] in ("published", "all known")
        for when in row.keys() & with_many.keys() - {"method", "images"}:
            promised = [each[when]["points_promised_too_much"] for each in (row, with_many)]
            assert promised[0] > 2 * promised[1] > 0
    evolved = few[list(neuropower.METHODS).index("NSGA-II")]
    assert evolved["after 90"]["hypervolume"] < evolved["ends_with"]["hypervolume"]
    assert few[-1]["ends_with"]["hypervolume"] >= few[0]["ends_with"]["hypervolume"]


def test_a_seed_knows_its_own_images_and_the_rest_judge():
    right = np.arange(neuropower.NUM_JUDGING) % 2 == 0
    networks = {(0,): neuropower.Trained(10, right)}
    one, two = (neuropower.known_to(networks, seed, 1000)[0,] for seed in (0, 1))
    assert one != two
    for row in (one, two):
        assert row.seen * 1000 + row.others * 19_000 == pytest.approx(10_000)
        assert abs(row.seen - 0.5) < 0.05


def test_answers_come_back_from_their_line_as_they_were():
    right = np.random.default_rng(0).uniform(size=2001) < 0.3
    np.testing.assert_array_equal(neuropower.unpacked(neuropower.packed(right), 2001), right)
