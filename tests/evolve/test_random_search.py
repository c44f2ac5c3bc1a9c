"""Random search shares NSGA-II's interface and archive, but not its asking."""

import jax
import jax.numpy as jnp
import numpy as np

from deepmaker_jax.evolve import NSGA2, RandomSearch, pareto

NUM_CHOICES = (2, 1, 5)
N = 64
SEARCH = RandomSearch(N, jnp.zeros(3, jnp.int32), num_choices=NUM_CHOICES)
PARAMS = SEARCH.default_params


def evaluate(genomes):
    """Returns two objectives in conflict and a third that only the last gene decides."""
    x = genomes.astype(jnp.float32)
    return jnp.stack([x[:, 0] + x[:, 2], 4 - x[:, 2], jnp.abs(x[:, 2] - 2)], axis=1)


def started():
    genomes = jnp.zeros((N, 3), jnp.int32)
    return SEARCH.init(jax.random.key(0), genomes, evaluate(genomes), PARAMS)


def test_asks_for_every_choice_equally_often():
    state = started()
    asked = np.concatenate(
        [SEARCH.ask(jax.random.key(seed), state, PARAMS)[0] for seed in range(50)]
    )
    assert asked.dtype == np.int32
    for gene, count in enumerate(NUM_CHOICES):
        seen = np.bincount(asked[:, gene], minlength=count)
        assert len(seen) == count
        spread = 5 * (len(asked) / count * (1 - 1 / count)) ** 0.5
        assert (np.abs(seen - len(asked) / count) <= spread).all()


def test_asks_the_same_whatever_was_told():
    state = started()
    asked, _ = SEARCH.ask(jax.random.key(1), state, PARAMS)
    told, _ = SEARCH.tell(jax.random.key(2), asked, evaluate(asked), state, PARAMS)
    assert (np.asarray(told.population) != np.asarray(state.population)).any()
    np.testing.assert_array_equal(SEARCH.ask(jax.random.key(1), told, PARAMS)[0], asked)


def test_archive_keeps_the_front_of_all_that_was_told():
    state, seen = started(), [np.zeros((1, 3), np.int32)]
    for seed in range(5):
        asked, state = SEARCH.ask(jax.random.key(seed), state, PARAMS)
        state, _ = SEARCH.tell(jax.random.key(0), asked, evaluate(asked), state, PARAMS)
        seen.append(np.asarray(asked))
    genomes = np.unique(np.concatenate(seen), axis=0)
    front = genomes[pareto.front(evaluate(genomes))]
    kept = np.asarray(state.population)[np.asarray(state.rank) == 0]
    np.testing.assert_array_equal(np.unique(kept, axis=0), front)
    assert len(kept) == len(front)


def test_shares_interface_and_state_with_nsga2():
    other = NSGA2(N, jnp.zeros(3, jnp.int32), num_choices=NUM_CHOICES)
    state = started()
    asked, _ = SEARCH.ask(jax.random.key(1), state, PARAMS)
    ours, _ = SEARCH.tell(jax.random.key(0), asked, evaluate(asked), state, PARAMS)
    theirs, _ = other.tell(jax.random.key(0), asked, evaluate(asked), state, PARAMS)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
