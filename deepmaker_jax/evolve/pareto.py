"""Pareto order of points: dominance, fronts, crowding, environmental selection.

Everything is minimised. One rule holds in the whole module: a row with a NaN or
an infinite value is *failed*. Every finite row dominates every failed row; two
failed rows compare with each non-finite value counted as +inf. So (0, inf) does
not belong to a front that holds (1, 1).

Constraints are one more number a row, its total `violation`: 0 where all hold.
A feasible row dominates every infeasible one, of two infeasible ones the less
violated dominates whatever the objectives, and two feasible ones compare as
without constraints (Deb et al. 2002, section VI). A violation that is NaN or
infinite makes a row failed: it comes after the infeasible ones too.

Masks are `valid`, True where the row is real; a padding row neither dominates
nor is dominated, and its values are never looked at.

The functions on JAX arrays compare in the arrays' own precision. In float32,
integers up to 2**24 are exact; larger counts (MACs, say) may tie after rounding,
and devices that flush subnormal numbers take those for 0. `host_rank` and
`front` compare on the host in float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import moocore
import numpy as np

from deepmaker_jax.types import Array


class Survivors(NamedTuple):
    """Rows that environmental selection keeps, the best one first.

    Attributes:
      index: int32[num], into the rows selected from; no index occurs twice.
      rank: int32[num], their `non_dominated_rank` among all rows.
      crowding: Float[num], their `crowding_distance` among all rows.
    """

    index: Array
    rank: Array
    crowding: Array


def dominates(a, b, *, violation=None):
    """Tells whether `a` is nowhere worse than `b` and somewhere better.

    Args:
      a: Float[..., m], minimised, each column in its own unit.
      b: Float[..., m], broadcast against `a`.
      violation: (of a, of b), each Float[...], >= 0, 0 where feasible; NaN or
        infinite: failed. None: all are feasible.

    Returns:
      Bool[...]; False for equal points. A strict partial order, infeasible and
      failed rows (see the module's docstring) included.

    Source: Deb et al. 2002, definition 1 and section VI.
    """
    a_failed, b_failed = ~jnp.isfinite(a).all(-1), ~jnp.isfinite(b).all(-1)
    a = jnp.where(jnp.isfinite(a), a, jnp.inf)
    b = jnp.where(jnp.isfinite(b), b, jnp.inf)
    better = (a <= b).all(-1) & (a < b).any(-1)
    if violation is None:
        return jnp.where(a_failed == b_failed, better, ~a_failed)
    of_a, of_b = violation
    a_failed, b_failed = a_failed | ~jnp.isfinite(of_a), b_failed | ~jnp.isfinite(of_b)
    by_objectives = (a_failed & b_failed) | ((of_a <= 0) & (of_b <= 0))
    better = jnp.where(by_objectives, better, of_a < of_b)
    return jnp.where(a_failed == b_failed, better, ~a_failed)


def non_dominated_rank(fitness, *, valid=None, violation=None):
    """Returns the number of the front that each row belongs to.

    Front 0 is dominated by nothing; front k by nothing but fronts before it.
    Equal rows share a rank, and so do equally violated ones. Infeasible rows
    come after all feasible ones, failed rows last.

    Args:
      fitness: Float[n, m], minimised, each column in its own unit.
      valid: Bool[n], True where the row is a real candidate; None: all are.
      violation: Float[n], >= 0, 0 where feasible; NaN or infinite: failed.
        None: all are feasible.

    Returns:
      int32[n]: 0 is the first front; n (past every real rank) for padding rows.

    Source: Deb et al. 2002, sections III-A and VI.
    """
    fitness = jnp.asarray(fitness)
    num = fitness.shape[0]
    valid = _mask(valid, num)
    if violation is not None:
        violation = jnp.asarray(violation)
        violation = violation[:, None], violation[None, :]
    wins = dominates(fitness[:, None, :], fitness[None, :, :], violation=violation)
    # wins: Bool[winner, loser].
    wins = wins & valid[:, None]  # padding loses to some, but is never ranked

    def peel(carry):
        rank, waiting, num_dominators, level = carry
        front = waiting & (num_dominators == 0)
        freed = jnp.sum(wins & front[:, None], axis=0, dtype=jnp.int32)
        return (
            jnp.where(front, level, rank),
            waiting & ~front,
            num_dominators - freed,
            level + 1,
        )

    start = (
        jnp.full(num, num, jnp.int32),
        valid,
        jnp.sum(wins, axis=0, dtype=jnp.int32),
        jnp.zeros((), jnp.int32),
    )
    # Ends: a strict partial order always leaves an undominated row.
    return jax.lax.while_loop(lambda carry: carry[1].any(), peel, start)[0]


def crowding_distance(scaled, *, rank, valid=None):
    """Returns how far each point's neighbours in its own front are apart.

    Per front and objective, the gap between a point's two neighbours divided by
    the front's extent, summed over the objectives. The first and the last point
    of an objective get +inf; equal values are ordered by index. An objective
    that is constant within a front adds 0; the only point of a front gets +inf.

    Differs from the paper in one point: of equal rows of a front only the first
    takes part, the others get 0, so that copies are dropped first and do not
    lend each other distance.

    Args:
      scaled: Float[n, m], minimised, on the scaled (plotted) axes.
      rank: int32[n], in 0..n-1 for real rows; zeros for a single front.
      valid: Bool[n], True where the row is a real candidate; None: all are.

    Returns:
      Float[n], dimensionless, >= 0 and never NaN; 0 for a row with a non-finite
      scaled value, which counts as nobody's neighbour; -inf for padding rows.

    Source: Deb et al. 2002, section III-B.
    """
    scaled = jnp.asarray(scaled)
    num = scaled.shape[0]
    valid = _mask(valid, num)
    placed = valid & jnp.isfinite(scaled).all(-1)
    # Half of each value: a front's extent then cannot overflow to inf.
    half = jnp.where(placed[:, None], scaled, 0) * 0.5
    group = jnp.where(placed, rank, num)
    placed = placed & ~repeats(half, group[:, None])
    group = jnp.where(placed, group, num)  # group num: all that takes no part
    size = jnp.zeros(num + 1, jnp.int32).at[group].add(1)

    def gaps(column):
        order = jnp.lexsort((column, group))  # stable: ties by index
        front, value = group[order], column[order]
        edge = front[1:] != front[:-1]
        end = jnp.ones(1, bool)
        extreme = jnp.concatenate([end, edge]) | jnp.concatenate([edge, end])
        low = jax.ops.segment_min(column, group, num + 1)[front]
        high = jax.ops.segment_max(column, group, num + 1)[front]
        extent = high - low
        gap = (jnp.roll(value, -1) - jnp.roll(value, 1)) / jnp.where(extent > 0, extent, 1)
        gap = jnp.where(extreme, jnp.inf, gap)
        return jnp.zeros_like(column).at[order].set(jnp.where(extent > 0, gap, 0))

    distance = jax.vmap(gaps, in_axes=1, out_axes=1)(half).sum(-1)
    distance = jnp.where(size[group] == 1, jnp.inf, distance)
    distance = jnp.where(placed, distance, 0)
    return jnp.where(valid, distance, -jnp.inf)


def survivors(fitness, scaled, *, num, valid=None, violation=None):
    """Selects the `num` best rows: by rank, then crowding, then index.

    Args:
      fitness: Float[n, m], minimised, raw values: they decide dominance.
      scaled: Float[n, m], the same on the scaled axes: they decide crowding.
      num: how many rows to keep, 0 to n.
      valid: Bool[n], True where the row is a real candidate; None: all are.
        Padding rows are kept only where real ones do not suffice.
      violation: Float[n], >= 0, 0 where feasible; NaN or infinite: failed.
        None: all are feasible.

    Returns:
      `Survivors`, the best row first.

    Raises:
      ValueError: if num > n.

    Source: Deb et al. 2002, section III-C.
    """
    if num > len(fitness):
        raise ValueError(f"num={num} is more than the {len(fitness)} rows to select from")
    rank = non_dominated_rank(fitness, valid=valid, violation=violation)
    crowding = crowding_distance(scaled, rank=rank, valid=valid)
    index = jnp.lexsort((-crowding, rank))[:num].astype(jnp.int32)
    return Survivors(index, rank[index], crowding[index])


def repeats(*tables):
    """Tells which rows equal an earlier row in every one of the tables.

    Args:
      *tables: arrays [n, ...] of two axes; NaN equals nothing.

    Returns:
      Bool[n], False for the first of equal rows.
    """
    equal = jnp.tril(jnp.ones((len(tables[0]),) * 2, bool), k=-1)  # [row, earlier row]
    for table in tables:
        equal = equal & (table[:, None, :] == table[None, :, :]).all(-1)
    return equal.any(axis=1)


def host_rank(fitness, *, violation=None) -> np.ndarray:
    """Returns `non_dominated_rank` on the host, fast for thousands of rows.

    Args:
      fitness: Float[n, m], minimised, compared in float64.
      violation: Float[n], >= 0, 0 where feasible; NaN or infinite: failed.
        None: all are feasible.

    Returns:
      int64[n], 0 is the first front.
    """
    fitness = np.asarray(fitness, np.float64)
    violation = np.zeros(len(fitness)) if violation is None else np.asarray(violation, np.float64)
    failed = ~(np.isfinite(fitness).all(-1) & np.isfinite(violation))
    feasible = ~failed & (violation <= 0)
    rank, begun = np.zeros(len(fitness), np.int64), 0
    for rows, values in (
        (feasible, fitness),
        (~failed & ~feasible, violation[:, None]),
        (failed, fitness),
    ):
        if not rows.any():
            continue
        points = values[rows]
        if rows is failed:
            # With three or more objectives moocore (0.3) ranks infinite values wrongly.
            points = _places(np.where(np.isfinite(points), points, np.inf))
        rank[rows] = begun + moocore.pareto_rank(points)
        begun = rank[rows].max() + 1
    return rank


def front(fitness) -> np.ndarray:
    """Returns which rows are finite and dominated by no row, on the host.

    Equal rows are all kept: which of them to show is the caller's choice.

    Args:
      fitness: Float[n, m], minimised, compared in float64.

    Returns:
      int64[k], ascending; empty when every row failed.
    """
    finite = np.isfinite(np.asarray(fitness, np.float64)).all(-1)
    return np.flatnonzero((host_rank(fitness) == 0) & finite)


def _places(table):
    """Returns each value's place among its column's distinct values, Float[n, m]."""
    order = np.argsort(table, axis=0)
    values = np.take_along_axis(table, order, axis=0)
    place = np.zeros(table.shape)
    place[1:] = np.cumsum(values[1:] != values[:-1], axis=0)
    found = np.empty(table.shape)
    np.put_along_axis(found, order, place, axis=0)
    return found


def _mask(valid, num):
    return jnp.ones(num, bool) if valid is None else jnp.asarray(valid)
