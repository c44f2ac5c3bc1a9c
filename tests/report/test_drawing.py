"""Drawings of networks."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from deepmaker_jax.arch import ArchSpec, Stage, layers
from deepmaker_jax.cost import cost
from deepmaker_jax.report.drawing import WIDEST_PX, draw
from deepmaker_jax.spaces import deepmaker, neuropower


def make_arch(*stages, stem_reduction="none", activation="relu"):
    """Returns a network of the given stages."""
    return ArchSpec((32, 32, 3), 10, 16, stem_reduction, "post", activation, stages, "sgd", 0)


def stage(num_layers, *, connectivity="full", bottleneck=0, compression_percent=50):
    """Returns a stage of growth 8."""
    return Stage(num_layers, 8, 3, bottleneck, connectivity, compression_percent)


def captions(svg):
    """Returns the drawing's visible words."""
    root = ET.fromstring(svg)
    return ["".join(t.itertext()) for t in root.iter("text") if t.find("title") is None]


def num_boxes(svg, kind):
    return sum(1 for g in ET.fromstring(svg).iter("g") if g.get("class") == kind)


def arcs(svg):
    (path,) = [p for p in ET.fromstring(svg).iter("path") if "arc" in p.get("class")]
    return path.get("d").count("Q")


def test_captions_say_kernel_channels_and_resolution():
    last = stage(1, connectivity="window", bottleneck=4, compression_percent=0)
    svg = draw(make_arch(stage(3), last, stem_reduction="pool"))
    assert captions(svg) == [
        "image", "32x32x3",
        "stem", "3x3, 2x2 max pool", "16 channels",
        "stage 1: 16x16", "3 layers 3x3", "16 channels, +8 each", "full dense",
        "transition", "1x1 to 20", "2x2 avg pool",
        "stage 2: 8x8", "1 layer 3x3", "20 channels, +8 each", "4x bottleneck",
        "head", "global pool", "10 classes",
    ]  # fmt: skip


def test_tooltips_say_activation_and_account_for_every_parameter():
    arch = make_arch(stage(3, bottleneck=2), stage(2, compression_percent=0), activation="silu")
    titles = [t.text for t in ET.fromstring(draw(arch)).iter("title")]
    (first,) = [t for t in titles if t.startswith("s1l1:")]
    expected = "s1l1: conv 3x3, 16 channels in, 32x32x8 out, through a 1x1 to 16, silu, "
    assert first == expected + f"{16 * 16 + 32 + 9 * 16 * 8 + 16:,} parameters"
    counts = [t.split(", ")[-1].removesuffix(" parameters") for t in titles if "parameters" in t]
    assert sum(int(c.replace(",", "")) for c in counts) == cost(arch).params


@pytest.mark.parametrize(
    ("connectivity", "expected"),
    # Layers 2..4 and the head reach back past their neighbour.
    [("full", 1 + 2 + 3 + 4), ("window", 1 + 2 + 2 + 2), ("harmonic", 1 + 0 + 2 + 2)],
)
def test_every_link_past_a_neighbour_is_an_arc(connectivity, expected):
    """harmonic: 2 reads 1 and 0; 3 reads 2; 4 reads 3, 2, 0; the head reads 1, 3 and 4."""
    svg = draw(make_arch(stage(4, connectivity=connectivity, compression_percent=0)))
    assert arcs(svg) == expected


@pytest.mark.parametrize("bottleneck", [0, 4])
def test_64_layers_are_all_drawn_and_fit_the_page(bottleneck):
    kinds = [stage(16, bottleneck=bottleneck, compression_percent=p) for p in (50, 50, 50, 0)]
    svg = draw(make_arch(*kinds))
    assert [num_boxes(svg, f"s{i}") for i in range(1, 5)] == [16] * 4
    assert float(ET.fromstring(svg).get("width")) <= WIDEST_PX


def test_a_very_long_stage_says_how_many_layers_it_hides():
    svg = draw(make_arch(stage(200, compression_percent=0)))
    assert num_boxes(svg, "s1") == 18
    words = "".join(ET.fromstring(svg).itertext())
    assert "182 more layers of the same kind" in words
    assert "200 layers 3x3" in words


def test_boxes_and_captions_stay_inside_the_drawing():
    space = deepmaker((32, 32, 3), 10)
    for genome in space.sample(np.random.default_rng(0), num=30):
        root = ET.fromstring(draw(space.decode(genome)))
        _, top, width, height = map(float, root.get("viewBox").split())
        for rect in root.iter("rect"):
            x, y, w, h = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            assert x >= 0
            assert w > 0
            assert x + w <= width
            assert y >= top
            assert y + h <= top + height
        for words in root.iter("text"):
            assert top <= float(words.get("y")) <= top + height


def test_pre_activation_networks_are_drawn_layer_by_layer():
    arch = neuropower((32, 32, 3), 10).decode([0, 1, 0, 1, 0])
    svg = draw(arch)
    num_convs = sum(1 for layer in layers(arch) if layer.op == "conv" and layer.stage)
    assert sum(num_boxes(svg, f"s{i}") for i in (1, 2, 3)) == num_convs


def test_the_title_is_escaped_and_the_bytes_repeat():
    arch = make_arch(stage(2, compression_percent=0))
    svg = draw(arch, title='"><script>')
    assert ET.fromstring(svg).get("aria-label") == '"><script>'
    assert svg == draw(arch, title='"><script>')
