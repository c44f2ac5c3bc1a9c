"""Hypervolume on the host, exact for any number of objectives, by moocore.

Points are on the scaled axes (`Objective.scaled`): ideal 0, reference 1, so the
reference box has volume 1. Better than the ideal counts in full: a value can
exceed 1 then, which says that the config's ideal point was no bound.

Source of the indicator: Zitzler and Thiele 1998; of the greedy subset:
Guerreiro, Fonseca and Paquete 2016.
"""

from collections.abc import Sequence

import moocore
import numpy as np

# Volumes of the unit box closer than this count as equal: moocore adds float64
# products in an order that depends on the other points.
TIE = 1e-12


def hypervolume(scaled) -> float:
    """Returns the volume that the points dominate, up to the reference, 1 in every objective.

    Args:
      scaled: Float[n, m], minimised, m >= 1. Rows that are NaN or infinite, and
        rows not better than the reference in every objective, add nothing.

    Returns:
      The volume, dimensionless, >= 0; 0.0 without points.

    Raises:
      ValueError: if `scaled` does not have two axes.
    """
    points = _table(scaled)
    bound = np.ones(points.shape[1:])
    points = points[_are_useful(points)]
    return float(moocore.hypervolume(points, ref=bound)) if len(points) else 0.0


def greedy_subset(scaled, *, num, first: Sequence[int] = ()) -> np.ndarray:
    """Picks rows one by one, each adding the most hypervolume to those before.

    Without `first`, the volume of the subset is at least (1 - 1/e) of the best
    subset's, as the hypervolume is submodular. Ties go to the lower index. When no row adds any
    volume, the rest follow by index, failed (NaN or infinite) rows last.

    Args:
      scaled: Float[n, m], minimised; the reference is 1.
      num: how many rows to pick, >= 0.
      first: distinct rows that are picked before all others, whatever they add.

    Returns:
      int64[min(num, n)], distinct, in the order of picking.

    Raises:
      ValueError: if `scaled` does not have two axes, or num < 0.
    """
    points = _table(scaled)
    if num < 0:
        raise ValueError(f"num={num} must not be negative")
    num = min(num, len(points))
    useful = _are_useful(points)
    chosen = list(first)
    gains = np.where(useful, np.inf, -np.inf)
    gains[chosen] = -np.inf
    volume = hypervolume(points[chosen])
    while len(chosen) < num:
        # What a row adds only falls as others are chosen: who added less before is not asked.
        most = -np.inf
        for i in np.argsort(-gains, kind="stable"):
            if gains[i] <= max(TIE, most - 2 * TIE):
                break
            gains[i] = hypervolume(points[[*chosen, i]]) - volume
            most = max(most, gains[i])
        if most <= TIE:
            break
        best = int(np.argmax(gains >= most - TIE))  # the first of a tie
        chosen.append(best)
        volume, gains[best] = volume + gains[best], -np.inf
    failed = ~np.isfinite(points).all(-1)
    order = np.lexsort((np.arange(len(points)), failed))
    fill = order[~np.isin(order, chosen)]
    return np.concatenate([np.asarray(chosen, np.int64), fill])[:num]


def subset_beside(scaled, *, num: int, there: Sequence[int] = ()) -> np.ndarray:
    """Picks rows beside those that are there: the least in the first objective, then greedily.

    The first objective is the error. A network close to a limit on its size, which is the
    reference, adds next to no hypervolume however accurate it is, and yet is what a limit is set
    for: so the most accurate up to the reference is picked first, unless it is there.

    Args:
      scaled: Float[n, m], minimised; the reference is 1.
      num: how many rows to pick, >= 0.
      there: distinct rows that have a part in the volume and are not picked.

    Returns:
      int64[min(num, n - len(there))], distinct, in the order of picking.

    Raises:
      ValueError: if `scaled` does not have two axes, or num < 0.
    """
    points, first = _table(scaled), list(there)
    within = np.flatnonzero(np.isfinite(points).all(-1) & (points <= 1).all(-1))
    if num > 0 and len(within):
        ahead = int(within[np.argmin(points[within, 0])])
        first += [ahead] if ahead not in first else []
    return greedy_subset(points, num=len(there) + num, first=first)[len(there) :]


def _are_useful(points):
    """Returns which rows dominate the reference, Bool[n]."""
    return np.isfinite(points).all(-1) & (points < 1).all(-1)


def _table(scaled):
    points = np.asarray(scaled, np.float64)
    if points.ndim != 2:
        raise ValueError(f"scaled has shape {points.shape}; give rows of objectives, (n, m)")
    return points
