"""What the host loop can feed: results a second, and the share of many workers that stands idle.

    python -m benchmarks.many_workers --out benchmarks/results/many_workers.json

First 50 stand-in workers with units of 0.1 s, in real time: what the host loop handles a second,
all included, and once the first population is drawn, which takes some 10 ms a network. Then a
simulation: how long a unit takes is fitted to what 24 networks took on one core for a pass over
CIFAR-10 (population_vs_pytorch.json), seconds over multiply-accumulates, as a worker compiles each
network anew, with what the fit leaves as noise; 10, 100 and 1,000 workers do populations of 45, 300
and 2,000, generational and asynchronous, for 8 generations as DeepMaker's protocol has them (2 of
the largest); and once more 10 and 100 workers do the smallest with preselection, 32 children for
each. The search, the ledger with its fsync, the space and the strategy are the real ones, and what
they need is part of the simulated time. Half an hour on a core that does nothing else.
"""

import argparse
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cluster import Cluster
from benchmarks.record import publish
from deepmaker_jax.asynchronous import search_asynchronously
from deepmaker_jax.config import Config, LimitConfig, SearchConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.events import Measured
from deepmaker_jax.evolve import NSGA2
from deepmaker_jax.execute import Unit
from deepmaker_jax.feasible import make
from deepmaker_jax.files import load_json
from deepmaker_jax.ledger import Ledger
from deepmaker_jax.measurement import Search
from deepmaker_jax.objective import built_in
from deepmaker_jax.search import search, strategy_scale
from deepmaker_jax.spaces import deepmaker

LIMITS = LimitConfig(params=200_000)
UNITS = pathlib.Path(__file__).parent / "results" / "population_vs_pytorch.json"
FIDELITY = {"name": "search", "epochs": 1, "images": 1, "side": 32}
GENERATIONS = {45: 8, 300: 8, 2000: 2}  # by population
MODES = {"generational": search, "asynchronous": search_asynchronously}


@functools.cache
def algorithm(population: int) -> NSGA2:
    """Returns a strategy; each population compiles anew."""
    space = deepmaker((32, 32, 3), 10)
    genome = np.zeros(len(space.genes), np.int32)
    scale = strategy_scale(_objectives())
    return NSGA2(population, genome, num_choices=space.num_choices, scale=scale)


def _objectives():
    return built_in("error", LIMITS), built_in("params", LIMITS)


def prepare(
    cluster: Cluster, path: pathlib.Path, *, population: int, generations: int, oversample: int = 1
) -> Search:
    """Returns a search of the default space whose candidates the cluster answers for."""
    settings = SearchConfig(population=population, generations=generations, oversample=oversample)
    config = Config(limits=LIMITS, search=settings)
    feasible = make(deepmaker((32, 32, 3), 10), LIMITS, spread="params")
    strategy = algorithm(population)
    return Search(config, feasible, _objectives(), strategy, cluster, Ledger(path), FIDELITY)


def measured_units() -> list[tuple[int, float]]:
    """Returns (MACs, seconds, compiling included) of the networks of UNITS."""
    rows = load_json(UNITS)["networks"]
    kinds = ("compile", "train", "eval")
    return [(row["macs"], round(sum(row["ours"][kind] for kind in kinds), 2)) for row in rows]


def seconds_like(units: list[tuple[int, float]]) -> Callable[[Unit], float]:
    """Returns how long units take, fitted to measured ones: a line, and noise around it."""
    macs, seconds = np.array(units, float).T
    line = np.polynomial.Polynomial.fit(macs, seconds, 1)
    noise = np.log(seconds / np.maximum(line(macs), seconds.min()))

    def seconds_of(unit: Unit) -> float:
        drawn = noise[int(unit.id, 16) % len(noise)]
        return float(max(line(cost(unit.arch).macs), seconds.min()) * np.exp(drawn))

    return seconds_of


def go(
    cluster: Cluster, mode: str, *, population: int, generations: int, oversample: int = 1
) -> dict[str, Any]:
    """Returns what a whole search on the cluster came to."""
    with tempfile.TemporaryDirectory() as folder:
        s = prepare(
            cluster, pathlib.Path(folder) / "ledger.jsonl",
            population=population, generations=generations, oversample=oversample,
        )  # fmt: skip
        first = 0.0  # seconds of the host loop before the first result
        for event in MODES[mode](s):
            if not first and isinstance(event, Measured):
                first = cluster.host_seconds
        s.ledger.close()
    rest = cluster.host_seconds - first
    return {
        "workers": cluster.num_workers,
        "population": population,
        "mode": mode,
        "oversample": oversample,
        "results": cluster.num_done,
        "idle_share": round(cluster.idle_share, 4),
        "host_results_per_second": round(cluster.num_done / cluster.host_seconds, 1),
        "host_results_per_second_after_the_draw": round(cluster.num_done / rest, 1),
    }


def main() -> None:
    """Measures, simulates and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    units = measured_units()
    seconds_of, fed, simulated = seconds_like(units), [], []
    for population in (45, 300, 2000):  # compiled before anything is timed
        go(Cluster(1000, lambda _: 1.0), "generational", population=population, generations=2)
    for mode in MODES:
        began = time.perf_counter()
        cluster = Cluster(50, lambda _: 0.1, is_real=True)
        row = go(cluster, mode, population=300, generations=GENERATIONS[300])
        fed.append(row | {"results_per_second": row["results"] / (time.perf_counter() - began)})
        print(fed[-1], flush=True)
    for num_workers in (10, 100, 1000):
        for population in (45, 300, 2000):
            for mode in MODES:
                cluster = Cluster(num_workers, seconds_of)
                generations = GENERATIONS[population]
                row = go(cluster, mode, population=population, generations=generations)
                simulated.append(row)
                print(row, flush=True)
    for num_workers in (10, 100):
        for mode in MODES:
            row = go(
                Cluster(num_workers, seconds_of), mode,
                population=45, generations=GENERATIONS[45], oversample=32,
            )  # fmt: skip
            simulated.append(row)
            print(row, flush=True)
    figures = {"units_of_0.1_seconds": fed, "simulated": simulated, "macs_and_seconds": units}
    publish(figures, args.out)


if __name__ == "__main__":
    main()
