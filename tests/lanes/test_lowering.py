"""Every size class's program lowers for accelerators, whole batches in one chunk."""

import jax
import numpy as np
import pytest

from benchmarks.lowering import (
    LANES,
    PLATFORMS,
    in_groups,
    kernels,
    lower,
    projection,
    traffic,
)
from deepmaker_jax.config import TrainConfig
from deepmaker_jax.lanes.size_class import WHOLE_BATCH, table
from deepmaker_jax.lanes.wiring import empty, fit, turns
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


def test_side_by_side_each_does_what_the_longest_of_each_loop_does():
    of = CLASSES[0]
    archs = draw(SHAPE, num=8, size_class=of, kernel=3, most=60_000)
    lanes = [fit(arch, of) for arch in archs]
    alone, pairs = in_groups(lanes, 1), in_groups(lanes, 2)
    assert sorted(map(kernels, alone)) == sorted(map(kernels, lanes))
    assert [turns(lane) for lane in alone] == sorted(map(turns, lanes), reverse=True)
    for i in range(0, 8, 2):
        assert pairs[i] is pairs[i + 1]
        for shared, *own in zip(
            pairs[i].wiring.counts, *(lane.wiring.counts for lane in alone[i : i + 2]), strict=True
        ):
            np.testing.assert_array_equal(shared, np.max(own, axis=0))
    found = projection(of, lanes, 8)["padded_work"]
    assert list(found) == ["2", "4", "8"]
    assert 1 < found["2"]["flops"] < found["4"]["flops"] < found["8"]["flops"]
    alike = projection(of, lanes[:1] * 8, 8)["padded_work"]
    assert alike["8"] == {"flops": 1, "bytes": 1, "kernels": 1}


def test_the_projection_is_of_what_lanes_do_side_by_side():
    of = CLASSES[0]
    lanes = [fit(arch, of) for arch in draw(SHAPE, num=4, size_class=of, kernel=3, most=60_000)]
    found = projection(of, lanes, 4)
    own, longest = found["own"], in_groups(lanes, 4)[0]
    ms = found["projected_ms_a_lane_step"]
    assert list(ms) == ["1", "2", "4"]
    assert kernels(longest) > own["kernels"] > 0
    for name, work in (("launches", kernels(longest) / 4 / own["kernels"]),
                       ("memory", traffic(of, longest) / own["bytes"])):  # fmt: skip
        assert ms["4"][name] / ms["1"][name] == pytest.approx(work, rel=0.05)
    assert list(projection(of, lanes, 3)["projected_ms_a_lane_step"]) == ["1", "2"]
