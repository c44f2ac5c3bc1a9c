"""A network as a small SVG: boxes along a line, dense links as arcs.

A box is as tall as the resolution (log2) and as wide as the channels it puts out
(log2). Everything is read from `arch.layers`, the list that the model itself is
built from. Colours are CSS classes, which `report/style.py` defines.
"""

import html
import math
from itertools import pairwise
from typing import NamedTuple

from deepmaker_jax.arch import INPUT, WINDOW, ArchSpec, Layer, layers
from deepmaker_jax.cost import layer_params
from deepmaker_jax.report import text

MAX_DRAWN = 20  # layers of one stage; more are drawn as the first, a gap and the last
HEAD, TAIL = 12, 6
GAP = "gap"
CHARACTER_PX = 5.8  # width of a caption's character
LINE_PX = 14  # from one caption line to the next
MARGIN_PX = 8
WIDEST_PX = 1090  # of the page's column; boxes shrink until a drawing fits
SHRINKS = (1.0, 0.8, 0.65, 0.5, 0.35)
LINKS = {"full": "full dense", "harmonic": "harmonic", "window": f"window of {WINDOW}"}
STRONG = ' class="strong"'


class Box(NamedTuple):
    """One drawn operation: what it is and which boxes it reads.

    Attributes:
      layer: the operation; None for the image and for a gap.
      name: key among the boxes.
      reads: names of boxes.
      shape: (h, w, c) put out; (c,) after the global pool.
      squeeze: the 1x1 bottleneck before it, if any.
    """

    layer: Layer | None
    name: str
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    squeeze: Layer | None = None


class Spot(NamedTuple):
    """Where a box is drawn: its left edge, width and height in pixels, centred on y = 0."""

    x: float
    width: float
    height: float


class Group(NamedTuple):
    """Boxes that share a caption: a stage, a transition, the stem, the head."""

    kind: str  # CSS class
    boxes: list[Box]
    caption: list[str]


def draw(arch: ArchSpec, *, title: str = "") -> str:
    """Returns the network's drawing as one SVG element, the same bytes every time.

    Args:
      arch: the architecture.
      title: what a screen reader says first; foreign text is fine.
    """
    groups = _groups(arch)
    for shrink in SHRINKS:
        spots, centres, width = _place(groups, shrink)
        if width <= WIDEST_PX:
            break
    boxes = [box for group in groups for box in group.boxes]
    lines, arcs, arc_top = _links(boxes, spots)
    half = max(spot.height for spot in spots.values()) / 2
    top, below = min(-half, arc_top) - 4, half + 18
    captions = [
        f'<text x="{centre:.1f}" y="{below + LINE_PX * i:.1f}"{"" if i else STRONG}>'
        f"{html.escape(words)}</text>"
        for group, centre in zip(groups, centres, strict=True)
        for i, words in enumerate(group.caption)
    ]
    rects = [_rect(group.kind, box, spots[box.name]) for group in groups for box in group.boxes]
    height = below + LINE_PX * (max(len(group.caption) for group in groups) - 1) + 6 - top
    return (
        f'<svg class="net" viewBox="0 {top:.0f} {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{html.escape(text.plain(title))}">'
        f"{lines}{arcs}{''.join(rects)}{''.join(captions)}</svg>"
    )


def _place(groups: list[Group], shrink: float) -> tuple[dict[str, Spot], list[float], float]:
    """Returns where each box is, the middle of each group, and the whole width."""
    spots, centres, x = {}, [], float(MARGIN_PX)
    for group in groups:
        gap = shrink * (12 if len(group.boxes) <= 8 else 8)
        widths = [_width(box, shrink) for box in group.boxes]
        inner = sum(widths) + gap * (len(widths) - 1)
        outer = max(inner, CHARACTER_PX * max(map(len, group.caption)))
        at = x + (outer - inner) / 2
        for box, width in zip(group.boxes, widths, strict=True):
            spots[box.name] = Spot(at, width, _height(box.shape))
            at += width + gap
        centres.append(x + outer / 2)
        x += outer + 14
    return spots, centres, x - 14 + MARGIN_PX


def _boxes(arch: ArchSpec) -> list[Box]:
    """Returns what is drawn, in order; concatenations and norms become links."""
    feeds: dict[str, tuple[str, ...]] = {INPUT: (INPUT,)}
    boxes = [Box(None, INPUT, (), arch.input_shape)]
    squeeze: Layer | None = None
    for layer in layers(arch):
        reads = tuple(dict.fromkeys(name for i in layer.inputs for name in feeds[i]))
        feeds[layer.name] = reads
        if layer.op in ("concat", "norm"):
            continue
        if layer.name.endswith("_squeeze"):
            squeeze = layer
            continue
        feeds[layer.name] = (layer.name,)
        boxes.append(Box(layer, layer.name, reads, layer.shape, squeeze))
        squeeze = None
    return boxes


def _groups(arch: ArchSpec) -> list[Group]:
    boxes = _boxes(arch)
    first = next(i for i, box in enumerate(boxes) if box.layer and box.layer.stage)
    h, w, c = arch.input_shape
    groups = [Group("io", boxes[:1], ["image", f"{h}x{w}x{c}"])]
    stem = layers(arch)[0]
    how = {"none": "", "stride": ", stride 2", "pool": ", 2x2 max pool"}[arch.stem_reduction]
    caption = ["stem", f"{stem.kernel}x{stem.kernel}{how}", f"{stem.shape[-1]} channels"]
    groups.append(Group("stem", boxes[1:first], caption))
    rest = boxes[first:]
    for index, stage in enumerate(arch.stages, 1):
        inside = [b for b in rest if b.layer and b.layer.stage == index]
        shape, start = inside[0].shape, boxes[boxes.index(inside[0]) - 1].shape[-1]
        plural = "" if stage.num_layers == 1 else "s"
        caption = [
            f"stage {index}: {shape[0]}x{shape[1]}",
            f"{stage.num_layers} layer{plural} {stage.kernel}x{stage.kernel}",
            f"{start} channels, +{stage.growth} each",
        ]
        notes = [] if stage.num_layers == 1 else [LINKS[stage.connectivity]]
        notes += [f"{stage.bottleneck}x bottleneck"] if stage.bottleneck else []
        caption += notes
        groups.append(Group(f"s{(index - 1) % 4 + 1}", _shortened(inside, index), caption))
        transition = [b for b in rest if b.name in (f"t{index}", f"t{index}_pool")]
        if transition:
            caption = ["transition", f"1x1 to {transition[0].shape[-1]}", "2x2 avg pool"]
            groups.append(Group("transition", transition, caption))
    caption = ["head", "global pool", f"{arch.num_classes} classes"]
    return [*groups, Group("io", rest[-2:], caption)]


def _shortened(boxes: list[Box], index: int) -> list[Box]:
    """Replaces the middle of a very long stage by a gap."""
    if len(boxes) <= MAX_DRAWN:
        return boxes
    gap = Box(None, f"{GAP}{index}:{len(boxes) - HEAD - TAIL}", (), boxes[0].shape)
    return [*boxes[:HEAD], gap, *boxes[-TAIL:]]


def _width(box: Box, shrink: float) -> float:
    if box.name.startswith(GAP):
        return 34  # holds a number, which does not shrink
    squeeze = 4 if box.squeeze else 0
    return shrink * (squeeze + 3 + 2 * math.log2(1 + box.shape[-1]))


def _height(shape: tuple[int, ...]) -> float:
    side = max(shape[:2]) if len(shape) == 3 else 1
    return 12 + 11 * math.log2(side)


def _rect(kind: str, box: Box, spot: Spot) -> str:
    x, width, height = spot
    top = -height / 2
    if box.name.startswith(GAP):
        hidden = box.name.partition(":")[2]
        return (
            f'<text x="{x + width / 2:.1f}" y="-5">+{hidden}'
            f"<title>{hidden} more layers of the same kind</title></text>"
        )
    about = f"<title>{html.escape(_about(box))}</title>"
    parts = ""
    if box.squeeze:
        edge = width / 4
        parts = (
            f'<rect class="squeeze" x="{x:.1f}" y="{top:.1f}" width="{edge:.1f}" '
            f'height="{height:.1f}"/>'
        )
        x, width = x + edge, width - edge
    parts += f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5"/>'
    return f'<g class="{kind}">{about}{parts}</g>'


def _about(box: Box) -> str:
    """Returns a box in words, for the pointer."""
    shape = "x".join(map(str, box.shape))
    if box.layer is None:
        return f"image {shape}"
    layer = box.layer
    words = [f"{layer.name}: {layer.op.replace('_', ' ')}"]
    if layer.op == "conv":
        words[0] += f" {layer.kernel}x{layer.kernel}" + (", stride 2" if layer.stride == 2 else "")
    before = box.squeeze.in_channels if box.squeeze else layer.in_channels
    words.append(f"{before} channels in, {shape} out")
    if box.squeeze:
        words.append(f"through a 1x1 to {box.squeeze.shape[-1]}")
    words += [layer.activation] if layer.activation else []
    count = layer_params(layer) + (layer_params(box.squeeze) if box.squeeze else 0)
    return ", ".join(words) + (f", {count:,} parameters" if count else "")


def _links(boxes: list[Box], spots: dict[str, Spot]) -> tuple[str, str, float]:
    """Returns the links between drawn boxes, and where the highest one is.

    A line goes to the next box, an arc past others.
    """
    lines, arcs, highest = [], [], 0.0
    for before, box in pairwise(boxes):
        end = spots[box.name]
        lines.append(f"M{spots[before.name].x + spots[before.name].width:.1f},0H{end.x:.1f}")
        for name in box.reads:
            if name == before.name or name not in spots:
                continue
            start = spots[name]
            x1, y1 = start.x + start.width / 2, -start.height / 2 - 1
            x2, y2 = end.x + end.width / 2, -end.height / 2 - 1
            lift = min(y1, y2) - min(84.0, 10 + 0.34 * (x2 - x1))
            highest = min(highest, (y1 + 2 * lift + y2) / 4)  # the curve's own middle
            arcs.append(f"M{x1:.1f},{y1:.1f}Q{(x1 + x2) / 2:.1f},{lift:.1f} {x2:.1f},{y2:.1f}")
    faint = " many" if len(arcs) > 60 else ""
    return (
        f'<path class="line" d="{"".join(lines)}"/>',
        f'<path class="arc{faint}" d="{"".join(arcs)}"/>',
        highest,
    )
