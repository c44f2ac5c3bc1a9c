"""Other searches than ours, which ask a trainer (of `on_paper` or `real_search`) until it stops.

Each raises what the trainer raises once the budget is spent.
"""

from typing import Any

import numpy as np

from benchmarks.on_paper import OBJECTIVES
from deepmaker_jax.cost import cost
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.objective import scaled
from deepmaker_jax.search import stream
from deepmaker_jax.types import Genome

POPULATION = 16  # of NSGA-II and NSGA-III, which do no better with 8, and of first draws


def uniform(trainer: Any, seed: int) -> None:
    """Uniform draws from the genes, those beyond the limits rejected: what others call random."""
    part, rng = trainer.feasible, np.random.default_rng(seed)
    while True:
        genome = part.space.repair(part.space.sample(rng, num=1)[0])
        if part.allows(genome):
            trainer.train(part.space.decode(genome))


def aging(trainer: Any, seed: int, *, population: int = 25, sample: int = 5) -> None:
    """Regularised evolution (Real et al. 2019) of a weighted sum; each step draws its weights.

    Half of its mutations change a gene without effect, or to what it was: for nothing, as the
    network is known. Drawn again until the child differs, it did worse on twelve seeds.
    """
    part, rng = trainer.feasible, np.random.default_rng(seed)
    alive: list[tuple[np.ndarray, np.ndarray]] = []

    def measure(genome: np.ndarray) -> None:
        arch = part.space.decode(genome)
        values = np.array([[trainer.train(arch), cost(arch).params]])
        alive.append((genome, scaled(values, OBJECTIVES)[0]))

    for genome in part.sample(rng, num=population):
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
        if child is not None:
            measure(child)
            alive.pop(0)


def first_draws(part: Feasible, seed: int) -> list[Genome]:
    """Returns a first population of our sampler's, whose sizes are spread."""
    return part.sample(stream(seed, 0), num=POPULATION)


def judge(trainer: Any, genome: Genome) -> tuple[np.ndarray, float]:
    """Returns what others minimise, Float[2], and what they keep at most 0: excess over the limits.

    What is beyond the limits is not trained, and counts as always wrong.
    """
    part = trainer.feasible
    genome = part.space.repair(genome)
    excess, arch = part.excess(genome), part.space.decode(genome)
    error = 1.0 if excess > 1 else trainer.train(arch)
    return scaled(np.array([[error, cost(arch).params]]), OBJECTIVES)[0], excess - 1


def optuna(trainer: Any, seed: int, *, sampler: str, our_draws: bool = False) -> None:
    """Optuna's multi-objective samplers; networks beyond the limits are constraints, for free.

    Args:
      trainer: of the networks.
      seed: of the draws.
      sampler: "nsga2" or "tpe".
      our_draws: begins with a population of our sampler's.
    """
    import optuna as package

    part = trainer.feasible
    package.logging.set_verbosity(package.logging.ERROR)

    kind = {"nsga2": package.samplers.NSGAIISampler, "tpe": package.samplers.TPESampler}[sampler]
    size = {"population_size": POPULATION} if sampler == "nsga2" else {"multivariate": True}
    study = package.create_study(
        directions=["minimize", "minimize"],
        sampler=kind(seed=seed, **size),
    )
    for genome in first_draws(part, seed) if our_draws else ():
        values = map(int, genome)
        study.enqueue_trial(
            dict(zip([gene.name for gene in part.space.genes], values, strict=True))
        )

    def objective(trial: Any) -> tuple[float, float]:
        genome = np.array(
            [
                trial.suggest_int(gene.name, 0, len(gene.choices) - 1)
                if all(isinstance(c, int) for c in gene.choices)
                else trial.suggest_categorical(gene.name, range(len(gene.choices)))
                for gene in part.space.genes
            ]
        )
        values, excess = judge(trainer, genome)
        trial.set_constraint("excess", excess)
        return tuple(values.tolist())

    study.optimize(objective, n_trials=None)


def pymoo(trainer: Any, seed: int, *, kind: str, our_draws: bool = False) -> None:
    """pymoo's NSGA-II and NSGA-III on integer genes, with its own operators and constraints.

    Args:
      trainer: of the networks.
      seed: of the draws.
      kind: "nsga2" or "nsga3".
      our_draws: begins with a population of our sampler's.
    """
    from pymoo.algorithms.moo import nsga2, nsga3
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize
    from pymoo.util.ref_dirs import get_reference_directions

    part = trainer.feasible

    class Problem(ElementwiseProblem):
        def __init__(self):
            most = np.array(part.space.num_choices) - 1
            super().__init__(n_var=len(most), n_obj=2, n_ieq_constr=1, xl=0, xu=most, vtype=int)

        def _evaluate(self, x, out, *args, **kwargs):
            out["F"], out["G"] = judge(trainer, np.asarray(x, np.int32))

    how = {
        "pop_size": POPULATION,
        "sampling": np.array(first_draws(part, seed)) if our_draws else IntegerRandomSampling(),
        "crossover": SBX(prob=0.9, eta=3.0, vtype=float, repair=RoundingRepair()),
        "mutation": PM(eta=3.0, vtype=float, repair=RoundingRepair()),
        "eliminate_duplicates": True,
    }
    if kind == "nsga3":
        how["ref_dirs"] = get_reference_directions("das-dennis", 2, n_partitions=POPULATION - 1)
    algorithm = nsga2.NSGA2(**how) if kind == "nsga2" else nsga3.NSGA3(**how)
    minimize(Problem(), algorithm, ("n_gen", 1_000_000), seed=seed, verbose=False)
