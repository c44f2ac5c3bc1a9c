"""The run's plots: the front, and the hypervolume by cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepmaker_jax.report import text
from deepmaker_jax.report.figure import (
    ACCENT,
    INK,
    MUTED,
    SVG_DPI,
    TEST,
    Hit,
    Plot,
    label_axis,
    limits,
    render,
    style,
    tick,
)
from deepmaker_jax.report.tables import Row, published, rows
from deepmaker_jax.report.view import (
    RunView,
    candidates,
    fitness,
    front_records,
    hypervolume_trace,
    paid_unit,
)
from deepmaker_jax.types import Objective

# From the first generation to the last; middle tones, seen on white and on black.
GENERATION_COLOURS = ("#8d99a6", "#4c8fd6", "#7a5af0", "#c43fb5", "#ee5d5d")
MAX_COLOURS = 8
ERROR_NAMES = ("error", "val_error")  # objectives that are 1 - accuracy
PUBLISHED_FIELD = {"params": "params", "flash_bytes": "int8_bytes", "int8_bytes": "int8_bytes"}


def plot_front(view: RunView, *, links: Mapping[str, str] | None = None) -> Plot:
    """Returns the front: the first objective against each of the others.

    Args:
      view: the run.
      links: {id: anchor on the page} for members.
    """
    from matplotlib.figure import Figure

    first, *others = view.objectives
    shown = [r for r in candidates(view.records) if r["status"] == "ok"]
    raw = fitness(view.objectives, shown)
    finite = np.asarray(np.isfinite(raw).all(axis=1))
    shown, raw = [r for r, ok in zip(shown, finite, strict=True) if ok], raw[finite]
    on_front = {record["id"] for record in front_records(view)}
    members = np.array([r["id"] in on_front for r in shown], bool)
    generation = np.array([int(text.number(r["generation"]) or 0) for r in shown], int)
    with style():
        figure = Figure(figsize=(9.8, 5.4 if len(others) == 1 else 4.6), dpi=SVG_DPI)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, len(others), squeeze=False, sharey=True)[0]
        colours = _Colours(generation)
        hits: list[Hit] = []
        for column, (axes, other) in enumerate(zip(panels, others, strict=True), 1):
            x, y = raw[:, column], raw[:, 0]
            axes.scatter(
                x[~members], y[~members], s=16, c=colours.of(generation[~members]), alpha=0.5,
                linewidths=0,
            )  # fmt: skip
            if len(others) == 1 and members.any():
                order = np.lexsort((-y[members], x[members]))
                axes.step(
                    x[members][order], y[members][order], where="post", color=INK, lw=1.2,
                    zorder=2.5,
                )  # fmt: skip
            axes.scatter(
                x[members], y[members], s=44, c=colours.of(generation[members]),
                edgecolors=INK, linewidths=0.9, zorder=3,
                label="on the front (validation)" if members.any() else None,
            )  # fmt: skip
            hits += [
                Hit(axes, *point, _words(view, record), (links or {}).get(record["id"], ""))
                for point, record in zip(zip(x, y, strict=True), shown, strict=True)
            ]
            if first.name in ERROR_NAMES:
                hits += _test_points(axes, view, other) + _published_points(axes, view, other)
            label_axis(axes.xaxis, other, max_ticks=max(4, 10 // len(others)))
            limits(axes, other, first, empty=not len(shown))
        label_axis(panels[0].yaxis, first)
        if not len(shown):
            panels[0].text(
                0.5, 0.5, "no candidate measured yet", ha="center", transform=panels[0].transAxes
            )
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            panels[0].legend(handles, labels, loc="upper right", frameon=False)
        colours.bar(figure, panels)
        return render(figure, hits, salt="front")


def plot_hypervolume(view: RunView) -> Plot:
    """Returns the hypervolume against training examples and against time paid for."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    traces = [("training examples", hypervolume_trace(view), 1.0)]
    timed = hypervolume_trace(view, by="seconds")
    if timed.cost.size and timed.cost[-1] > 0:
        unit, hours = paid_unit(view)
        traces.append((f"{unit} (compile, train, evaluate)", timed, hours))
    with style():
        figure = Figure(figsize=(9.8, 3.4), dpi=SVG_DPI, layout="constrained")
        panels = figure.subplots(1, len(traces), squeeze=False, sharey=True)[0]
        hits = []
        for axes, (label, trace, factor) in zip(panels, traces, strict=True):
            cost = trace.cost * factor
            axes.step(
                np.append(0.0, cost), np.append(0.0, trace.hypervolume), where="post",
                color=ACCENT, lw=1.8,
            )  # fmt: skip
            ends = np.flatnonzero(np.append(np.diff(trace.generation) != 0, True)[: cost.size])
            axes.scatter(cost[ends], trace.hypervolume[ends], s=22, color=ACCENT, zorder=3)
            hits += [
                Hit(
                    axes, cost[i], trace.hypervolume[i],
                    f"after generation {trace.generation[i]}: hypervolume "
                    f"{trace.hypervolume[i]:.4f} for {text.short(cost[i])} {label}",
                )
                for i in ends
            ]  # fmt: skip
            axes.set_xlabel(label)
            axes.set_xlim(left=0, right=None if cost.size and cost[-1] > 0 else 1)
            axes.set_ylim(0, max(0.1, 1.08 * trace.hypervolume.max(initial=0.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
            axes.xaxis.get_major_locator().set_params(nbins=5)
        panels[0].set_ylabel("hypervolume")
        return render(figure, hits, salt="hypervolume")


class _Colours:
    """Generations as at most MAX_COLOURS colours, and the bar that names them."""

    def __init__(self, generation: np.ndarray):
        from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap

        self.last = int(generation.max(initial=0))
        step = -(-(self.last + 1) // MAX_COLOURS)
        self.edges = np.arange(0, self.last + step + 1, step)
        num = len(self.edges) - 1
        spectrum = LinearSegmentedColormap.from_list("generation", GENERATION_COLOURS)
        self.map = spectrum.resampled(max(num, 2))
        self.norm = BoundaryNorm(self.edges, num) if num > 1 else None

    def of(self, generation: np.ndarray) -> np.ndarray:
        index = self.norm(generation) if self.norm else np.zeros(len(generation), int)
        return self.map(np.asarray(index, int))

    def bar(self, figure, panels) -> None:
        """Adds the bar; nothing where there is one generation."""
        from matplotlib.cm import ScalarMappable

        if not self.norm:
            return
        low, high = self.edges[:-1], np.minimum(self.edges[1:] - 1, self.last)
        bar = figure.colorbar(
            ScalarMappable(self.norm, self.map), ax=list(panels), aspect=32, pad=0.015,
            ticks=(self.edges[:-1] + self.edges[1:]) / 2,
        )  # fmt: skip
        names = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True)]
        bar.ax.set_yticklabels(names)
        bar.ax.tick_params(length=0)
        bar.outline.set_visible(False)
        bar.set_label("generation", color=MUTED)


def _test_points(axes, view: RunView, other: Objective) -> list[Hit]:
    """Draws the members' test error, joined to the error that the search saw."""
    error = view.objectives[0].name
    points = []
    for row in rows(view):
        x, y = text.number(row.objectives.get(other.name)), text.number(row.objectives.get(error))
        if row.test_accuracy is not None and x is not None and (x > 0 or other.scale != "log2"):
            points.append((row, x, y, 1 - row.test_accuracy))
    for _, x, y, test in points:
        if y is not None:
            axes.plot([x, x], [y, test], color=TEST, lw=0.7, alpha=0.6, zorder=2.4)
    if points:
        axes.scatter(
            [p[1] for p in points], [p[3] for p in points], marker="D", s=20, color=TEST,
            linewidths=0, zorder=3.2, label="test error, retrained",
        )  # fmt: skip
    return [
        Hit(axes, x, test, f"{text.plain(row.id)}: test error {text.percent(test)}")
        for row, x, _, test in points
    ]


def _published_points(axes, view: RunView, other: Objective) -> list[Hit]:
    """Draws the published networks that have a size on this axis."""
    field = PUBLISHED_FIELD.get(other.name, "")
    placed: list[tuple[Row, float, float]] = []
    for row in published(view) if field else []:
        x = getattr(row, field)
        if x is not None and x > 0 and row.test_accuracy is not None:
            placed.append((row, x, 1 - row.test_accuracy))
    if placed:
        axes.scatter(
            [p[1] for p in placed], [p[2] for p in placed], marker="s", s=26, facecolors="none",
            edgecolors=MUTED, linewidths=1.1, zorder=2.8, label="published (test error)",
        )  # fmt: skip
    for i, (row, x, y) in enumerate(sorted(placed, key=lambda p: (p[1], p[2]))):
        axes.annotate(
            text.plain(row.id, limit=28), (x, y), xytext=(0, 7 if i % 2 else -7),
            textcoords="offset points", ha="center", va="bottom" if i % 2 else "top",
            fontsize=7.5, color=MUTED, zorder=2.2,
        )  # fmt: skip
    return [
        Hit(axes, x, y, f"{text.plain(row.id)} (published): test error {text.percent(y)}")
        for row, x, y in placed
    ]


def _words(view: RunView, record: dict[str, Any]) -> str:
    """Returns a candidate's tooltip."""
    values = [
        f"{text.plain(o.name, limit=24)} {text.quantity(record['objectives'].get(o.name), o.unit)}"
        for o in view.objectives
    ]
    return f"{text.plain(record['id'])}, generation {record['generation']}: {', '.join(values)}"
