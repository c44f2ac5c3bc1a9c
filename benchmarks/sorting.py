"""Non-dominated sorting of thousands of points on the host: ours beside pymoo's.

    python -m benchmarks.sorting --out benchmarks/results/sorting.json

NUM points, uniform in the unit cube (many fronts) or on a plane (one front), one thread; the least
of REPEATS turns, the sorts in turn. Ours calls moocore, and so does pymoo 0.6.2; the compiled sort
of its own, which it still ships, is timed beside. A few seconds.
"""

import argparse
import functools
import pathlib
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.record import publish
from deepmaker_jax.evolve import host_rank

NUM, REPEATS = 4000, 20
OBJECTIVES = (2, 3, 4, 5)


def sorts() -> dict[str, Callable[[np.ndarray], Any]]:
    """Returns each sort by its name."""
    from pymoo.functions import is_compiled, load_function
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    if not is_compiled():
        raise SystemExit("pymoo is not compiled here: install a wheel of it")
    return {
        "ours_ms": host_rank,
        "pymoo_ms": functools.partial(NonDominatedSorting().do, return_rank=True),
        "pymoo_compiled_ms": load_function("fast_non_dominated_sort"),
    }


def points(kind: str, num_objectives: int) -> np.ndarray:
    """Returns float64[NUM, m], the same on every call."""
    found = np.random.default_rng(num_objectives).random((NUM, num_objectives))
    return found / found.sum(1, keepdims=True) if kind == "plane" else found


def main() -> None:
    """Times and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows, known = [], sorts()
    for kind in ("cube", "plane"):
        for m in OBJECTIVES:
            table = points(kind, m)
            spent = {name: [] for name in known}
            for _ in range(REPEATS):
                for name, sort in known.items():
                    began = time.perf_counter()
                    sort(table)
                    spent[name].append(1e3 * (time.perf_counter() - began))
            least = {name: round(min(times), 3) for name, times in spent.items()}
            shares = {
                f"ours_over_{name}": round(least["ours_ms"] / least[f"{name}_ms"], 3)
                for name in ("pymoo", "pymoo_compiled")
            }
            rows.append({"points": kind, "objectives": m, **least, **shares})
    publish({"num": NUM, "pymoo": version("pymoo"), "sorts": rows}, args.out)


if __name__ == "__main__":
    main()
