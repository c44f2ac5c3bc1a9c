"""Genomes and architectures that no space has."""

import contextlib

import numpy as np

from deepmaker_jax import arch as archs
from deepmaker_jax.cost import cost
from deepmaker_jax.description import describe
from deepmaker_jax.errors import InputError
from deepmaker_jax.report.drawing import draw
from deepmaker_jax.spaces import deepmaker, neuropower
from tests.fuzz.core import DEEP, ODD, Door, changed, generator, odd

SPACES = (
    deepmaker((32, 32, 3), 10), deepmaker((8, 8, 1), 3), neuropower((28, 28, 1), 10),
    deepmaker((16, 16, 3), 5).narrow({"stages": (1, 2), "activation": ("relu", "elu")}),
)  # fmt: skip
TYPES = (
    np.int8, np.uint8, np.int64, np.uint64, np.float32, np.float64, np.bool_, np.complex64, object,
    "S2", "U3", "m8[s]",
)  # fmt: skip


def odd_genome(rng, space):
    """Indices out of range, of other types, too few, too many, or nested."""
    good = rng.integers(0, space.num_choices)
    kind = rng.integers(8)
    if kind == 0:
        return rng.integers(-3, 9, len(good))
    if kind == 1:
        return good.astype(TYPES[rng.integers(len(TYPES))])
    if kind == 2:
        return list(good[: rng.integers(len(good))])
    if kind == 3:
        return [*map(int, good), *map(int, rng.integers(0, 3, rng.integers(1, 4)))]
    if kind == 4:
        found = [int(i) for i in good]
        found[rng.integers(len(found))] = odd(rng)
        return found
    if kind == 5:
        return [list(good), list(good)[: rng.integers(3)]]
    if kind == 6:
        return odd(rng)
    return [int(n) for n in rng.choice([0, 1, 2**31, 2**40, 2**63, 10**30, -1], len(good))]


def test_genomes(capsys):
    """Every use of a genome says the same of it; what is taken is repaired once and for all."""
    door = Door("genomes", capsys)
    for case in range(600):
        rng = generator(door.name, case)
        space = SPACES[case % len(SPACES)]
        genome = odd_genome(rng, space) if case % 8 else space.sample(rng, num=1)[0]

        def use(space=space, genome=genome):
            repaired = space.repair(genome)
            arch = space.decode(genome)
            assert space.decode(repaired) == arch
            assert archs.from_json(archs.to_json(arch)) == arch
            np.testing.assert_array_equal(space.encode(arch), repaired)
            assert space.id(genome) == space.id(repaired)

        content = (space.name, type(genome), str(genome), getattr(genome, "dtype", None))
        door.call(case, content, use)
    door.check(refused=200, accepted=80)


def test_architectures(capsys):
    """What a ledger, a front or a manifest holds: drawn, described and costed, or refused."""
    door = Door("architectures", capsys)
    assert DEEP in ODD
    for case in range(700):
        rng = generator(door.name, case)
        space = SPACES[case % len(SPACES)]
        value = archs.to_json(space.decode(space.sample(rng, num=1)[0]))
        if case >= 40:
            value = changed(rng, value)

        def use(value=value, space=space):
            arch = archs.from_json(value)
            assert archs.from_json(archs.to_json(arch)) == arch
            assert cost(arch).params > 0
            assert describe(arch)
            assert draw(arch, title="x").startswith("<svg")
            with contextlib.suppress(InputError):  # it may be another space's
                assert space.decode(space.encode(arch)) == arch

        door.call(case, repr(value), use)
    door.check(refused=300, accepted=60)
