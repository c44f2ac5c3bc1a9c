"""The frame of the plots: style, axes, and a figure as SVG for the page and as PNG.

The SVG takes its colours from the page's CSS variables, so that it follows light
and dark mode, and every marked place has a tooltip. matplotlib is imported where
it is used: a training process never loads it.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from typing import Any, NamedTuple

from deepmaker_jax.report import text
from deepmaker_jax.types import Objective

# Written into the figure, then replaced by the page's variables of the same name.
INK, MUTED, GRID, PAPER = "#1f2329", "#6a737e", "#dfe3e8", "#fefefe"
ACCENT, TEST = "#0b6bcb", "#d9480f"
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", ACCENT: "accent", TEST: "test",
}  # fmt: skip
PNG_DPI = 200
SVG_DPI = 72


class Plot(NamedTuple):
    """One figure: `svg` is an element for the page, `png` a file's bytes."""

    svg: str
    png: bytes


class Hit(NamedTuple):
    """A place on a figure with a tooltip; `link` is an anchor of the page, or ""."""

    axes: Any
    x: float
    y: float
    words: str
    link: str = ""


def label_axis(axis, objective: Objective, *, max_ticks: int = 9) -> None:
    """Labels an axis in its objective's unit, ticks at powers of two for bytes."""
    from matplotlib import ticker

    if objective.scale == "log2":
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        if objective.unit == "bytes":
            axis.set_major_locator(ticker.LogLocator(base=2, numticks=max_ticks))
        else:
            axis.set_major_locator(
                ticker.LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=max_ticks)
            )
        axis.set_minor_locator(ticker.NullLocator())
    unit = objective.unit
    format_tick = {
        "bytes": lambda v: f"{v / 1024:.4g} KB" if v < 1024**2 else f"{v / 1024**2:.4g} MB",
        "share": lambda v: f"{100 * v:g} %",
    }.get(unit, tick)
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: format_tick(value)))
    name = text.plain(re.sub("_(bytes|ms)$", "", objective.name).replace("_", " "), limit=40)
    named_unit = f" ({text.plain(unit, limit=24)})" if unit not in ("share", "bytes", "") else ""
    axis.set_label_text(name + named_unit)


def tick(value: float) -> str:
    """Returns a round number without trailing zeros: 0.5, 200, 50k."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:g}{suffix}"
    return f"{value:g}"


def limits(axes, x: Objective, y: Objective, *, empty: bool) -> None:
    """Keeps an empty plot on the config's own range; lets a full one breathe."""
    if empty:
        axes.set_xlim(x.ideal, x.reference)
        axes.set_ylim(y.ideal, y.reference)
    else:
        axes.margins(x=0.06, y=0.07)


def style():
    import matplotlib

    return matplotlib.rc_context(
        {
            "axes.edgecolor": GRID,
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.facecolor": PAPER,
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "axes.axisbelow": True,
            "legend.fontsize": 8.5,
            "legend.labelcolor": INK,
            "svg.fonttype": "none",
            # A network's name may hold a dollar sign.
            "text.parse_math": False,
            "text.color": INK,
            "text.usetex": False,
            "xtick.color": GRID,
            "xtick.labelcolor": MUTED,
            "ytick.color": GRID,
            "ytick.labelcolor": MUTED,
        }
    )


def render(figure, hits: list[Hit], *, salt: str) -> Plot:
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = f"deepmaker-{salt}"  # undone by `style`'s context
    svg, png = io.StringIO(), io.BytesIO()
    with warnings.catch_warnings():
        # A published network may be named in a script that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(svg, format="svg", metadata=metadata)
        places = [(hit, *hit.axes.transData.transform((hit.x, hit.y))) for hit in hits]
        figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    height = figure.get_figheight() * SVG_DPI
    targets = [(hit, x, height - y) for hit, x, y in places]
    return Plot(_inline(svg.getvalue(), targets), png.getvalue())


def _inline(svg: str, targets: list[tuple[Hit, float, float]]) -> str:
    """Returns matplotlib's SVG as an element for HTML: no namespaces, unused ids or metadata."""
    root = ET.fromstring(svg)
    used = set(re.findall(r"#([\w-]+)", svg))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in list(element.attrib):
            value = element.attrib.pop(name)
            if name != "id" or value in used:
                element.set(name.rpartition("}")[2], value)
    for parent in root.iter():
        for child in [c for c in parent if c.tag in ("metadata", "style", "title")]:
            parent.remove(child)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("class", "plot")
    root.set("role", "img")
    for hit, x, y in targets:
        parent = ET.SubElement(root, "a", {"href": f"#{hit.link}"}) if hit.link else root
        circle = {"class": "hit", "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "6"}
        ET.SubElement(ET.SubElement(parent, "circle", circle), "title").text = hit.words
    result = ET.tostring(root, encoding="unicode")
    for colour, name in VARIABLES.items():
        result = result.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", "\n", result)
