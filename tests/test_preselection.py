"""Children judged before they are trained, by a process over what was measured."""

import itertools

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from deepmaker_jax.cost import cost
from deepmaker_jax.evolve.hypervolume import hypervolume
from deepmaker_jax.objective import built_in, scaled
from deepmaker_jax.preselection import LEAST, MOST, Preselection, _process
from deepmaker_jax.spaces import deepmaker
from deepmaker_jax.types import Objective
from tests.test_search import LIMITS, OBJECTIVES

SPACE = deepmaker((16, 16, 3), 10)
RUNGS = (1, 3, 9)


def error(genome, rung=2):
    """Falls with training and with size, and one gene matters: what a process can learn."""
    size = np.log2(cost(SPACE.decode(genome)).params) / 20
    return float(0.9 - 0.5 * size + 0.03 * genome[1] - 0.1 * rung)


def record(genome, rung=2, status="ok"):
    values = {"error": error(genome, rung), "params": cost(SPACE.decode(genome)).params}
    return {
        "id": SPACE.id(genome), "genome": genome.tolist(), "status": status, "objectives": values,
        "reason": None if status == "ok" else "loss nan",
    }  # fmt: skip


def points(genomes):
    values = [[error(g), cost(SPACE.decode(g)).params] for g in genomes]
    return scaled(np.array(values), OBJECTIVES)


@pytest.fixture(scope="module")
def genomes():
    return list(SPACE.sample(np.random.default_rng(0), num=150))


@pytest.fixture(scope="module")
def taught(genomes):
    """Of 60 networks, most were only measured after an epoch."""
    preselection = Preselection(SPACE, OBJECTIVES, RUNGS)
    preselection.add(0, [record(g, 0) for g in genomes[:60]])
    preselection.add(1, [record(g, 1) for g in genomes[:20]])
    preselection.add(2, [record(g, 2) for g in genomes[:7]])
    return preselection


def test_what_it_chooses_adds_nearly_as_much_as_hindsight_and_more_than_chance(genomes, taught):
    front, children = genomes[:7], genomes[60:]
    chosen = taught.choose(children, num=8, front=[record(g) for g in front])
    assert len(chosen) == len(set(chosen)) == 8

    def volume(rows):
        return hypervolume(points([*front, *(children[i] for i in rows)]))

    rng = np.random.default_rng(1)
    chance = [volume(rng.choice(len(children), 8, replace=False)) for _ in range(50)]
    assert volume(chosen) > max(chance)
    everything = volume(range(len(children)))
    assert volume(chosen) > volume([]) + 0.9 * (everything - volume([]))


def test_it_foresees_training_in_full_from_shorter_ones(genomes, taught):
    hoped = taught.hoped(genomes[60:])
    truth = points(genomes[60:])
    np.testing.assert_array_equal(hoped[:, 1], truth[:, 1])  # a cost is known
    assert np.abs(hoped[:, 0] - truth[:, 0]).mean() < 0.03  # a deviation below what is expected
    assert (hoped[:, 0] - truth[:, 0]).mean() < 0
    assert np.corrcoef(hoped[:, 0], truth[:, 0])[0, 1] > 0.95


def test_choices_in_no_order_are_equally_far_from_each_other(taught):
    """Whatever sizes they lead to."""
    names = [gene.name for gene in SPACE.genes]
    num_columns = sum(1 if g.ordered else len(g.choices) for g in SPACE.genes)

    def distances(name):
        place = names.index(name)
        rows = []
        for choice in range(SPACE.num_choices[place]):
            genome = np.zeros(len(names), np.int32)
            genome[place] = choice
            rows.append(taught._features(genome, 0)[:num_columns])
        return [np.linalg.norm(a - b) for a, b in itertools.combinations(rows, 2)]

    unordered = distances("activation")
    assert np.ptp(unordered) == 0
    assert np.ptp(distances("growth_1")) > 0


def test_the_same_measurements_give_the_same_choice(genomes, taught):
    again = Preselection(SPACE, OBJECTIVES, RUNGS)
    again._seen.extend(taught._seen)
    front = [record(g) for g in genomes[:7]]
    chosen = taught.choose(genomes[60:], num=5, front=front)
    assert again.choose(genomes[60:], num=5, front=front) == chosen


def test_it_foresees_on_one_thread_whatever_the_process_was_given(genomes, taught, monkeypatch):
    # Where products are cut into parts, by cores, decides how their sums round.
    during = []

    def process(*args):
        during.extend(pool["num_threads"] for pool in threadpool_info())
        return _process(*args)

    monkeypatch.setattr("deepmaker_jax.preselection._process", process)
    with threadpool_limits(2):
        taught.choose(genomes[60:], num=8, front=[])
    assert set(during) == {1}


def test_beside_those_in_training_it_chooses_as_if_all_were_chosen_at_once(genomes, taught):
    """So do asynchronous workers, each of which asks for one."""
    front, children = [record(g) for g in genomes[:7]], genomes[60:]
    wanted = [children[i] for i in taught.choose(children, num=6, front=front)]
    pending = []
    while len(pending) < 6:
        free = [g for g in children if not any(g is other for other in pending)]
        (i,) = taught.choose(free, num=1, front=front, pending=pending)
        pending.append(free[i])
    assert list(map(SPACE.id, pending)) == list(map(SPACE.id, wanted))


def test_with_too_little_to_go_by_the_first_children_are_taken(genomes):
    preselection = Preselection(SPACE, OBJECTIVES, RUNGS)
    preselection.add(0, [record(g, status="failed") for g in genomes[:50]])
    preselection.add(0, [record(g) for g in genomes[: LEAST - 1]])
    assert preselection.choose(genomes, num=3, front=[]) == [0, 1, 2]
    assert preselection.choose(genomes[:2], num=3, front=[]) == [0, 1]


@pytest.mark.parametrize(
    ("reason", "least", "most"), [("loss nan", 0.9, 1), ("its worker died (signal 9)", 0, 0.5)]
)
def test_nothing_is_hoped_of_what_is_like_those_that_failed(reason, least, most, genomes):
    def fails(genome):
        return genome[1] == 0  # the best of its choices

    preselection = Preselection(SPACE, OBJECTIVES, RUNGS)
    for genome in genomes[:60]:
        status = "failed" if fails(genome) else "ok"
        preselection.add(2, [record(genome, status=status) | {"reason": reason}])
    children = sorted(genomes[60:], key=fails)
    num_good = sum(not fails(child) for child in children)
    hoped = preselection.hoped(children)[:, 0]
    assert np.median(hoped[:num_good]) < 0.5
    assert least < np.median(hoped[num_good:]) < most
    chosen = preselection.choose(children, num=8, front=[])
    assert (max(chosen) < num_good) == (reason == "loss nan")


def test_only_the_latest_measurements_are_kept(genomes):
    preselection = Preselection(SPACE, OBJECTIVES, RUNGS)
    for _ in range(MOST // 100 + 1):
        preselection.add(2, [record(g) for g in genomes[:100]])
    assert len(preselection._seen) == MOST


def test_without_a_front_it_chooses_what_makes_the_best_one(genomes, taught):
    children = genomes[60:]
    chosen = taught.choose(children, num=4, front=[])
    volume = hypervolume(points([children[i] for i in chosen]))
    assert volume > 0.9 * hypervolume(points(children))


def taught_with(mine, genomes):
    """A preselection by the error and an objective of one's own; it knows the genomes."""
    preselection = Preselection(SPACE, (built_in("error", LIMITS), mine), (9,))
    for g in genomes:
        measured = {"val_error": error(g)} | cost(SPACE.decode(g))._asdict()
        values = {"error": error(g), mine.name: mine.measure(measured)}
        preselection.add(0, [record(g) | {"objectives": values}])
    return preselection


@pytest.mark.parametrize(
    "mine",
    [
        Objective("energy", "nJ", "log2", 1.0, 1e6, lambda m: 0.005 * m["macs"]),
        Objective("params", "millions", "log2", 1e-4, 1.0, lambda m: m["params"] / 1e6),
    ],
)
def test_a_function_of_costs_is_known_whatever_it_is_called(mine, genomes):
    hoped = taught_with(mine, genomes[:LEAST]).hoped(genomes[60:])
    truth = [mine.scaled(mine.measure(cost(SPACE.decode(g))._asdict())) for g in genomes[60:]]
    np.testing.assert_array_equal(hoped[:, 1], truth)


@pytest.mark.parametrize("name", ["mine", "params"])
def test_an_objective_that_takes_a_training_is_foreseen_like_the_error(name, genomes):
    mine = Objective(name, "share", "linear", 0.0, 1.0, lambda m: m["val_error"] ** 2)
    hoped = taught_with(mine, genomes[:60]).hoped(genomes[60:])
    truth = [error(g) ** 2 for g in genomes[60:]]
    assert np.corrcoef(hoped[:, 1], truth)[0, 1] > 0.95


def test_a_network_for_which_a_function_of_costs_fails_gains_nothing(genomes):
    def price(measured):
        if measured["params"] > 50_000:
            raise ValueError
        return measured["macs"]

    mine = Objective("price", "euros", "log2", 1.0, 1e9, price)
    params = np.array([cost(SPACE.decode(g)).params for g in genomes])
    cheap = [g for g, size in zip(genomes, params, strict=True) if size <= 50_000]
    preselection = taught_with(mine, cheap[:20])
    hoped = preselection.hoped(genomes)
    np.testing.assert_array_equal(np.isinf(hoped[:, 1]), params > 50_000)
    chosen = preselection.choose(genomes, num=10, front=[])
    assert (params[chosen] <= 50_000).all()
