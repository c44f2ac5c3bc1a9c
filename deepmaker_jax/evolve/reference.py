"""Reference directions: survival that spreads rows by where they lie, not by their neighbours.

Points are normalised so that the front's ideal is 0 and its extent 1 along each
objective; each belongs to the niche of the reference direction that it is nearest
to, and of the last front that fits in part the rows of the emptiest niches stay.

Source: Deb and Jain, "An evolutionary many-objective optimization algorithm using
reference-point-based nondominated sorting approach, part I", IEEE TEC 18(4), 2014.
"""

import math
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np

from deepmaker_jax.evolve import pareto

OTHER_AXES = 1e-6  # weight of the other axes in the scalarizing function, section IV-C
DISTANCE_UNIT = 2.0**-20  # normalised; what lies as far on either side ties, whatever rounding says
LEAST_EXTENT = 1e-6  # of an objective, on the scaled axes; below it an intercept says nothing


def das_dennis(num_objectives: int, num_partitions: int) -> np.ndarray:
    """Returns the points of the unit simplex whose coordinates are multiples of 1/num_partitions.

    Args:
      num_objectives: m >= 1.
      num_partitions: p >= 1.

    Returns:
      float64[h, m], h = binomial(m + p - 1, p), >= 0, rows sum to 1, in lexicographic order.

    Raises:
      ValueError: if a number is below 1.

    Source: Das and Dennis 1998; Deb and Jain 2014, section IV-B.
    """
    if min(num_objectives, num_partitions) < 1:
        raise ValueError(
            f"num_objectives={num_objectives} and num_partitions={num_partitions} must be >= 1"
        )
    # Bars between stars: what lies between two bars is one coordinate.
    places = num_partitions + num_objectives - 1
    bars = [(-1, *some, places) for some in combinations(range(places), num_objectives - 1)]
    return (np.diff(bars, axis=1) - 1) / num_partitions


def directions(num_objectives: int, most: int) -> np.ndarray:
    """Returns the finest `das_dennis` of at most `most` directions, or the coarsest of all.

    Args:
      num_objectives: m >= 1.
      most: directions, such as a population's size.

    Returns:
      float64[h, m].
    """
    partitions = 1
    while num_objectives > 1 and math.comb(num_objectives + partitions, partitions + 1) <= most:
        partitions += 1
    return das_dennis(num_objectives, partitions)


def bounds(scaled, *, first, usable, ideal):
    """Returns what is normalised to 0 and to 1: the ideal point and the hyperplane's intercepts.

    The hyperplane goes through the extreme point of each axis. Where it is none, or
    an intercept is not above the ideal, the worst values of the first front stand
    for the intercepts (the paper leaves this open). No intercept is past the
    worst usable value, unlike in the paper: there is nothing to see beyond.

    Args:
      scaled: Float[n, m], minimised, on the scaled axes.
      first: Bool[n], True where the row is usable and of the first front.
      usable: Bool[n], True where the row is real, feasible and finite.
      ideal: Float[m], on the scaled axes, nowhere above a usable row.

    Returns:
      (Float[m], Float[m]); without meaning where no row is usable.

    Source: Deb and Jain 2014, section IV-C and algorithm 2.
    """
    num_objectives = scaled.shape[1]
    above = scaled - ideal[None, :]
    weights = jnp.where(jnp.eye(num_objectives, dtype=bool), 1.0, OTHER_AXES)
    size = (above[:, None, :] / weights[None, :, :]).max(-1)  # Float[row, axis]
    # The least of all rows is in the first front: what dominates is nowhere larger.
    extreme = above[jnp.where(first[:, None], size, jnp.inf).argmin(0)]
    plane = jnp.linalg.solve(extreme, jnp.ones(num_objectives, scaled.dtype))
    intercepts = 1 / plane
    holds = jnp.isclose(extreme @ plane, 1.0, rtol=1e-5, atol=1e-5)
    sound = (holds & (intercepts > LEAST_EXTENT) & jnp.isfinite(intercepts)).all()
    sound = sound & ~pareto.repeats(extreme).any()  # which rounding may hide from `solve`
    worst = jnp.where(usable[:, None], above, -jnp.inf).max(0)
    worst_of_first = jnp.where(first[:, None], above, -jnp.inf).max(0)
    extent = jnp.where(sound, jnp.minimum(intercepts, worst), worst_of_first)
    extent = jnp.where(extent > LEAST_EXTENT, extent, worst)
    return ideal, ideal + jnp.where(extent > 0, extent, 1)


def associate(points, directions):
    """Returns each point's nearest direction and its distance from that line.

    Args:
      points: Float[n, m], normalised.
      directions: Float[h, m], >= 0, none of them 0.

    Returns:
      int32[n], the lowest of equally near directions; Float[n], >= 0, in the
      points' unit, whole multiples of DISTANCE_UNIT.

    Source: Deb and Jain 2014, section IV-D and algorithm 3.
    """
    directions = jnp.asarray(directions, points.dtype)
    unit = directions / jnp.sqrt((directions**2).sum(-1, keepdims=True))
    along = (points[:, None, :] * unit[None, :, :]).sum(-1)
    beside = points[:, None, :] - along[:, :, None] * unit[None, :, :]
    distance = jnp.round(jnp.sqrt((beside**2).sum(-1)) / DISTANCE_UNIT) * DISTANCE_UNIT
    return distance.argmin(1).astype(jnp.int32), distance.min(1)


def level(niche, distance, draw, *, chosen, waiting, num_niches):
    """Returns how full a waiting row's niche is when its turn comes.

    The paper fills niches one row at a time, always an emptiest: first the row
    nearest to the direction if the niche is empty, else a random one. So a row has
    a place in its niche, and rows are taken by what their niche counts before
    them; here all places are found at once.

    Args:
      niche: int32[n], 0..num_niches - 1.
      distance: Float[n], from the niche's direction.
      draw: int32[n], a random permutation: the order within a niche where chance decides.
      chosen: Bool[n], True where the row survives anyway and fills its niche.
      waiting: Bool[n], True where the row waits for a place; not chosen.
      num_niches: h.

    Returns:
      int32[n]; without meaning for rows that do not wait. Rows are taken by this,
      equal ones, of which a niche has one, in a random order of the niches.

    Source: Deb and Jain 2014, section IV-E and algorithm 4.
    """
    count = jnp.zeros(num_niches, jnp.int32).at[niche].add(chosen.astype(jnp.int32))
    rivals = waiting[None, :] & (niche[:, None] == niche[None, :])  # [row, rival]

    def place(key):
        tie = (key[None, :] == key[:, None]) & (draw[None, :] < draw[:, None])
        return jnp.sum(rivals & ((key[None, :] < key[:, None]) | tie), axis=1, dtype=jnp.int32)

    goes_first = (place(distance) == 0) & (count[niche] == 0)
    return count[niche] + place(~goes_first)


def survivors(key, fitness, scaled, *, num, directions, box=None, valid=None, violation=None):
    """Selects `num` rows: by rank, and within the last front that fits by niche.

    Infeasible and failed rows, and those whose scaled values are not finite, fill no
    niche; where a front of them fits in part, the lower index goes first.

    Args:
      key: PRNG key.
      fitness: Float[n, m], minimised, raw values: they decide dominance.
      scaled: Float[n, m], the same on the scaled axes.
      num: how many rows to keep, 1 to n.
      directions: Float[h, m], >= 0, none of them 0.
      box: (low Float[m], high Float[m]) of the scaled axes that is normalised to
        0 and 1. With high None it is found by `bounds`, with low as the least
        value before these rows (inf: none). None: so, and no rows before these.
      valid: Bool[n], True where the row is a real candidate; None: all are.
        Padding rows are kept only where real ones do not suffice.
      violation: Float[n], >= 0, 0 where feasible; NaN or infinite: failed.
        None: all are feasible.

    Returns:
      `Survivors`, by rank; `crowding` is minus the distance from the niche's
      direction, normalised, and -inf for rows that fill no niche.

    Raises:
      ValueError: if num > n.

    Source: Deb and Jain 2014, algorithm 1; constraints: Jain and Deb 2014, part II.
    """
    if num > len(fitness):
        raise ValueError(f"num={num} is more than the {len(fitness)} rows to select from")
    scaled = jnp.asarray(scaled)
    rows = jnp.arange(len(scaled), dtype=jnp.int32)
    rank = pareto.non_dominated_rank(fitness, valid=valid, violation=violation)
    usable = jnp.isfinite(fitness).all(-1) & jnp.isfinite(scaled).all(-1)
    usable = usable if valid is None else usable & valid
    usable = usable if violation is None else usable & (violation <= 0)
    low, high = (jnp.inf, None) if box is None else box
    if high is None:
        low = jnp.minimum(low, jnp.where(usable[:, None], scaled, jnp.inf).min(0))
        low, high = bounds(scaled, first=usable & (rank == 0), usable=usable, ideal=low)
    low, high = jnp.reshape(low, (1, -1)), jnp.reshape(high, (1, -1))
    points = jnp.where(usable[:, None], (scaled - low) / (high - low), 0)
    niche, distance = associate(points, directions)
    last = jnp.sort(rank)[num - 1]
    key_draw, key_turn = jax.random.split(key)
    draw = jax.random.permutation(key_draw, rows)
    turn = jax.random.permutation(key_turn, jnp.arange(len(directions), dtype=jnp.int32))
    waiting = usable & (rank == last)
    levels = level(
        niche,
        distance,
        draw,
        chosen=usable & (rank < last),
        waiting=waiting,
        num_niches=len(directions),
    )
    levels = jnp.where(waiting, levels, jnp.where(rank == last, 2 * len(rows), 0))
    order = jnp.where(waiting, turn[niche], rows)
    index = jnp.lexsort((order, levels, rank))[:num].astype(jnp.int32)
    return pareto.Survivors(index, rank[index], jnp.where(usable, -distance, -jnp.inf)[index])
