"""Variation and mating selection for integer genomes: pure functions of a key.

A genome is int32[g]; gene k lies in 0..num_choices[k]-1. Crossover only copies
genes. Mutation draws another choice, or steps along the choices where a gene's
are ordered (widths, depths): to near ones often, to far ones seldom.
"""

import jax
import jax.numpy as jnp

# Distribution index, the larger the shorter the steps; Deb et al. 2002, section V.
MUTATION_ETA = 20.0


def tournament(key, rank, crowding, *, num):
    """Returns the winners of `num` binary tournaments.

    Each pits two different rows, drawn uniformly; the lower rank wins, then the
    larger crowding distance, then the one drawn first.

    Args:
      key: PRNG key.
      rank: int32[n], 0 is the first front; n >= 1.
      crowding: Float[n], dimensionless, never NaN.
      num: number of tournaments.

    Returns:
      int32[num], indices of the winners.

    Source: Deb et al. 2002, section III-B, the crowded-comparison operator.
    """
    size = rank.shape[0]
    key_first, key_step = jax.random.split(key)
    first = jax.random.randint(key_first, (num,), 0, size, jnp.int32)
    step = jax.random.randint(key_step, (num,), 1, max(size, 2), jnp.int32)
    second = (first + step) % size
    lower = rank[second] < rank[first]
    roomier = (rank[second] == rank[first]) & (crowding[second] > crowding[first])
    return jnp.where(lower | roomier, second, first)


def uniform_crossover(key, first, second, *, rate):
    """Returns one child a pair, each gene from either parent with chance 1/2.

    Args:
      key: PRNG key.
      first: int32[n, g], the first parents.
      second: int32[n, g], the second parents.
      rate: chance, 0..1, that a pair is crossed; else the child is a copy of
        the first parent.

    Returns:
      int32[n, g].

    Source: Syswerda 1989.
    """
    key_pair, key_gene = jax.random.split(key)
    swap = jax.random.bernoulli(key_gene, 0.5, first.shape)
    return jnp.where(swap & _crossed(key_pair, first, rate), second, first)


def two_point_crossover(key, first, second, *, rate):
    """Returns one child a pair: the first parent with a segment of the second.

    The two cuts are a uniform draw of different places among the g + 1 before,
    between and after the genes: the segment has at least one gene.

    Args:
      key: PRNG key.
      first: int32[n, g], the first parents.
      second: int32[n, g], the second parents.
      rate: chance, 0..1, that a pair is crossed; else the child is a copy of
        the first parent.

    Returns:
      int32[n, g].

    Source: De Jong 1975, with two crossover points.
    """
    num, num_genes = first.shape
    key_pair, key_cut, key_step = jax.random.split(key, 3)
    cut = jax.random.randint(key_cut, (num, 1), 0, num_genes + 1, jnp.int32)
    step = jax.random.randint(key_step, (num, 1), 1, num_genes + 1, jnp.int32)
    other = (cut + step) % (num_genes + 1)
    gene = jnp.arange(num_genes)[None, :]
    segment = (gene >= jnp.minimum(cut, other)) & (gene < jnp.maximum(cut, other))
    return jnp.where(segment & _crossed(key_pair, first, rate), second, first)


def mutate(key, genomes, *, num_choices, rate, ordered=None):
    """Changes each gene with chance `rate`.

    A gene without order is redrawn uniformly among its other choices. An ordered
    one steps along its choices, at least one: by polynomial mutation, rounded.

    Args:
      key: PRNG key.
      genomes: int32[n, g].
      num_choices: int[g], >= 1; a gene with one choice stays.
      rate: chance, 0..1, per gene.
      ordered: Bool[g], True where the choices have an order; None: nowhere.

    Returns:
      int32[n, g].

    Source: of the steps, Deb and Goyal 1996; with bounds, Deb et al. 2002's code.
    """
    num_choices = jnp.asarray(num_choices, jnp.int32)[None, :]
    key_gene, key_step = jax.random.split(key)
    key_draw = jax.random.fold_in(key_step, 0)  # a gene goes by one of the two
    hit = jax.random.bernoulli(key_gene, rate, genomes.shape) & (num_choices > 1)
    # A step of 1..num_choices-1 around the circle of choices never comes back.
    others = jnp.maximum(num_choices, 2)
    step = jax.random.randint(key_step, genomes.shape, 1, others, jnp.int32)
    drawn = (genomes + step) % num_choices
    if ordered is not None:
        draw = jax.random.uniform(key_draw, genomes.shape)
        ordered = jnp.asarray(ordered)[None, :]
        drawn = jnp.where(ordered, _stepped(draw, genomes, others - 1), drawn)
    return jnp.where(hit, drawn, genomes)


def _stepped(draw, genomes, last):
    """Returns polynomial mutation's choice, int32[n, g], for uniform draws Float[n, g] in 0..1.

    Below 1/2 it goes down, else up, and never past the first or `last` choice;
    what would round to no step goes one, at a bound inwards.
    """
    down = draw < 0.5
    share = jnp.where(down, genomes, last - genomes) / last  # room in the direction taken
    tail = 2 * jnp.where(down, draw, 1 - draw)  # 0..1; the length's distribution function
    power = MUTATION_ETA + 1
    length = 1 - (tail + (1 - tail) * (1 - share) ** power) ** (1 / power)
    length = jnp.maximum(jnp.round(length * last).astype(jnp.int32), 1)
    outwards = jnp.where(down, genomes - length, genomes + length)
    inwards = jnp.where(down, genomes + 1, genomes - 1)
    return jnp.where((outwards < 0) | (outwards > last), inwards, outwards)


def _crossed(key, parents, rate):
    return jax.random.bernoulli(key, rate, (parents.shape[0], 1))
