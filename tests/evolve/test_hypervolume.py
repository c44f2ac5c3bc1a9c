"""The hypervolume against inclusion and exclusion over all subsets of points."""

import itertools
import math

import numpy as np
import pytest

from deepmaker_jax.evolve.hypervolume import greedy_subset, hypervolume, subset_beside


def brute_volume(points):
    """Sums, with alternating sign, the boxes that each subset has in common."""
    boxes = [row for row in points if np.isfinite(row).all()]
    volume = 0.0
    for size in range(1, len(boxes) + 1):
        for subset in itertools.combinations(boxes, size):
            edges = np.maximum(1.0 - np.max(subset, axis=0), 0)
            volume += (-1) ** (size + 1) * math.prod(edges)
    return volume


def table(rng, n, m):
    """Draws multiples of 1/8, so that volumes are exact, some past the reference."""
    points = rng.integers(-1, 10, (n, m)) / 8
    points[rng.integers(n)] = points[rng.integers(n)]
    failures = rng.choice([np.nan, np.inf, -np.inf], (n, m))
    return np.where(rng.random((n, m)) < 0.05, failures, points)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_hypervolume_equals_inclusion_exclusion(m):
    rng = np.random.default_rng(m)
    for _ in range(60):
        points = table(rng, 6, m)
        assert hypervolume(points) == pytest.approx(brute_volume(points), abs=1e-12)


def test_hypervolume_is_one_at_the_ideal_and_zero_without_points():
    assert hypervolume([[0.0, 0.0, 0.0]]) == 1.0
    assert hypervolume(np.zeros((0, 3))) == 0.0


def test_points_on_or_past_the_reference_and_failed_rows_add_nothing():
    useless = [[1.0, 0.0], [-5.0, 1.5], [math.nan, 0.0], [-math.inf, 0.0], [0.0, math.inf]]
    assert hypervolume(useless) == 0.0
    assert hypervolume([[0.5, 0.5], *useless]) == 0.25


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_greedy_subset_adds_the_most_volume_at_every_step(m):
    rng = np.random.default_rng(10 + m)
    for _ in range(15):
        points = table(rng, 7, m)
        chosen = greedy_subset(points, num=4).tolist()
        assert len(set(chosen)) == 4
        for step, pick in enumerate(chosen):
            volume = [brute_volume(points[[*chosen[:step], i]]) for i in range(7)]
            rest = [i for i in range(7) if i not in chosen[:step]]
            gain = max(volume[i] for i in rest) - brute_volume(points[chosen[:step]])
            if gain > 0:
                assert pick == max(rest, key=lambda i, volume=volume: (volume[i], -i))
            else:
                failed = ~np.isfinite(points).all(1)
                assert pick == min(rest, key=lambda i, failed=failed: (failed[i], i))


def test_greedy_subset_breaks_ties_by_index_despite_rounding():
    points = np.array([[0.1, 0.7], [0.7, 0.1], [0.1, 0.7], [0.3, 0.3]])
    assert greedy_subset(points, num=4).tolist() == [3, 0, 1, 2]
    assert greedy_subset(points[[1, 0, 2, 3]], num=4).tolist() == [3, 0, 1, 2]


def test_greedy_subset_fills_up_by_index_with_failed_rows_last():
    points = np.array([[math.nan, 0.0], [2.0, 2.0], [0.5, 0.5], [0.5, 0.5], [3.0, 0.0]])
    assert greedy_subset(points, num=9).tolist() == [2, 1, 3, 4, 0]


def test_greedy_subset_goes_on_from_the_first():
    points = np.array([[0.05, 0.97], [0.1, 0.7], [0.7, 0.1], [0.3, 0.3]])
    assert greedy_subset(points, num=3).tolist() == [3, 1, 2]
    assert greedy_subset(points, num=3, first=[0]).tolist() == [0, 3, 2]
    assert greedy_subset(points, num=1, first=[0]).tolist() == [0]
    failed = np.array([[math.nan, 0.0], [0.5, 0.5]])
    assert greedy_subset(failed, num=2, first=[0]).tolist() == [0, 1]


def test_beside_others_the_least_in_the_first_objective_comes_first_unless_it_is_there():
    points = [[0.5, 0.5], [0.1, 0.9999], [0.4, 0.7], [0.7, 0.1], [np.nan, np.nan]]
    assert subset_beside(points, num=2).tolist() == [1, 3]
    assert subset_beside(points, num=2, there=[1]).tolist() == [3, 0]
    assert subset_beside(points, num=2, there=[0]).tolist() == [1, 3]
    assert subset_beside(points, num=9, there=[0, 3]).tolist() == [1, 2, 4]
    assert subset_beside(points, num=0, there=[0]).tolist() == []
    assert subset_beside(points, num=0).tolist() == []
    assert subset_beside(np.zeros((0, 2)), num=3).tolist() == []


def test_greedy_subset_of_nothing_is_empty():
    assert greedy_subset(np.zeros((0, 2)), num=3).tolist() == []
    assert greedy_subset([[0.0, 0.0]], num=0).tolist() == []


def test_wrong_shapes_and_numbers_are_refused():
    with pytest.raises(ValueError, match=r"scaled has shape \(2,\); give rows of objectives"):
        hypervolume([0.5, 0.5])
    with pytest.raises(ValueError, match="num=-1 must not be negative"):
        greedy_subset([[0.5, 0.5]], num=-1)
