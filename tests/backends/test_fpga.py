"""FPGA: types that hold every value, designs that fit, networks that cannot be done."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepmaker_jax.arch import INPUT, layers
from deepmaker_jax.backends import fixed, resource
from deepmaker_jax.backends.fpga import supports
from deepmaker_jax.export import Model
from deepmaker_jax.models import Network, fold
from tests.export.networks import make, random_images, random_variables

SMALL = make(depths=(1,))  # what the smaller part holds
TYPE = re.compile(r"(u?)fixed<(\d+),(-?\d+)")


def bounds(text):
    """The smallest and largest value of a type."""
    unsigned, width, whole = TYPE.match(text).groups()
    most = 2.0 ** (int(whole) - (not unsigned))
    return (0.0 if unsigned else -most), most - 2.0 ** (int(whole) - int(width))


@pytest.mark.parametrize("limit", [1e-3, 0.5, 0.99, 1.0, 3.7, 255.0, 256.0, 1e4])
def test_types_hold_their_limit_and_waste_no_bit(limit):
    assert limit <= bounds(fixed.unsigned(limit, 16))[1] + 2 * limit / 2**16
    assert bounds(fixed.unsigned(limit, 16))[1] < 2 * limit * 1.001
    low, high = bounds(fixed.signed(limit, 16))
    assert low <= -limit
    assert limit <= high + 2 * limit / 2**15


def test_sums_never_overflow_and_maps_hold_what_was_calibrated(exported_run, member):
    images = random_images(member.arch, num=16, seed=1)  # what the int8 file was calibrated on
    network = layers(member.arch)
    model = Model.of("x", member.arch, random_variables(member.arch))
    folded, variables = fold(network, model.variables)
    limits = fixed.calibrated(member.bundle / "model_int8.tflite", folded)
    types = fixed.choose_types(folded, variables["params"], limits)
    for i, layer in enumerate(folded):
        if layer.op not in ("conv", "dense"):
            continue
        held = {x.name for x in folded[: i + 1]} & variables["params"].keys()
        weights = {"params": {name: variables["params"][name] for name in held}}
        weights = jax.tree.map(jnp.asarray, weights)

        def outputs(last, before=folded[:i], weights=weights):
            network = Network((*before, last), folded=True)
            return np.asarray(network.apply(weights, jnp.asarray(images, jnp.float32)))

        sums = outputs(layer._replace(activation=""))
        low, high = bounds(types[layer.name].result)
        assert low <= sums.min()
        assert sums.max() <= high
        assert np.abs(outputs(layer)).max() <= limits[layer.name] * 1.01


def assumed(network):
    """Streams of the usual widths, without a file to calibrate their types by."""
    limits = dict.fromkeys([INPUT, *(layer.name for layer in network)], 1.0)
    ones = {"kernel": np.ones((1, 1)), "bias": np.ones(1)}
    types = fixed.choose_types(network, {layer.name: ones for layer in network}, limits)
    return resource.streams(network, types)


def valid(num_in, num_out):
    return [n for n in range(1, num_in * num_out + 1) if (num_in * num_out) % n == 0]


def test_the_fastest_design_that_fits_is_chosen():
    network, _ = fold(layers(SMALL), random_variables(SMALL))
    fifos = assumed(network)
    parts = resource.PARTS.values()
    chosen = [resource.choose_reuse(network, fifos, valid, part) for part in parts]
    taken = [resource.estimate(network, reuse, fifos) for reuse in chosen if reuse]
    assert len(taken) == len(resource.PARTS)
    for estimate, part in zip(taken, parts, strict=True):
        assert resource.fits(estimate, part)
    assert taken[1].interval_cycles < taken[0].interval_cycles  # the larger part is the faster
    weighted = [layer for layer in network if layer.op in ("conv", "dense")]
    slowest = {layer.name: resource.products(layer) for layer in weighted}
    serial = resource.estimate(network, slowest, fifos)
    assert serial.dsps < taken[0].dsps
    assert serial.interval_cycles > taken[0].interval_cycles


def test_what_fits_no_part_has_no_design():
    network, _ = fold(layers(make()), random_variables(make()))
    tiny = resource.Part("tiny", 3, 1000, 1)
    assert resource.choose_reuse(network, assumed(network), valid, tiny) is None


def test_a_design_is_found_though_slower_ones_fit_less():
    """Deep memories of narrow weights fill more blocks than shallow ones of wide weights."""
    network, _ = fold(layers(make()), random_variables(make()))
    fifos = assumed(network)
    weighted = [layer for layer in network if layer.op in ("conv", "dense")]
    slowest = {layer.name: resource.products(layer) for layer in weighted}
    least = resource.estimate(network, slowest, fifos).bram18s
    part = resource.Part("few blocks", 10**6, 10**9, math.ceil(least / resource.SHARE) - 1)
    assert not resource.fits(resource.estimate(network, slowest, fifos), part)
    reuse = resource.choose_reuse(network, fifos, valid, part)
    assert resource.fits(resource.estimate(network, reuse, fifos), part)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        (make(), []),
        (make(depths=(4,), connectivity="window", bottleneck=2, kernel=5), []),
        (make("silu"), ["activation silu"]),
        (make("elu", order="pre"), ["batch norms before activations", "activation elu"]),
        (make(depths=(16,), connectivity="harmonic"), []),
    ],
)
def test_supports_is_known_before_the_build(arch, words):
    found = supports(arch)
    assert len(found) == len(words)
    assert all(word in reason for word, reason in zip(words, found, strict=True))
