"""One suite over every objective that comes with the project."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmaker_jax.config import COSTS, LimitConfig
from deepmaker_jax.cost import cost
from deepmaker_jax.errors import InputError
from deepmaker_jax.feasible import make
from deepmaker_jax.objective import SIZES, built_in, scaled
from deepmaker_jax.spaces import SPACES

NAMES = ("error", *COSTS, "latency_ms", "robust_error")
MEASURED = {"val_error": 0.25, "val_accuracy": 0.75, "robust_accuracy": 0.5} | {
    c: 1_000 + i for i, c in enumerate((*COSTS, "latency_ms"))
}
every_objective = pytest.mark.parametrize("name", NAMES)
every_size = pytest.mark.parametrize("name", COSTS)


def test_every_cost_is_an_objective():
    assert tuple(SIZES) == COSTS


@every_objective
def test_it_is_measured_under_its_own_name(name):
    objective = built_in(name, LimitConfig())
    assert objective.name == name
    wanted = {"error": MEASURED["val_error"], "robust_error": 1 - MEASURED["robust_accuracy"]}
    assert objective.measure(MEASURED) == wanted.get(name, MEASURED.get(name))


@every_objective
def test_it_says_how_it_is_measured_and_what_must_be_measured_for_it(name):
    objective = built_in(name, LimitConfig())
    assert objective.how
    assert objective.timed == (name == "latency_ms")
    assert objective.corrupted == (name == "robust_error")


@every_objective
@settings(deadline=None)
@given(a=st.floats(1e-3, 1e10), b=st.floats(1e-3, 1e10))
def test_scaling_keeps_the_order_and_maps_ideal_and_reference(name, a, b):
    objective = built_in(name, LimitConfig())
    assert objective.scaled(objective.ideal) == 0
    assert objective.scaled(objective.reference) == pytest.approx(1)
    low, high = sorted((a, b))
    assert objective.scaled(low) <= objective.scaled(high)


@every_size
def test_a_doubling_costs_the_same_everywhere_on_a_sizes_axis(name):
    objective = built_in(name, LimitConfig())
    steps = np.diff(objective.scaled(1_000 * 2.0 ** np.arange(8)))
    np.testing.assert_allclose(steps, steps[0])
    assert steps[0] > 0


@every_size
@pytest.mark.parametrize("limit", [1, 5_000, 10_000_000])
def test_a_limit_is_the_reference_and_stays_above_the_ideal(name, limit):
    objective = built_in(name, LimitConfig(**{name: limit}))
    assert objective.reference == max(limit, 2 * objective.ideal)
    other = next(c for c in COSTS if c != name)
    assert built_in(other, LimitConfig(**{name: limit}))[:5] == built_in(other, LimitConfig())[:5]


def test_less_than_the_floor_counts_as_the_floor():
    objective = built_in("flash_bytes", LimitConfig(flash_bytes=65_536), floor=16_384)
    values = np.array([objective.measure({"flash_bytes": n}) for n in (3_000, 16_384, 32_768)])
    assert values.tolist() == [16_384, 16_384, 32_768]
    assert objective.scaled(values).tolist() == [0, 0, 0.5]
    assert objective.how == "from the layer list, at least 16,384"
    near = built_in("flash_bytes", LimitConfig(flash_bytes=65_536), floor=60_000)
    assert (near.ideal, near.reference) == (60_000, 65_536)


def test_a_floor_past_the_reference_is_refused_by_name():
    with pytest.raises(
        InputError, match=r"search.floor \(=5000000\) must be below 4000000.*limits.params"
    ):
        built_in("params", LimitConfig(), floor=5_000_000)


@every_size
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_no_network_beats_the_ideal(name, space, shape):
    """Of every genome in neuropower; in deepmaker of all small ones, for each cost apart."""
    space = SPACES[space](shape, 2)
    whole = make(space, LimitConfig(), spread="params")
    genomes = whole.everything if space.num_genomes < 2_000 else _smallest(space)
    ideal = built_in(name, LimitConfig()).ideal
    smallest = min(getattr(cost(space.decode(genome)), name) for genome in genomes)
    assert ideal <= smallest
    if space.name == "deepmaker" and shape == (8, 8, 1):
        assert smallest < 4 * ideal  # an ideal far below would waste the axis


def _smallest(space):
    """Every genome of at most two stages with the smaller choices of whatever adds size."""
    rows = itertools.product(
        (8, 12), ("none", "stride", "pool"), (1, 2), (1, 2), (4, 8), (50, 25), (1, 2), (4, 8),
        ("full", "harmonic", "window"), (0, 2),
    )  # fmt: skip
    names = (
        "stem_width", "stem_reduction", "stages", "layers_1", "growth_1", "compression_percent_1",
        "layers_2", "growth_2", "connectivity", "bottleneck",
    )  # fmt: skip
    return [space.genome(dict(zip(names, row, strict=True))) for row in rows]


def test_columns_are_scaled_each_by_its_own_axis():
    objectives = tuple(built_in(name, LimitConfig()) for name in NAMES)
    raw = np.array([[o.ideal for o in objectives], [o.reference for o in objectives]])
    np.testing.assert_allclose(scaled(raw, objectives), [[0] * len(NAMES), [1] * len(NAMES)])


@pytest.mark.parametrize("name", ["speed", "", "Params"])
def test_an_unknown_name_is_refused_with_all_there_are(name):
    with pytest.raises(
        InputError, match=rf"search.objectives \(={name}\) must be among error, "
    ) as e:
        built_in(name, LimitConfig())
    assert all(known in str(e.value) for known in NAMES)
