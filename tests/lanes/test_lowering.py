"""Every size class's program lowers for accelerators, whole batches in one chunk."""

import jax
import pytest

from benchmarks.lowering import LANES, PLATFORMS, kernels, lower, traffic
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes.size_class import WHOLE_BATCH, table
from deepmaker_jax.lanes.wiring import empty, fit
from tests.lanes.drawn import draw

SHAPE = (8, 8, 3)
CLASSES = table(SHAPE, 10, num_pixels=WHOLE_BATCH)


@pytest.mark.parametrize("of", CLASSES, ids=lambda of: of.name)
def test_it_lowers_for_cuda_and_tpu(of):
    exported = lower(of, TrainConfig(batch_size=8, crop=1, flip=True))
    assert exported.platforms == PLATFORMS
    module = exported.mlir_module()
    assert "stablehlo.dot_general" in module
    assert "stablehlo.custom_call" not in module  # nothing that only a CPU has
    leaves = jax.tree.leaves(jax.tree.unflatten(exported.in_tree, exported.in_avals)[0][1])
    assert {leaf.shape[0] for leaf in leaves} == {LANES}


def test_more_edges_are_more_work():
    of = CLASSES[0]
    small, large = (
        fit(draw(SHAPE, num=1, size_class=of, kernel=3, at_least=low, most=high)[0], of)
        for low, high in ((0, 5_000), (20_000, 60_000))
    )
    assert traffic(of, empty(of)) == kernels(empty(of)) == 0
    assert 0 < traffic(of, small) < traffic(of, large)
    assert 0 < kernels(small) < kernels(large)
