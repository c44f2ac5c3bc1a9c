"""Working memory: plans by hand, and against what no plan can be below."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmaker_jax import sram
from deepmaker_jax.arch import layers
from deepmaker_jax.cost import cost
from deepmaker_jax.sram import Life, planned_bytes
from tests.examples import ARCH, LAST

NARROW = dataclasses.replace(
    ARCH,
    input_shape=(8, 8, 1),
    stem_width=4,
    stages=(dataclasses.replace(LAST, num_layers=1, growth=4),),
)
WIDE = dataclasses.replace(
    NARROW, stem_width=16, stages=(dataclasses.replace(NARROW.stages[0], growth=8),)
)


def peak(tensors, num_steps=14):
    return max(
        sum(t.num_bytes for t in tensors if t.first <= i <= t.last) for i in range(num_steps)
    )


def test_a_plan_reuses_what_is_free():
    assert planned_bytes([]) == 0
    assert planned_bytes([Life(64, 0, 1), Life(96, 1, 2), Life(32, 2, 3)]) == 160


def test_a_plan_can_leave_gaps_that_the_peak_does_not_have():
    tensors = [Life(96, 0, 1), Life(64, 1, 2), Life(64, 2, 3), Life(96, 3, 4)]
    # Both of 96 at 0, so that both of 64 are above it, one above the other.
    assert planned_bytes(tensors) == 224
    assert peak(tensors) == 160


def test_of_equal_tensors_the_last_is_placed_first():
    tensors = [Life(16, 0, 0), Life(16, 0, 1), Life(16, 2, 2), Life(16, 1, 2)]
    # The last at 0; the third and the second above it, the first below the second.
    assert planned_bytes(tensors) == 32
    assert planned_bytes(tensors[::-1]) == 48


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 4)), max_size=12))
def test_a_plan_is_never_below_the_peak_nor_above_the_sum(rows):
    tensors = [Life(16 * size, first, first + length) for size, first, length in rows]
    assert peak(tensors) <= planned_bytes(tensors) <= sum(t.num_bytes for t in tensors)


def test_an_arena_is_the_plan_and_the_runtimes_structures_by_hand():
    # Maps of 256, 256 and 512 bytes at once. Stem, layer and classifier with 4, 4 and 7 channels;
    # a concatenation and a pool.
    own = sram.ARENA_MODEL_BYTES + 3 * sram.ARENA_WEIGHTED_LAYER_BYTES
    own += 2 * sram.ARENA_OPERATOR_BYTES + 8 * (4 + 4 + 7)
    assert cost(NARROW).arena_bytes == 1024 + own


def test_ethos_u_writes_parts_in_place_and_fetches_weights_early_by_hand():
    # Running the layer: the stem's map (256), the concatenation (512), of which the layer writes
    # its half; the layer's own weights, (9 * 4 + 10) * 4. The next operator has none.
    assert cost(NARROW).ethos_u_sram_bytes == 256 + 512 + 184


def test_ethos_u_keeps_maps_in_bricks_of_16_channels_by_hand():
    # The layer begins at channel 16 of the concatenation: 24 channels are two bricks, 64 * 32.
    assert cost(WIDE).ethos_u_sram_bytes == 1024 + 2048 + (9 * 16 + 10) * 8


IMAGE, WEIGHTS, MAP = 64, (9 + 10) * 64, 4096


@pytest.mark.parametrize(
    ("activation", "num_bytes"),
    [
        ("relu", IMAGE + WEIGHTS + MAP),
        ("hard_swish", IMAGE + WEIGHTS + MAP),
        ("silu", 2 * MAP),
        ("elu", 4 * MAP),
    ],
)
def test_ethos_u_looks_activations_up_but_for_products_and_exponentials(activation, num_bytes):
    arch = dataclasses.replace(WIDE, stem_width=64, activation=activation)
    stem = layers(arch)[:1]
    assert sram.ethos_u_sram_bytes(stem, arch.input_shape) == num_bytes
