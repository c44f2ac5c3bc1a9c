"""A Ray cluster of several nodes: they join, differ, and die."""

import logging
import time

import pytest
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster

from deepmaker_jax.events import Epoch, Note
from deepmaker_jax.execute import Outcome, Unit
from deepmaker_jax.execute import ray as module
from deepmaker_jax.execute.ray import Ray
from deepmaker_jax.execute.unit import arrays
from tests.examples import SMALL
from tests.execute.ray_workers import busy_ray_workers, node_of

# Ray forks only to execute another program at once, which JAX's threads do not mind.
pytestmark = pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
STORE = 100 << 20  # bytes of shared memory a node
# A node that is gone is noticed in seconds instead of half a minute, one that is slow is not.
SOON = {
    "health_check_initial_delay_ms": 1000, "health_check_period_ms": 500,
    "health_check_timeout_ms": 30_000, "health_check_failure_threshold": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    """A head without processors, to which tests add nodes."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": SOON})
    yield cluster
    cluster.shutdown()


def unit(id, num_epochs=2, **paths):
    return Unit(id, SMALL, "search", num_epochs, **paths)


def test_without_any_node_it_says_so_and_ends_in_time(task, cluster, monkeypatch):
    monkeypatch.setattr(module, "NOTE_SECONDS", 0.1)
    monkeypatch.setattr(module, "GIVE_UP_SECONDS", 1.0)
    runner = Ray(task, address=cluster.address)
    said = []
    try:
        runner.submit(unit("unit0"))
        with pytest.raises(RuntimeError, match=r"no node with processors .* run this again"):
            said.extend(runner.results())
    finally:
        runner.close()
    assert said == [Note("no worker of the cluster has begun yet: waiting for one")]


def test_nodes_that_join_are_used_and_one_that_dies_costs_the_epoch_under_way(
    task, tmp_path, cluster
):
    """The unit of the dead node goes on on the other; what that had finished is not done again."""
    runner = Ray(task, address=cluster.address)
    told, ended, raylets, first, later = {"endless": [], "short": []}, [], {}, None, 0
    try:
        runner.submit(unit("endless", 100_000, checkpoint=tmp_path / "kept" / "state.msgpack"))
        runner.submit(unit("short", weights=tmp_path / "short.safetensors"))
        for _ in range(2):  # there was none
            node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
            raylets[node.all_processes["raylet"][0].process.pid] = node
        for result in runner.results():
            if isinstance(result, Epoch):
                told[result.id].append(result.num_done)
                later += first is not None and busy_ray_workers() not in ([], [first])
            elif isinstance(result, Outcome):
                ended.append((result.id, result.status))
            if first is None and ended and told["endless"]:
                while len(busy_ray_workers()) > 1:  # the short one's last moments
                    time.sleep(0.01)
                (first,) = busy_ray_workers()
                cluster.remove_node(raylets.pop(node_of(first)), allow_graceful=False)
            if later == 5:
                break
    finally:
        runner.close()
        for node in raylets.values():
            cluster.remove_node(node)
    assert told["endless"] == list(range(1, len(told["endless"]) + 1))
    assert told["short"] == [1, 2]
    assert ended == [("short", "ok")]
    assert (tmp_path / "short.safetensors").exists()


def test_a_node_fetches_the_data_once_for_all_of_its_processes(task, cluster):
    """By the bytes that its store was ever given: a second copy would double them."""
    node = cluster.add_node(num_cpus=2, object_store_memory=STORE)
    runner = Ray(task, address=cluster.address)
    told = set[str]()
    try:
        for id in ("one", "other"):
            runner.submit(unit(id, 100_000))
        for result in runner.results():
            told.update([result.id] if isinstance(result, Epoch) else [])
            if len(told) == 2:
                break
        num_workers = len(busy_ray_workers())
        store = node_stats(node.node_ip_address, node.node_manager_port, False).store_stats
    finally:
        runner.close()
        cluster.remove_node(node)
    assert num_workers == 2
    num_bytes = sum(value.nbytes for value in arrays(task).values())
    assert num_bytes <= store.cumulative_created_bytes < 2 * num_bytes
