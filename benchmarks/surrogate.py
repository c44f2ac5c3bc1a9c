"""From a genome to a learning curve: a benchmark that a search can run on in seconds.

    python -m benchmarks.surrogate --curves benchmarks/results/curves.jsonl \\
        --out benchmarks/results/surrogate.json

Fitted to the trainings that `benchmarks.curves` made, as NAS-Bench-301 does (Zela et al. 2022):
costs are exact, accuracy at each rung is predicted by a linear fit and trees, from genes, costs,
widths and paths, and the spread between seeds is drawn around it. Printed: Kendall's tau on
networks that the fit has not seen, for each rung, of five folds, the mean of five ways to draw
these, and of those that a search proposed (benchmarks/results/proposed.json), foreseen from the
others alone; and how far seeds are apart. Five minutes. Features and models are the best of some
twenty, by the folds' tau on the first 83 to 194 of the networks, so that the folds flatter a
little; those that were proposed chose nothing.
"""

import argparse
import functools
import itertools
import json
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.curves import RUNGS, feasible
from benchmarks.record import publish
from deepmaker_jax.arch import ArchSpec, Layer, conv_paths, layers
from deepmaker_jax.cost import cost
from deepmaker_jax.files import load_json, sha256

PROPOSED = pathlib.Path(__file__).parent / "results" / "proposed.json"
FOLDS, SPLITS = 5, 5
SIDES = (32, 16, 8, 4, 2)  # of maps
KINDS = {
    "connectivity": ("full", "harmonic", "window"),
    "activation": ("relu", "relu6", "hard_swish"),
    "stem": ("none", "stride", "pool"),
}


class Curves(NamedTuple):
    """Trainings that went through all rungs.

    Attributes:
      archs: one a training.
      ids: of the candidates.
      seeds: Int[n].
      accuracy: Float[n, rungs], on the validation images.
    """

    archs: list[ArchSpec]
    ids: list[str]
    seeds: np.ndarray
    accuracy: np.ndarray


def load(path: pathlib.Path) -> Curves:
    """Returns the whole trainings of a file that `benchmarks.curves` wrote."""
    space = feasible().space
    found: dict[tuple[str, int], dict] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        if line["status"] == "ok":
            training = found.setdefault((line["id"], line["seed"]), {"genome": line["genome"]})
            training[line["epochs"]] = line["accuracy"]
    whole = {key: t for key, t in found.items() if all(rung in t for rung in RUNGS)}
    return Curves(
        [space.decode(np.array(t["genome"], np.int32)) for t in whole.values()],
        [id for id, _ in whole],
        np.array([seed for _, seed in whole]),
        np.array([[t[rung] for rung in RUNGS] for t in whole.values()]).reshape(-1, len(RUNGS)),
    )


@functools.lru_cache(maxsize=100_000)
def features(arch: ArchSpec) -> np.ndarray:
    """Returns what the fit goes by, Float[k]: genes as they act, costs, widths and paths."""
    costs, found = cost(arch), layers(arch)
    convs = [layer for layer in found if layer.op == "conv"]
    stages = [*arch.stages, *[None] * (4 - len(arch.stages))]
    shortest, longest = conv_paths(found)
    widths, reads = [c.shape[-1] for c in convs], [c.in_channels for c in convs]
    sizes = [
        *(np.log2(getattr(costs, name)) for name in ("params", "macs", "peak_activation_bytes")),
        *np.log2([shortest, longest, len(convs), np.mean(widths), min(widths)]),
        np.mean(np.log2(reads)),
        *np.log2([found[-1].in_channels, convs[-1].shape[0]]),
    ]
    rate = arch.learning_rate_log2
    row = [
        *sizes,
        *(a * b for a, b in itertools.combinations_with_replacement(sizes, 2)),
        *(rate, rate**2),
        *(rate * size for size in sizes),
        *(len(convs), shortest, longest, shortest / longest, np.mean(widths)),
        *(np.log2(1 + sum(_macs(c) for c in convs if c.shape[0] == side)) for side in SIDES),
        *(sum(c.shape[0] == side for c in convs) for side in SIDES),
        len(arch.stages),
        arch.stem_width,
        arch.stages[0].kernel,
        arch.stages[0].bottleneck,
        *(0 if s is None else s.num_layers for s in stages),
        *(0 if s is None else s.growth for s in stages),
        *(0 if s is None else s.compression_percent for s in stages[:3]),
        *(arch.stages[0].connectivity == kind for kind in KINDS["connectivity"]),
        *(arch.activation == kind for kind in KINDS["activation"]),
        *(arch.stem_reduction == kind for kind in KINDS["stem"]),
    ]
    return np.array(row, np.float64)


def _macs(conv: Layer) -> int:
    return math.prod(conv.shape) * conv.kernel**2 * conv.in_channels


def logit(error: np.ndarray) -> np.ndarray:
    """Returns the log odds of an error rate."""
    return np.log(error / (1 - error))


def _boosted() -> GradientBoostingRegressor:
    return GradientBoostingRegressor(
        n_estimators=600, learning_rate=0.03, max_depth=3, subsample=0.5, max_features=0.3,
        random_state=0,
    )  # fmt: skip


class Surrogate:
    """Mean log odds of the error at each rung.

    Half is a linear fit with trees for what it leaves, half boosted trees alone.
    """

    def __init__(self, archs: Sequence[ArchSpec], odds: np.ndarray):
        """Fits to log odds of the error, Float[n, rungs], one row a network."""
        table = np.array([features(arch) for arch in archs])
        self._lines, self._boosted, self._forests = [], [], []
        for rung in odds.T:
            line = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 3, 20)))
            rest = rung - line.fit(table, rung).predict(table)
            forest = ExtraTreesRegressor(n_estimators=300, min_samples_leaf=2, random_state=0)
            self._lines.append(line)
            self._boosted.append([_boosted().fit(table, goal) for goal in (rest, rung)])
            self._forests.append(forest.fit(table, rest))

    def odds(self, archs: Sequence[ArchSpec]) -> np.ndarray:
        """Returns the mean log odds of the error at each rung, Float[n, rungs]."""
        table = np.array([features(arch) for arch in archs])
        # Tree by tree: what the forest does around each costs more than a few rows' answers.
        rows = table.astype(np.float32)
        found = []
        parts = zip(self._lines, self._boosted, self._forests, strict=True)
        for line, (on_rest, alone), forest in parts:
            trees = [tree.tree_.predict(rows)[:, 0] for tree in forest.estimators_]
            rest = np.mean([on_rest.predict(table), np.mean(trees, axis=0)], axis=0)
            found.append(np.mean([line.predict(table) + rest, alone.predict(table)], axis=0))
        return np.stack(found, axis=1)


def by_network(curves: Curves) -> tuple[list[ArchSpec], np.ndarray, np.ndarray]:
    """Returns (networks, mean log odds by rung, what a seed added to them, one row a seed).

    The last of networks with several seeds alone, with the variance that seeds have.
    """
    odds = logit(np.clip(1 - curves.accuracy, 1e-3, 1 - 1e-3))
    rows: dict[str, list[int]] = {}
    for i, id in enumerate(curves.ids):
        rows.setdefault(id, []).append(i)
    means = np.array([odds[r].mean(0) for r in rows.values()])
    archs = [curves.archs[r[0]] for r in rows.values()]
    luck = [
        (odds[r] - odds[r].mean(0)) * math.sqrt(len(r) / (len(r) - 1))
        for r in rows.values()
        if len(r) > 1
    ]
    return archs, means, np.concatenate(luck)


def held_out(archs: Sequence[ArchSpec], odds: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns predictions of each network by a fit that has not seen it, Float[n, rungs]."""
    found = np.empty_like(odds)
    for seen, rest in KFold(FOLDS, shuffle=True, random_state=seed).split(odds):
        model = Surrogate([archs[i] for i in seen], odds[seen])
        found[rest] = model.odds([archs[i] for i in rest])
    return found


def missed(archs: Sequence[ArchSpec], odds: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Returns what the fit misses of networks that it has not seen, a seed's luck apart.

    Args:
      archs: networks, most of them with one seed.
      odds: of their errors, Float[n, rungs].
      luck: what a seed adds to the odds, Float[k, rungs].

    Returns:
      Float[n, rungs]: with the variance that is left when the luck's is taken off.
    """
    found = odds - held_out(archs, odds, seed=0)
    variance, of_seeds = (found**2).mean(0), (luck**2).mean(0)
    return found * np.sqrt(np.maximum(0, 1 - of_seeds / variance))


def tau(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Kendall's tau, to three places."""
    return round(float(kendalltau(a, b)[0]), 3)


def main() -> None:
    """Fits, compares and publishes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    curves = load(args.curves)
    archs, odds, luck = by_network(curves)
    draws = [held_out(archs, odds, seed=seed) for seed in range(SPLITS)]
    genomes = np.array(load_json(PROPOSED)["genomes"], np.int32)
    theirs = {feasible().space.decode(genome) for genome in genomes}
    proposed = np.array([arch in theirs for arch in archs])
    sampled = Surrogate([a for a in archs if a not in theirs], odds[~proposed])
    foreseen = sampled.odds([a for a in archs if a in theirs])
    rows = []
    for k, rung in enumerate(RUNGS):
        taus = [tau(odds[:, k], predicted[:, k]) for predicted in draws]
        error, guess = (1 / (1 + np.exp(-some[:, k])) for some in (odds, draws[0]))
        last = odds[:, -1]
        rows.append(
            {
                "epochs": rung,
                "kendall_tau_held_out": round(float(np.mean(taus)), 3),
                "lowest_and_highest": [min(taus), max(taus)],
                "kendall_tau_proposed": tau(foreseen[:, k], odds[proposed, k]),
                "mean_abs_error_points": round(float(100 * np.abs(error - guess).mean()), 2),
                "kendall_tau_with_last_rung": tau(odds[:, k], last),
                "seed_spread_log_odds": round(float(np.sqrt(np.mean(luck[:, k] ** 2))), 4),
            }
        )
    figures = {
        "curves": sha256(args.curves),
        "networks": len(archs),
        "of_them_proposed": int(proposed.sum()),
    }
    publish(figures | {"trainings": len(curves.ids), "rungs": rows}, args.out)


if __name__ == "__main__":
    main()
