"""One suite over every space."""

import dataclasses
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmaker_jax import arch as arch_module
from deepmaker_jax.arch import smallest_side
from deepmaker_jax.cost import cost
from deepmaker_jax.errors import InputError
from deepmaker_jax.spaces import SPACES, Gene, Space, deepmaker, neuropower

SHAPES = {"cifar": (32, 32, 3), "digits": (8, 8, 1), "odd": (28, 20, 2)}
CASES = [
    pytest.param(make(shape, 10), id=f"{name}-{title}")
    for name, make in SPACES.items()
    for title, shape in SHAPES.items()
]


def genomes(space: Space):
    return st.tuples(*(st.integers(0, num - 1) for num in space.num_choices))


@pytest.mark.parametrize("space", CASES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_repair_is_idempotent_and_keeps_the_network(space, data):
    genome = data.draw(genomes(space))
    repaired = space.repair(genome)
    assert repaired.dtype == np.int32
    np.testing.assert_array_equal(space.repair(repaired), repaired)
    assert space.decode(repaired) == space.decode(genome)
    assert space.id(repaired) == space.id(genome)


@pytest.mark.parametrize("space", CASES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_encode_inverts_decode_up_to_repair(space, data):
    genome = data.draw(genomes(space))
    arch = space.decode(genome)
    np.testing.assert_array_equal(space.encode(arch), space.repair(genome))
    assert space.decode(space.encode(arch)) == arch
    assert hash(arch) == hash(space.decode(genome))


@pytest.mark.parametrize("space", CASES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_genome_is_a_valid_network_that_json_rebuilds(space, data):
    arch = space.decode(data.draw(genomes(space)))
    arch_module.check(arch)
    assert smallest_side(arch) >= 1
    assert arch_module.from_json(arch_module.to_json(arch)) == arch


@pytest.mark.parametrize("space", CASES)
def test_equal_layer_lists_have_equal_genomes(space):
    rng = np.random.default_rng(0)
    seen = {}
    for genome in space.sample(rng, num=300):
        arch = space.decode(genome)
        name = (arch_module.layers(arch), arch.optimizer, arch.learning_rate_log2)
        assert seen.setdefault(name, tuple(genome)) == tuple(genome)


@pytest.mark.parametrize("space", CASES)
def test_samples_are_repaired_and_depend_on_the_generator_alone(space):
    first = space.sample(np.random.default_rng(3), num=20)
    again = space.sample(np.random.default_rng(3), num=20)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (20, len(space.genes))
    for genome in first:
        np.testing.assert_array_equal(space.repair(genome), genome)


def test_the_id_is_the_documented_hash():
    space = neuropower((32, 32, 3), 10)
    genome = np.array([2, 1, 0, 5, 3], np.int32)
    data = b"neuropower" + genome.astype("<i4").tobytes()
    assert space.id(genome) == hashlib.sha256(data).hexdigest()[:12]


@pytest.mark.parametrize(
    ("depth", "blocks", "params"),
    [
        (16, 2, 65_506),
        (16, 3, 141_442),
        (28, 2, 218_530),
        (28, 3, 493_810),
        (40, 2, 460_642),
        (40, 3, 1_059_298),
    ],
)
def test_neuropower_has_the_published_parameter_counts(depth, blocks, params):
    space = neuropower((32, 32, 3), 10)
    genome = space.genome(
        {
            "depth": depth,
            "blocks": blocks,
            "activation_negative": "elu",
            "activation_positive": "relu",
            "optimizer": "adam",
        }
    )
    assert cost(space.decode(genome)).params == params


def test_neuropower_has_1080_genomes():
    assert neuropower((32, 32, 3), 10).num_genomes == 1080


def test_deepmaker_reaches_from_under_5k_to_over_2m_parameters():
    space = deepmaker((32, 32, 3), 10)
    counts = [cost(space.decode(g)).params for g in space.sample(np.random.default_rng(0), num=400)]
    assert min(counts) < 5_000
    assert max(counts) > 2_000_000


def test_deepmaker_contains_a_densenet_bc_100_12():
    space = deepmaker((32, 32, 3), 10)
    row = {gene.name: gene.choices[0] for gene in space.genes}
    row |= {"stages": 3, "stem_width": 24, "bottleneck": 4}
    row |= {f"layers_{s}": 16 for s in (1, 2, 3)} | {f"growth_{s}": 12 for s in (1, 2, 3)}
    arch = space.decode(space.genome(row))
    convolutions = [layer for layer in arch_module.layers(arch) if layer.op == "conv"]
    assert len(convolutions) + 1 == 100  # stem, 3 x 16 x 2, 2 transitions, and the classifier
    assert cost(arch).params == pytest.approx(769_162, rel=0.03)  # its pre-activation original


def test_deepmaker_channels_are_multiples_of_four():
    space = deepmaker((32, 32, 3), 10)
    for genome in space.sample(np.random.default_rng(1), num=100):
        channels = {x.shape[-1] for x in arch_module.layers(space.decode(genome))[:-1]}
        assert all(c % 4 == 0 for c in channels)


def test_connectivities_that_mean_the_same_become_full():
    space = deepmaker((32, 32, 3), 10)
    row = {gene.name: gene.choices[0] for gene in space.genes} | {"connectivity": "window"}
    assert space.row(space.repair(space.genome(row)))["connectivity"] == "full"  # one layer
    row |= {"layers_1": 4}
    assert space.row(space.repair(space.genome(row)))["connectivity"] == "window"


def test_stages_that_would_vanish_are_taken_off():
    space = deepmaker((8, 8, 1), 10)
    row = {gene.name: gene.choices[0] for gene in space.genes} | {"stages": 4}
    assert len(space.decode(space.genome(row)).stages) == 3  # 8, 4, 2 pixels
    row |= {"stem_reduction": "stride"}
    assert len(space.decode(space.genome(row)).stages) == 2


def test_a_genome_in_words():
    space = neuropower((32, 32, 3), 10)
    assert space.describe([0, 1, 2, 3, 4]) == (
        "A 3x3 convolution to 24 channels, then 3 dense stages: 4 layers of 12 channels at 32x32 "
        "pixels, 4 layers of 12 channels at 16x16 pixels and 4 layers of 12 channels at 8x8 "
        "pixels, with transitions to 72 and 120 channels (1x1, 2x2 pool) between them. Each "
        "layer reads every earlier map of its stage through a 3x3 convolution; batch norm and tanh "
        "(below 0) or sigmoid (above) come before each convolution. Trained by nadam."
    )
    space = deepmaker((8, 8, 1), 10)
    row = {"stem_reduction": "stride", "stages": 4, "layers_1": 4, "connectivity": "window"}
    row |= {"bottleneck": 2, "learning_rate_log2": -1}
    assert space.describe(space.genome(row)) == (
        "A 3x3 convolution to 8 channels with stride 2, then 2 dense stages: 4 layers of 4 "
        "channels at 4x4 pixels and 1 layer of 4 channels at 2x2 pixels, with transitions to 8 "
        "channels (1x1, 2x2 pool) between them. Each layer reads the last three maps of its stage "
        "through a 1x1 bottleneck of 2 times its growth, then a 3x3 convolution; batch norm and "
        "relu come after each convolution. Trained by sgd, learning rate x0.5."
    )


@pytest.mark.parametrize("space", CASES)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_different_networks_have_different_words(space, data):
    one, other = data.draw(genomes(space)), data.draw(genomes(space))
    same = space.decode(one) == space.decode(other)
    assert (space.describe(one) == space.describe(other)) == same


@pytest.mark.parametrize(
    ("genome", "message"),
    [
        ([0, 0, 0, 0], r"must be 5 whole numbers, one per gene of space neuropower"),
        (np.zeros(5), r"must be 5 whole numbers"),
        ([3, 0, 0, 0, 0], r"gene depth \(=3\) must be in 0\.\.2, an index into \(16, 28, 40\)"),
        ([0, -1, 0, 0, 0], r"gene blocks \(=-1\) must be in 0\.\.1"),
    ],
)
def test_a_bad_genome_is_refused_with_the_gene_and_the_rule(genome, message):
    with pytest.raises(InputError, match=message):
        neuropower((32, 32, 3), 10).decode(genome)


@pytest.mark.parametrize(
    ("shape", "allowed", "words"),
    [
        ((8, 8, 1), {"stages": (4,)}, r"stages \(=4\) must be at most 3 for images of 8x8"),
        ((8, 8, 1), {"stages": (2, 4)}, r"at most 3 for .* with stem_reduction none or stride or"),
        (
            (8, 32, 3),
            {"stages": (3,), "stem_reduction": ("stride", "pool")},
            r"must be at most 2 for images of 8x32 with stem_reduction stride or pool: a further",
        ),
    ],
)
def test_stages_that_the_images_are_too_small_for_are_refused(shape, allowed, words):
    with pytest.raises(InputError, match=words):
        deepmaker(shape, 10).narrow(allowed)


def test_stages_that_one_stem_reaches_are_allowed():
    space = deepmaker((8, 8, 1), 10).narrow({"stages": (3,)})
    archs = [space.decode(g) for g in space.sample(np.random.default_rng(0), num=30)]
    assert {len(arch.stages) for arch in archs} == {2, 3}  # 2 with a stem that halves the map


@pytest.mark.parametrize("name", SPACES)
def test_every_space_serves_the_smallest_images(name):
    space = SPACES[name]((4, 4, 1), 2)
    for genome in space.sample(np.random.default_rng(0), num=30):
        assert smallest_side(space.decode(genome)) >= 1


def test_narrowing_keeps_the_networks_and_changes_the_ids():
    space = deepmaker((32, 32, 3), 10)
    narrow = space.narrow({"activation": ("relu6", "elu"), "layers_2": (3, 4)})
    for genome in narrow.sample(np.random.default_rng(0), num=50):
        row = narrow.row(genome)
        assert row["activation"] in ("relu6", "elu")
        assert row["layers_2"] in (3, 4)
        arch = narrow.decode(genome)
        assert space.decode(space.encode(arch)) == arch
        np.testing.assert_array_equal(narrow.encode(arch), genome)
        assert narrow.id(genome) != space.id(space.encode(arch))


def test_narrowing_keeps_equal_networks_equal_genomes():
    space = deepmaker((8, 8, 1), 10).narrow(
        {"stages": (2, 3), "connectivity": ("harmonic", "window")}
    )
    seen = {}
    for genome in space.sample(np.random.default_rng(0), num=400):
        arch = space.decode(genome)
        np.testing.assert_array_equal(space.encode(arch), genome)
        name = (arch_module.layers(arch), arch.optimizer, arch.learning_rate_log2)
        assert seen.setdefault(name, tuple(genome)) == tuple(genome)


def test_the_order_of_the_choices_named_does_not_change_the_space():
    space = deepmaker((8, 8, 1), 10)
    one = space.narrow({"activation": ("relu", "elu")})
    assert one.name == space.narrow({"activation": ("elu", "relu")}).name


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        ({"colour": ("red",)}, "has no gene 'colour': it has stem_width"),
        ({"kernel": (7,)}, r"gene kernel \(=7\) must take some of 3, 5$"),
        ({"kernel": ()}, r"must take some of 3, 5$"),
    ],
)
def test_narrowing_to_nothing_is_refused(allowed, message):
    with pytest.raises(InputError, match=message):
        deepmaker((32, 32, 3), 10).narrow(allowed)


def test_a_space_of_ones_own_needs_three_fields():
    arch = deepmaker((8, 8, 1), 10).decode([0] * 20)
    space = Space("mine", (Gene("width", (8, 16)),), lambda row: arch)
    assert space.decode([1]) == arch
    with pytest.raises(InputError, match="has no from_arch"):
        space.encode(arch)


@pytest.mark.parametrize("name", ["to_arch", "canonical", "unused"])
def test_what_a_space_of_ones_own_raises_is_one_line_that_names_it(name):
    def fail(row):
        return row["height"]

    space = Space("mine", (Gene("width", (8, 16)),), lambda row: None)
    with pytest.raises(InputError, match=rf"space mine: {name} raises KeyError: 'height'$"):
        dataclasses.replace(space, **{name: fail}).decode([1])
    with pytest.raises(
        InputError, match="space mine: to_arch returns None: it must return an Arch"
    ):
        space.decode([1])


@pytest.mark.parametrize(
    ("choices", "ordered"),
    [((8, 16, 32), True), ((8,), True), ((16, 8), False), ((8, 8), False), (("a", "b"), False)],
)
def test_a_gene_is_ordered_where_its_choices_are_rising_numbers(choices, ordered):
    assert Gene("width", choices).ordered is ordered
