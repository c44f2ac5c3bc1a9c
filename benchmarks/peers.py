"""Other searches than ours, which ask a trainer (of `on_paper` or `real_search`) until it stops.

A trainer has `feasible`, `objectives` and `train(arch, rung)`, which returns an error and raises
once the budget is spent; each search here raises what it raises. First draws are uniform over the
genes, or with `our_draws` of our sampler, whose sizes are spread. Genes whose choices have an order
are integers for who knows such, all others categories. Settings are the best of those in
benchmarks/results/search_tuning.json, for both kinds of first draws.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from deepmaker_jax.cost import cost
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.objective import scaled
from deepmaker_jax.search import stream
from deepmaker_jax.spaces.table import Gene
from deepmaker_jax.types import Genome

CROSSOVER_SHARE = 0.9  # of pymoo's pairs, as ours has it


class Uniform(Feasible):
    """Networks whose sizes are as uniform draws from the genes have them."""

    def sample(
        self,
        rng: np.random.Generator,
        *,
        num: int,
        known: Collection[str] = (),
        chosen: Collection[str] = (),
        draws: Iterator[Genome] | None = None,
    ) -> list[Genome]:
        """Returns genomes that are drawn again until they are within the limits."""
        found: dict[str, Genome] = {}
        while len(found) < num:
            genome = self.space.sample(rng, num=1)[0] if draws is None else next(draws)
            name = self.space.id(genome)
            if self.allows(genome) and name not in known and name not in chosen:
                found[name] = genome
        return list(found.values())


def uniformly(part: Feasible) -> Uniform:
    """Returns the same networks, drawn uniformly."""
    return Uniform(part.space, part.limits, part.spread)


def uniform(trainer: Any, seed: int) -> None:
    """Uniform draws from the genes, those beyond the limits rejected: what others call random.

    Args:
      trainer: of the networks.
      seed: of the draws.
    """
    part, rng = trainer.feasible, np.random.default_rng(seed)
    while True:
        genome = part.space.repair(part.space.sample(rng, num=1)[0])
        if part.allows(genome):
            trainer.train(part.space.decode(genome))


def aging(
    trainer: Any,
    seed: int,
    *,
    population: int,
    sample: int,
    differs: bool = False,
    our_draws: bool = False,
) -> None:
    """Regularised evolution (Real et al. 2019) of a weighted sum; each step draws its weights.

    A mutation that changes a gene without effect, or to what it was, is for nothing, as the
    network is known.

    Args:
      trainer: of the networks.
      seed: of the draws.
      population: how many live.
      sample: of these, who may be a parent.
      differs: such a mutation is drawn again until the child is another network.
      our_draws: begins with draws of our sampler.
    """
    part, rng = trainer.feasible, np.random.default_rng(seed)
    alive: list[tuple[np.ndarray, np.ndarray]] = []

    def measure(genome: np.ndarray) -> None:
        arch = part.space.decode(genome)
        values = np.array([[trainer.train(arch), cost(arch).params]])
        alive.append((genome, scaled(values, trainer.objectives)[0]))

    for genome in (part if our_draws else uniformly(part)).sample(rng, num=population):
        measure(genome)
    while True:
        rows = rng.choice(len(alive), sample, replace=False)
        weight = rng.uniform()
        weights = np.array([weight, 1 - weight])
        parent = min((alive[i] for i in rows), key=lambda one: float(one[1] @ weights))[0]
        child = parent.copy()
        i = rng.integers(len(child))
        child[i] = rng.integers(part.space.num_choices[i])
        child = part.shrink(rng, child)
        is_same = child is not None and part.space.id(child) == part.space.id(parent)
        if child is not None and not (differs and is_same):
            measure(child)
            alive.pop(0)


def first_draws(part: Feasible, seed: int, *, num: int) -> list[Genome]:
    """Returns a first population of our sampler's, whose sizes are spread."""
    return part.sample(stream(seed, 0), num=num)


def judge(trainer: Any, genome: Genome) -> tuple[np.ndarray, float]:
    """Returns what others minimise, Float[2], and what they keep at most 0: excess over the limits.

    What is beyond the limits is not trained, and counts as always wrong.
    """
    part = trainer.feasible
    genome = part.space.repair(genome)
    excess, arch = part.excess(genome), part.space.decode(genome)
    error = 1.0 if excess > 1 else trainer.train(arch)
    values = np.array([[error, cost(arch).params]])
    return scaled(values, trainer.objectives)[0], excess - 1


def optuna(
    trainer: Any, seed: int, *, sampler: str, first: int, our_draws: bool = False, **settings: Any
) -> None:
    """Optuna's multi-objective samplers; networks beyond the limits are constraints, for free.

    Args:
      trainer: of the networks.
      seed: of the draws.
      sampler: "nsga2" or "tpe".
      first: of NSGA-II the size of the population, of TPE the random trials at the beginning.
      our_draws: these are of our sampler.
      **settings: the sampler's.
    """
    import optuna as package

    part = trainer.feasible
    package.logging.set_verbosity(package.logging.ERROR)
    kind, name = {
        "nsga2": (package.samplers.NSGAIISampler, "population_size"),
        "tpe": (package.samplers.TPESampler, "n_startup_trials"),
    }[sampler]
    study = package.create_study(
        directions=["minimize", "minimize"], sampler=kind(seed=seed, **{name: first}, **settings)
    )
    names = [gene.name for gene in part.space.genes]
    for genome in first_draws(part, seed, num=first) if our_draws else ():
        study.enqueue_trial(dict(zip(names, map(int, genome), strict=True)))

    def objective(trial: Any) -> tuple[float, float]:
        genome = np.array([suggest(trial, gene) for gene in part.space.genes])
        values, excess = judge(trainer, genome)
        trial.set_constraint("excess", excess)
        return tuple(values.tolist())

    study.optimize(objective, n_trials=None)


def suggest(trial: Any, gene: Gene) -> int:
    """Returns the choice of a gene that an Optuna trial suggests."""
    num = len(gene.choices)
    if gene.ordered:
        return trial.suggest_int(gene.name, 0, num - 1)
    return trial.suggest_categorical(gene.name, range(num))


def pymoo(
    trainer: Any, seed: int, *, kind: str, population: int, eta: float, our_draws: bool = False
) -> None:
    """pymoo's NSGA-II and NSGA-III, its operators for mixed variables and its constraints.

    Each category mutates with a probability of one by the number of genes, where pymoo's default
    is one in two. Integers mutate less: in nine of ten children, and what is drawn is often rounded
    to what was there.

    Args:
      trainer: of the networks.
      seed: of the draws.
      kind: "nsga2" or "nsga3".
      population: its size; of NSGA-III the number of directions too.
      eta: of the crossover and the mutation of integers: the greater, the nearer are children.
      our_draws: begins with a population of our sampler's.
    """
    from pymoo.algorithms.moo import nsga2, nsga3
    from pymoo.core.mixed import (
        MixedVariableDuplicateElimination,
        MixedVariableMating,
        MixedVariableSampling,
    )
    from pymoo.core.population import Population
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.core.variable import Choice, Integer
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.mutation.rm import ChoiceRandomMutation
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.selection.tournament import TournamentSelection
    from pymoo.optimize import minimize
    from pymoo.util.ref_dirs import get_reference_directions

    part, rounded = trainer.feasible, {"vtype": float, "repair": RoundingRepair()}
    names, rate = [gene.name for gene in part.space.genes], 1 / len(part.space.genes)
    compare = nsga2.binary_tournament if kind == "nsga2" else nsga3.comp_by_cv_then_random

    class Problem(ElementwiseProblem):
        def __init__(self):
            kinds = {
                gene.name: Integer(bounds=(0, len(gene.choices) - 1))
                if gene.ordered
                else Choice(options=list(range(len(gene.choices))))
                for gene in part.space.genes
            }
            super().__init__(vars=kinds, n_obj=2, n_ieq_constr=1)

        def _evaluate(self, x, out, *args, **kwargs):
            out["F"], out["G"] = judge(trainer, np.array([x[name] for name in names], np.int32))

    def as_variables(genome: Genome) -> dict[str, int]:
        return dict(zip(names, map(int, genome), strict=True))

    how = {
        "pop_size": population,
        "sampling": MixedVariableSampling(),
        "mating": MixedVariableMating(
            selection=TournamentSelection(func_comp=compare),
            crossover={
                Integer: SBX(prob=CROSSOVER_SHARE, eta=eta, **rounded),
                Choice: UX(prob=CROSSOVER_SHARE),
            },
            mutation={
                Integer: PM(eta=eta, prob_var=rate, **rounded),
                Choice: ChoiceRandomMutation(prob_var=rate),
            },
            eliminate_duplicates=MixedVariableDuplicateElimination(),
        ),
        "eliminate_duplicates": MixedVariableDuplicateElimination(),
    }
    if our_draws:
        draws = first_draws(part, seed, num=population)
        how["sampling"] = Population.new(X=[as_variables(genome) for genome in draws])
    if kind == "nsga3":
        how["ref_dirs"] = get_reference_directions("das-dennis", 2, n_partitions=population - 1)
    algorithm = nsga2.NSGA2(**how) if kind == "nsga2" else nsga3.NSGA3(**how)
    minimize(Problem(), algorithm, ("n_gen", 1_000_000), seed=seed, verbose=False)
