"""Judging children before they are trained: more are proposed than there is time to train.

A Gaussian process over what the search has measured last, at whatever rung, foresees
what training in full would come to. It goes by the genes and, far more, by what they
make: costs, depth and widths (benchmarks/proxies.py measures how well). What follows
from costs alone is known exactly. Of the proposed children those are trained that would
add the most hypervolume to the front, if they turned out as well as the process holds
possible.

Source: Emmerich, Giannakoglou and Naujoks 2006, "Single- and multiobjective evolutionary
optimization assisted by Gaussian random field metamodels", for evolution with such a
filter; the optimism is Srinivas et al.'s lower confidence bound (2010).
"""

import collections
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from threadpoolctl import threadpool_limits

from deepmaker_jax.arch import ArchSpec, conv_paths, layers
from deepmaker_jax.cost import cost
from deepmaker_jax.evolve.hypervolume import greedy_subset
from deepmaker_jax.ledger import Record, lost
from deepmaker_jax.measurement import value_by_costs
from deepmaker_jax.objective import scaled
from deepmaker_jax.spaces import Space
from deepmaker_jax.tally import objective_values
from deepmaker_jax.types import Genome, Objective

MOST = 400  # latest measurements that the process is fitted to: time grows with their cube
LEAST = 8  # that came through: below, nothing is foreseen
OPTIMISM = 1.0  # standard deviations
EDGE = 1e-3  # scaled values are kept that far from 0 and 1, where their log odds are infinite
# Distances: so many doublings of a size or of the training count like eight genes' whole ranges.
OCTAVES, GENE = 4.0, 1 / 8


class Preselection:
    """What was measured so far, and what it lets one foresee.

    Objectives that can be told from the costs are exact; every other one has a process of
    its own, of the log odds of its scaled value. Once some have failed, another process tells how
    likely that is, and who fails has gained nothing.
    """

    def __init__(self, space: Space, objectives: tuple[Objective, ...], rungs: Sequence[int]):
        """Begins with nothing measured; `rungs` are the epochs at which trainings are measured."""
        self._space, self._objectives, self._rungs = space, objectives, rungs
        self._seen = collections.deque[tuple[np.ndarray, np.ndarray | None]](maxlen=MOST)

    def add(self, rung: int, records: Sequence[Record]) -> None:
        """Takes note of measurements at a rung; what was lost with its worker says nothing."""
        for record in records:
            if not lost(record):
                row = self._features(np.array(record["genome"], np.int32), rung)
                self._seen.append((row, self._values(record)))

    def _values(self, record: Record) -> np.ndarray | None:
        """Returns the scaled objectives, Float[m]; None if it failed."""
        if record["status"] != "ok":
            return None
        values = np.array([objective_values(record, self._objectives)])
        return scaled(values, self._objectives)[0]

    def choose(
        self,
        genomes: Sequence[Genome],
        *,
        num: int,
        front: Sequence[Record],
        pending: Sequence[Genome] = (),
    ) -> list[int]:
        """Returns the rows of the `num` most promising genomes, best first.

        Args:
          genomes: what could be trained.
          num: how many are wanted.
          front: of what was trained in full.
          pending: who is in training; they count as if they had turned out as well as hoped, so
            that what is chosen beside them lies elsewhere.
        """
        if sum(values is not None for _, values in self._seen) < LEAST or len(genomes) <= num:
            return list(range(min(num, len(genomes))))
        values = np.array([objective_values(record, self._objectives) for record in front])
        known = scaled(values.reshape(-1, len(self._objectives)), self._objectives)
        there = len(known) + len(pending)
        table = np.concatenate([known, self.hoped([*pending, *genomes])])
        rows = greedy_subset(table, num=there + num, first=range(there))[there:]
        return [int(i) - there for i in rows]

    def hoped(self, genomes: Sequence[Genome]) -> np.ndarray:
        """Returns scaled objectives of trainings in full, if they go well, Float[n, m]."""
        costs = [cost(self._space.decode(g))._asdict() for g in genomes]
        told = np.array([[value_by_costs(o, c) for o in self._objectives] for c in costs])
        unknown = np.isnan(told)
        # A function of costs that fails for one network fails after its training too: no gain.
        hoped = np.where(unknown, np.inf, scaled(told, self._objectives))
        table = np.stack([self._features(g, len(self._rungs) - 1) for g in genomes])
        seen = np.stack([row for row, _ in self._seen])
        failed = np.array([values is None for _, values in self._seen])
        measured = np.stack([values for _, values in self._seen if values is not None])
        measured = np.clip(measured, EDGE, 1 - EDGE)
        # One thread: sums whose parts the number of cores does not decide, and no thread that waits
        # for a core that trains.
        with threadpool_limits(1):
            foreseen = np.flatnonzero(unknown.all(0))
            for i in foreseen:
                odds = np.log(measured[:, i] / (1 - measured[:, i]))
                process = _process(seen[~failed], odds)
                mean, deviation = map(np.asarray, process.predict(table, return_std=True))
                hoped[:, i] = 1 / (1 + np.exp(OPTIMISM * deviation - mean))
            if failed.any():
                risk = np.clip(_process(seen, failed.astype(float)).predict(table), 0, 1)
                hoped[:, foreseen] = 1 - (1 - hoped[:, foreseen]) * (1 - risk[:, None])
        return hoped

    def _features(self, genome: Genome, rung: int) -> np.ndarray:
        """Returns where a training lies: its genes, costs and length, Float[k]."""
        genes: list[float] = []
        for gene, choice in zip(self._space.genes, genome, strict=True):
            num = len(gene.choices)
            genes += [choice / max(1, num - 1)] if gene.ordered else np.eye(num)[choice].tolist()
        sizes = [*_sizes(self._space.decode(genome)), self._rungs[rung]]
        return np.concatenate([np.array(genes) * GENE, np.log2(sizes) / OCTAVES])


def _sizes(arch: ArchSpec) -> list[float]:
    """Returns what of an architecture says how it trains: costs, depth, widths; each above 0."""
    costs, found = cost(arch), layers(arch)
    convs = [layer for layer in found if layer.op == "conv"]
    return [
        costs.params,
        costs.macs,
        costs.peak_activation_bytes,
        *(*conv_paths(found), len(convs)),
        float(np.mean([conv.shape[-1] for conv in convs])),
        float(np.exp(np.mean(np.log([conv.in_channels for conv in convs])))),
        found[-1].in_channels,  # that the classifier reads
        convs[-1].shape[0],
    ]


def _process(table: np.ndarray, values: np.ndarray) -> GaussianProcessRegressor:
    """Returns a process fitted to values, Float[n], at places, Float[n, k]."""
    kernel = ConstantKernel(1.0) * RBF(1.0, (0.05, 100.0)) + WhiteKernel(0.01, (1e-5, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, alpha=1e-6)
    with warnings.catch_warnings():
        # A length or a noise at its bound is a fit like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(table, values)
