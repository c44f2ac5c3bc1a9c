"""What a run's candidates share: by which of their trainings the program is chosen."""

import numpy as np
import pytest

from deepmaker_jax.config import Config, LimitConfig, SearchConfig, TrainConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.execute import Task
from deepmaker_jax.feasible import make
from deepmaker_jax.ladder import mean_epochs
from deepmaker_jax.program import CLASS_SLOWER, COMPILE_SECONDS, FLOPS_A_SECOND
from deepmaker_jax.spaces import deepmaker
from deepmaker_jax.task import TYPICAL, choose_program


@pytest.mark.parametrize(
    ("population", "epochs", "num", "reduction", "expected"),
    [
        (9, 9, 3, 3, 1 + 2 / 3 + 6 / 9), (9, 10, 3, 3, 1 + 2 / 3 + 7 / 9), (8, 8, 1, 3, 8),
        (8, 6, 2, 3, 2 + 4 * 3 / 8), (4, 9, 3, 3, 1 + 2 * 2 / 4 + 6 * 1 / 4),
    ],
)  # fmt: skip
def test_with_rungs_a_candidate_trains_for_less_on_average(
    population, epochs, num, reduction, expected
):
    search = SearchConfig(population=population, epochs=epochs, rungs=num, reduction=reduction)
    assert mean_epochs(search) == pytest.approx(expected)


@pytest.mark.parametrize(("num", "expected"), [(1, "plain"), (2, "plain"), (3, "map")])
def test_the_program_is_chosen_by_what_a_candidate_trains_on_average(num, expected):
    """Of nine epochs, three rungs make below 3 and two 5 or more: a class is worth it below 4."""
    feasible = make(deepmaker((16, 16, 3), 10), LimitConfig(), spread="params")
    genomes = feasible.sample(np.random.default_rng(0), num=TYPICAL)
    macs = np.median([cost(feasible.space.decode(g)).macs for g in genomes])
    worth_it = COMPILE_SECONDS * FLOPS_A_SECOND / CLASS_SLOWER  # flops
    num_images = int(worth_it / (6 * macs) / 4)
    task = Task(
        images=np.zeros((1, 16, 16, 3), np.uint8), labels=np.zeros(1, np.int32),
        search_rows=np.arange(num_images), validation_rows=np.arange(0),
        input_scale=np.ones(3, np.float32), settings=TrainConfig(), seed=0,
    )  # fmt: skip
    config = Config(search=SearchConfig(epochs=9, rungs=num, reduction=3))
    assert choose_program(config, feasible, task, "processes")["strategy"] == expected
