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


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_survivors_of_nsga3(m):
    points = GOLDEN[f"points_{m}"][GOLDEN[f"niching_{m}"]].astype(float)
    directions = GOLDEN[f"directions_{m}"]

    def select(key, points):
        return reference.survivors(key, points, points, num=NUM_KEPT, directions=directions).index

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), len(points))
        kept = jax.jit(jax.vmap(select))(keys, points)
    np.testing.assert_array_equal(np.sort(kept, axis=1), GOLDEN[f"kept_{m}"])
    rank = GOLDEN[f"rank_{m}"][GOLDEN[f"niching_{m}"]]
    last = np.take_along_axis(rank, GOLDEN[f"kept_{m}"].astype(int), axis=1).max(1)
    assert ((rank <= last[:, None]).sum(1) > NUM_KEPT).sum() > 20  # where niches decide
