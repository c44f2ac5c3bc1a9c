"""Searches on textbook problems with integer genes: ours and pymoo's NSGA-II.

    python -m benchmarks.standard_problems --out benchmarks/results/standard_problems.json

ZDT1 to 4 and 6 (Zitzler, Deb and Thiele 2000) and DTLZ2 with three objectives (Deb et al. 2002),
each variable on a grid of CHOICES values; and a knapsack with two profits and two capacities, up to
seven pieces of each of 40 kinds. Every search has POPULATION rows and GENERATIONS generations, the
first one included; reported is the hypervolume of its last population up to a fixed reference
point, median and quartiles over SEEDS seeds. Ours run with ordered genes and else their defaults,
pymoo's with its own for NSGA-II (SBX, eta 15; polynomial mutation, eta 20; no duplicates), rounded.
About 5 minutes on one core.
"""

import argparse
import functools
import pathlib
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

from deepmaker_jax.execute import runtime

runtime.one_thread()

import jax  # noqa: E402 - after the thread count
import jax.numpy as jnp  # noqa: E402
import moocore  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.record import publish  # noqa: E402
from deepmaker_jax.evolve import NSGA2, NSGA3, das_dennis  # noqa: E402

CHOICES, POPULATION, GENERATIONS, SEEDS = 1024, 100, 200, 15
PARTITIONS = {2: 99, 3: 12}  # 100 and 91 directions for a population of 100
PIECES, KINDS = 8, 40


class Problem(NamedTuple):
    """A problem on integer genomes.

    Attributes:
      evaluate: from genomes int[n, g] and the module, numpy or jax.numpy, to
        Float[n, m + c]: objectives, then constraints, satisfied where <= 0.
      num_choices: g ints.
      reference: m floats, the worst point that counts.
      num_constraints: c.
    """

    evaluate: Callable[[Any, Any], Any]
    num_choices: tuple[int, ...]
    reference: tuple[float, ...]
    num_constraints: int = 0


def zdt(genomes: Any, xp: Any, *, number: int) -> Any:
    """ZDT1, 2, 3, 4 or 6."""
    x = genomes / (CHOICES - 1)
    first, rest = x[:, 0], x[:, 1:]
    g = 1 + 9 * rest.mean(-1)
    if number == 4:
        wide = 10 * rest - 5
        g = 1 + (10 + wide**2 - 10 * xp.cos(4 * xp.pi * wide)).sum(-1)
    if number == 6:
        first = 1 - xp.exp(-4 * first) * xp.sin(6 * xp.pi * first) ** 6
        g = 1 + 9 * rest.mean(-1) ** 0.25
    share = first / g
    h = 1 - (share**2 if number in (2, 6) else xp.sqrt(share))
    if number == 3:
        h = h - share * xp.sin(10 * xp.pi * first)
    return xp.stack([first, g * h], axis=1)


def dtlz2(genomes: Any, xp: Any) -> Any:
    """DTLZ2 with three objectives.

    Cosines are sines of the rest of the right angle: 0 at the end of the grid, where a cosine is
    -4e-8 in float32. With that all points at the pole are different points of the front, and much
    of NSGA-II's population ends there: pymoo's median falls from 0.71 to 0.64, and ours to 0.66.
    """
    x = genomes / (CHOICES - 1)
    g = 1 + ((x[:, 2:] - 0.5) ** 2).sum(-1)
    sines = [xp.sin(xp.pi / 2 * x[:, k]) for k in (0, 1)]
    cosines = [xp.sin(xp.pi / 2 * (1 - x[:, k])) for k in (0, 1)]
    return xp.stack([g * cosines[0] * cosines[1], g * cosines[0] * sines[1], g * sines[0]], axis=1)


def knapsack(genomes: Any, xp: Any) -> Any:
    """Two profits to be missed by little, two weights of at most 0.4 of all pieces'."""
    table = np.random.default_rng(0).integers(10, 101, (4, KINDS))
    shares = genomes @ xp.asarray((table / (table.sum(1, keepdims=True) * (PIECES - 1))).T)
    return xp.concatenate([1 - shares[:, :2], shares[:, 2:] / 0.4 - 1], axis=1)


def problems() -> dict[str, Problem]:
    """Returns each problem by its name."""
    found = {
        f"ZDT{number}": Problem(
            functools.partial(zdt, number=number),
            (CHOICES,) * (30 if number < 4 else 10),
            (1.1, 1.1),
        )
        for number in (1, 2, 3, 4, 6)
    }
    found["DTLZ2"] = Problem(dtlz2, (CHOICES,) * 12, (1.1, 1.1, 1.1))
    found["knapsack"] = Problem(knapsack, (PIECES,) * KINDS, (1.0, 1.0), num_constraints=2)
    return found


def ours(problem: Problem, kind: str) -> Callable[[int], np.ndarray]:
    """Returns a function from a seed to the last fitness of our search, Float[n, m + c]."""
    num_genes, num_objectives = len(problem.num_choices), len(problem.reference)
    how = {
        "population_size": POPULATION,
        "solution": jnp.zeros(num_genes, jnp.int32),
        "num_choices": problem.num_choices,
        "ordered": (True,) * num_genes,
        "num_constraints": problem.num_constraints,
    }
    if kind == "NSGA-III":
        how["directions"] = das_dennis(num_objectives, PARTITIONS[num_objectives])
    algorithm = NSGA3(**how) if kind == "NSGA-III" else NSGA2(**how)
    params = algorithm.default_params

    @jax.jit
    def run(key):
        draw, begin, rest = jax.random.split(key, 3)
        most = jnp.array(problem.num_choices)[None, :]
        genomes = jax.random.randint(draw, (POPULATION, num_genes), 0, most)
        state = algorithm.init(begin, genomes, problem.evaluate(genomes, jnp), params)

        def generation(state, key):
            ask, tell = jax.random.split(key)
            genomes, state = algorithm.ask(ask, state, params)
            fitness = problem.evaluate(genomes, jnp)
            return algorithm.tell(tell, genomes, fitness, state, params)[0], None

        return jax.lax.scan(generation, state, jax.random.split(rest, GENERATIONS - 1))[0].fitness

    return lambda seed: np.asarray(run(jax.random.key(seed)), np.float64)


def pymoo(problem: Problem, seed: int) -> np.ndarray:
    """Runs pymoo's NSGA-II with a seed; returns its last fitness, Float[n, m + c]."""
    from pymoo.algorithms.moo.nsga2 import NSGA2 as Peer  # noqa: N811 - its name is ours too
    from pymoo.core.problem import Problem as PeerProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    num_objectives = len(problem.reference)

    class Wrapped(PeerProblem):
        def __init__(self):
            most = np.array(problem.num_choices) - 1
            counts = {"n_obj": num_objectives, "n_ieq_constr": problem.num_constraints}
            super().__init__(n_var=len(most), xl=0, xu=most, vtype=int, **counts)

        def _evaluate(self, x, out, *args, **kwargs):
            fitness = problem.evaluate(x, np)
            out["F"] = fitness[:, :num_objectives]
            if problem.num_constraints:
                out["G"] = fitness[:, num_objectives:]

    algorithm = Peer(
        pop_size=POPULATION,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=20, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    last = minimize(Wrapped(), algorithm, ("n_gen", GENERATIONS), seed=seed).pop
    return np.concatenate([last.get("F"), last.get("G")], axis=1)


def volume(problem: Problem, fitness: np.ndarray) -> float:
    """Returns the hypervolume of the feasible rows up to the problem's reference point."""
    num_objectives = len(problem.reference)
    feasible = (fitness[:, num_objectives:] <= 0).all(1)
    points = fitness[feasible, :num_objectives]
    return float(moocore.hypervolume(points, ref=np.array(problem.reference)))


def main() -> None:
    """Runs every search on every problem with every seed and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    for name, problem in problems().items():
        searches = {
            "NSGA-II": ours(problem, "NSGA-II"),
            "NSGA-III": ours(problem, "NSGA-III"),
            "pymoo NSGA-II": functools.partial(pymoo, problem),
        }
        found = {
            search: [volume(problem, run(seed)) for seed in range(SEEDS)]
            for search, run in searches.items()
        }
        peer = float(np.median(found["pymoo NSGA-II"]))
        for search, volumes in found.items():
            low, median, high = np.percentile(volumes, [25, 50, 75])
            rows.append({
                "problem": name, "search": search, "hypervolume": round(float(median), 5),
                "quartiles": [round(float(low), 5), round(float(high), 5)],
                "over_pymoo": round(float(median) / peer, 4),
            })  # fmt: skip
            print(rows[-1], flush=True)
    settings = {
        "choices": CHOICES, "population": POPULATION, "evaluations": POPULATION * GENERATIONS,
        "seeds": SEEDS, "pymoo": version("pymoo"),
        "references": {name: problem.reference for name, problem in problems().items()},
    }  # fmt: skip
    publish(settings | {"searches": rows}, args.out)


if __name__ == "__main__":
    main()
