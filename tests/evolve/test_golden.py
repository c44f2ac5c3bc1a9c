"""Ours equal what pymoo made of thousands of tables: benchmarks/golden_pareto.py wrote it down."""

import pathlib

import jax
import numpy as np
import pytest

from deepmaker_jax.evolve import pareto, reference

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden.npz")
NUM_KEPT = 6


def ranks(points, violation):
    rank = pareto.non_dominated_rank(points)
    constrained = pareto.non_dominated_rank(points, violation=violation)
    return rank, constrained, pareto.crowding_distance(points, rank=rank)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_ranks_and_crowding(m):
    points, violation = (GOLDEN[f"{name}_{m}"].astype(float) for name in ("points", "violation"))
    with jax.enable_x64(True):
        rank, constrained, crowding = map(np.asarray, jax.jit(jax.vmap(ranks))(points, violation))
    np.testing.assert_array_equal(rank, GOLDEN[f"rank_{m}"])
    np.testing.assert_array_equal(constrained, GOLDEN[f"constrained_rank_{m}"])
    expected = GOLDEN[f"crowding_{m}"]
    told = ~np.isnan(expected)
    assert told.mean() > 0.2
    np.testing.assert_allclose(crowding[told], expected[told], rtol=1e-6)
    for table, of_table, known in zip(points, violation, constrained, strict=True):
        np.testing.assert_array_equal(pareto.host_rank(table, violation=of_table), known)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_survivors_of_nsga2(m):
    cases, expected = GOLDEN[f"crowded_{m}"], GOLDEN[f"survivors_{m}"]
    points = GOLDEN[f"points_{m}"][cases].astype(float)

    def select(points):
        return pareto.survivors(points, points, num=NUM_KEPT).index

    with jax.enable_x64(True):
        kept = jax.jit(jax.vmap(select))(points)
    np.testing.assert_array_equal(np.sort(kept, axis=1), expected)
    if m > 1:  # by a single objective nobody is crowded: fronts are of equals
        assert (crowding_decides(GOLDEN[f"rank_{m}"][cases], expected)).sum() > 20


def crowding_decides(rank, kept):
    """Whether not all of the last front that is kept has room, Bool[n]."""
    last = np.take_along_axis(rank, kept.astype(int), axis=1).max(1)
    return (rank <= last[:, None]).sum(1) > NUM_KEPT


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_survivors_of_nsga3(m):
    points = GOLDEN[f"niching_{m}"].astype(float)
    directions = GOLDEN[f"directions_{m}"]

    def select(key, points):
        return reference.survivors(key, points, points, num=NUM_KEPT, directions=directions).index

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), len(points))
        kept = jax.jit(jax.vmap(select))(keys, points)
    np.testing.assert_array_equal(np.sort(kept, axis=1), GOLDEN[f"kept_{m}"])
    rank = np.array([pareto.host_rank(table) for table in points])
    assert crowding_decides(rank, GOLDEN[f"kept_{m}"]).sum() > 60  # where niches decide
