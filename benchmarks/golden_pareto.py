"""Writes tests/evolve/golden.npz: what pymoo makes of thousands of random tables.

    python -m benchmarks.golden_pareto --out tests/evolve/golden.npz

By number of objectives m: ranks and crowding distances, ranks under constraints, and the survivors
of NSGA-II and NSGA-III. Values lie on a coarse grid: there are ties, duplicates and constant
columns; NSGA-III, whose answer then often is a draw's, has as many tables again on a fine one.

Left out, as ours differs on purpose (see modules `pareto` and `reference`) or pymoo's answer is not
one:
- crowding distances of fronts that hold equal rows: ours give all but the first of them 0, pymoo
  lets copies stand beside each other; pymoo also divides by m, which is undone here;
- NSGA-II's survivors where a front that is cut holds equal rows, or where pymoo's draws decide;
- equally violated rows: ours share a rank (as in the paper), pymoo compares their objectives; so
  violations that are not 0 are all different;
- NSGA-III where pymoo's draws decide, which is seen by drawing DRAWS times; where a point lies as
  near to a second direction, or the plane is parallel to an axis, but for rounding; and where two
  axes have one extreme point but pymoo finds a plane through it.
NaN and infinite values are ours alone. A minute.
"""

import argparse
import pathlib

import numpy as np

NUM_ROWS, NUM_CASES, NUM_KEPT, DRAWS = 12, 1000, 6, 16
PARTITIONS = {2: 5, 3: 3, 4: 2, 5: 2}


def tables(rng: np.random.Generator, m: int) -> np.ndarray:
    """Returns int8[NUM_CASES, NUM_ROWS, m] with ties, duplicates and constant columns."""
    shape = (NUM_CASES, NUM_ROWS, m)
    kind = rng.integers(4, size=(NUM_CASES, 1, 1))
    found = np.where(kind == 0, rng.integers(0, 100, shape), rng.integers(0, 6, shape))
    constant = rng.integers(m, size=(NUM_CASES, 1, 1)) == np.arange(m)
    found = np.where((kind == 2) & constant, 3, found)
    copied = np.take_along_axis(found, rng.integers(0, 8, (NUM_CASES, NUM_ROWS, 1)), axis=1)
    return np.where(kind == 3, copied, found).astype(np.int8)


def ranks_and_crowding(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns int8[n] and float32[n], NaN in fronts with equal rows."""
    from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    fronts, rank = NonDominatedSorting().do(points, return_rank=True)
    crowding = np.full(len(points), np.nan, np.float32)
    for rows in fronts:
        if len(np.unique(points[rows], axis=0)) == len(rows):
            distance = get_crowding_function("cd").do(points[rows])
            crowding[rows] = distance * points.shape[1]
    return rank.astype(np.int8), crowding


def crowded(points: np.ndarray) -> list[int] | None:
    """Returns NSGA-II's survivors, ascending; None where there is no one answer."""
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem
    from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    problem, answers = Problem(n_var=1, n_obj=points.shape[1]), set()
    for seed in range(DRAWS):
        some = Population.new("F", points, "row", np.arange(len(points)))
        random = np.random.default_rng(seed)
        kept = RankAndCrowding().do(problem, some, n_survive=NUM_KEPT, random_state=random)
        answers.add(tuple(sorted(map(int, kept.get("row")))))
    (rows,) = answers if len(answers) == 1 else ((),)
    for front in NonDominatedSorting().do(points):
        is_cut = 0 < len(set(front) & set(rows)) < len(front)
        if is_cut and len(np.unique(points[front], axis=0)) < len(front):
            return None
    return list(rows) or None


def constrained_ranks(points: np.ndarray, violation: np.ndarray) -> np.ndarray:
    """Returns int8[n]."""
    from pymoo.functions.standard.non_dominated_sorting import fast_non_dominated_sort
    from pymoo.util.dominator import Dominator

    class Constrained(Dominator):
        def calc_domination_matrix(self, rows):
            pairs = list(zip(rows, violation, strict=True))
            return np.array(
                [[self.get_relation(a, b, of_a, of_b) for b, of_b in pairs] for a, of_a in pairs]
            )

    rank = np.zeros(len(points), np.int8)
    for level, rows in enumerate(fast_non_dominated_sort(points, dominator=Constrained())):
        rank[rows] = level
    return rank


def niching(points: np.ndarray, directions: np.ndarray) -> list[int] | None:
    """Returns NSGA-III's survivors, ascending; None where there is no one answer."""
    from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival, associate_to_niches
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    problem, answers = Problem(n_var=1, n_obj=points.shape[1]), set()
    for seed in range(DRAWS):
        survival = ReferenceDirectionSurvival(directions)
        kept = survival.do(
            problem,
            Population.new("F", points),
            n_survive=NUM_KEPT,
            random_state=np.random.default_rng(seed),
            return_indices=True,
        )
        answers.add(tuple(sorted(map(int, kept))))
    norm = survival.norm
    first = points[NonDominatedSorting().do(points, only_non_dominated_front=True)]
    far = associate_to_niches(points, directions, norm.ideal_point, norm.nadir_point)[2]
    nearest = np.sort(far, axis=1)
    clear = (nearest[:, 1] - nearest[:, 0] > 1e-5).all()
    planar = len(np.unique(norm.extreme_points, axis=0)) == points.shape[1]
    planar |= np.array_equal(norm.nadir_point, first.max(0))
    corners = norm.extreme_points - norm.ideal_point
    slopes = np.linalg.lstsq(corners, np.ones(len(corners)), rcond=None)[0]
    clear &= (np.abs(slopes) > 1e-9).all()  # else rounding decides on which side it meets an axis
    return list(answers.pop()) if len(answers) == 1 and clear and planar else None


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    found: dict[str, np.ndarray] = {}
    for m in range(1, 6):
        rng = np.random.default_rng(m)
        points = tables(rng, m)
        both = [ranks_and_crowding(table.astype(float)) for table in points]
        found[f"points_{m}"] = points
        found[f"rank_{m}"], found[f"crowding_{m}"] = map(np.array, zip(*both, strict=True))
        order = np.argsort(rng.random((NUM_CASES, NUM_ROWS)), axis=1)
        violation = np.maximum(order - rng.integers(-1, NUM_ROWS, (NUM_CASES, 1)), 0).astype(
            np.int8
        )
        found[f"violation_{m}"] = violation
        found[f"constrained_rank_{m}"] = np.array(
            [constrained_ranks(*pair) for pair in zip(points.astype(float), violation, strict=True)]
        )
        kept = [crowded(table.astype(float)) for table in points]
        found[f"crowded_{m}"] = np.array([i for i, rows in enumerate(kept) if rows], np.int16)
        found[f"survivors_{m}"] = np.array([rows for rows in kept if rows], np.int8)
        print(m, len(found[f"survivors_{m}"]), "cases of NSGA-II")
        if m > 1:
            from pymoo.util.ref_dirs import get_reference_directions

            directions = get_reference_directions("das-dennis", m, n_partitions=PARTITIONS[m])
            fine = rng.integers(0, 100, points.shape).astype(np.int8)
            both = np.concatenate([points, fine])
            kept = [niching(table.astype(float), directions) for table in both]
            found[f"directions_{m}"] = directions
            found[f"niching_{m}"] = both[[rows is not None for rows in kept]]
            found[f"kept_{m}"] = np.array([rows for rows in kept if rows], np.int8)
            print(m, len(found[f"kept_{m}"]), "cases of NSGA-III")
    np.savez_compressed(args.out, **found)


if __name__ == "__main__":
    main()
