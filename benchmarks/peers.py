"""Other searches than ours, which ask a trainer (of `on_paper` or `real_search`) until it stops.

Each raises what the trainer raises once the budget is spent. Their settings are the best of those
in benchmarks/results/search_tuning.json, where they begin with draws of their own.
"""

from typing import Any

import numpy as np

from deepmaker_jax.cost import cost
from deepmaker_jax.feasible import Feasible
from deepmaker_jax.objective import scaled
from deepmaker_jax.search import stream
from deepmaker_jax.types import Genome

FIRST_DRAWS = 16  # of our sampler's, where there is no population


def uniform(trainer: Any, seed: int) -> None:
    """Uniform draws from the genes, those beyond the limits rejected: what others call random."""
    part, rng = trainer.feasible, np.random.default_rng(seed)
    while True:
        genome = part.space.repair(part.space.sample(rng, num=1)[0])
        if part.allows(genome):
            trainer.train(part.space.decode(genome))


def aging(
    trainer: Any, seed: int, *, population: int = 25, sample: int = 5, differs: bool = False
) -> None:
    """Regularised evolution (Real et al. 2019) of a weighted sum; each step draws its weights.

    A mutation that changes a gene without effect, or to what it was, is for nothing, as the
    network is known; with `differs` it is drawn again until the child is another network.
    """
    part, rng = trainer.feasible, np.random.default_rng(seed)
    alive: list[tuple[np.ndarray, np.ndarray]] = []

    def measure(genome: np.ndarray) -> None:
        arch = part.space.decode(genome)
        values = np.array([[trainer.train(arch), cost(arch).params]])
        alive.append((genome, scaled(values, trainer.objectives)[0]))

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
    trainer: Any, seed: int, *, sampler: str, our_draws: bool = False, **settings: Any
) -> None:
    """Optuna's multi-objective samplers; networks beyond the limits are constraints, for free.

    Args:
      trainer: of the networks.
      seed: of the draws.
      sampler: "nsga2" or "tpe".
      our_draws: begins with a population of our sampler's.
      **settings: the sampler's.
    """
    import optuna as package

    part = trainer.feasible
    package.logging.set_verbosity(package.logging.ERROR)

    kind = {"nsga2": package.samplers.NSGAIISampler, "tpe": package.samplers.TPESampler}[sampler]
    study = package.create_study(
        directions=["minimize", "minimize"],
        sampler=kind(seed=seed, **settings),
    )
    num = settings.get("population_size", FIRST_DRAWS)
    for genome in first_draws(part, seed, num=num) if our_draws else ():
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


def pymoo(trainer: Any, seed: int, *, kind: str, population: int, our_draws: bool = False) -> None:
    """pymoo's NSGA-II and NSGA-III on integer genes, with its own operators and constraints.

    Args:
      trainer: of the networks.
      seed: of the draws.
      kind: "nsga2" or "nsga3".
      population: its size; of NSGA-III the number of directions too.
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
        "pop_size": population,
        "sampling": np.array(first_draws(part, seed, num=population))
        if our_draws
        else IntegerRandomSampling(),
        "crossover": SBX(prob=0.9, eta=3.0, vtype=float, repair=RoundingRepair()),
        "mutation": PM(eta=3.0, vtype=float, repair=RoundingRepair()),
        "eliminate_duplicates": True,
    }
    if kind == "nsga3":
        how["ref_dirs"] = get_reference_directions("das-dennis", 2, n_partitions=population - 1)
    algorithm = nsga2.NSGA2(**how) if kind == "nsga2" else nsga3.NSGA3(**how)
    minimize(Problem(), algorithm, ("n_gen", 1_000_000), seed=seed, verbose=False)
