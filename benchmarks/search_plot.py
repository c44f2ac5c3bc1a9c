"""Draws and tells what `benchmarks.search_methods` measured, ours against others.

    python -m benchmarks.search_plot benchmarks/results/search_methods.json

Writes a PNG of the same name beside it, the hypervolume by cost: medians over the seeds, and
quartiles of some of them. Prints README's table.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import matplotlib

from deepmaker_jax.files import load_json

matplotlib.use("Agg")
from matplotlib import pyplot

OURS, PARTS = "ours", "ours, "
LEFT_OUT = (
    *(f"{PARTS}without {part}" for part in ("halving", "evolution", "preselection")),
    f"{PARTS}first drawn uniformly", f"{PARTS}foreseen by genes alone",
)  # fmt: skip
FIRST_DRAWS = ", our first draws"  # of a peer: in its colour, dotted
SHADED = (OURS, "random, our sampler", "random, uniform genes")  # with their quartiles
COLOURS = {
    OURS: "#c0392b", "random, our sampler": "#222222", "random, uniform genes": "#999999",
    "NSGA-II": "#e08214", "regularised evolution": "#2ca02c", "Optuna NSGA-II": "#9467bd",
    "Optuna TPE": "#1f77b4", "pymoo NSGA-II": "#8c564b", "pymoo NSGA-III": "#17becf",
}  # fmt: skip


def table(document: dict[str, Any]) -> list[str]:
    """Returns the lines of a table in Markdown: ours with its parts left out, then the others."""
    rows = {row["method"]: row for row in document["methods"]}
    others = [name for name in rows if not name.startswith(OURS)]
    others.sort(key=lambda name: -rows[name]["hypervolume"])
    goals = list(rows[OURS]["cost_share_to"])
    head = ["search", "hypervolume (quartiles)", "ours is above by"]
    head += [f"cost to where “{goal}” ends" for goal in goals]
    lines = [head, ["---"] * len(head)]
    for name in (OURS, *(name for name in LEFT_OUT if name in rows), *others):
        row = rows[name]
        low, high = row["quartiles"]
        above = row.get("ours_above_by")
        difference = "" if above is None else _between(above, lambda value: f"{value:z.3f}")
        shares = [_between(row["cost_share_to"][goal], _percent) for goal in goals]
        volume = f"{row['hypervolume']:.3f} ({low:.3f} to {high:.3f})"
        lines.append([name, volume, difference, *shares])
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _between(found: dict[str, Any], text: Callable[[float | None], str]) -> str:
    """Returns a value, and between what it lies."""
    value, low, high = map(text, (found["value"], *found["interval"]))
    return value if value == low == high else f"{value} ({low} to {high})"


def _percent(share: float | None) -> str:
    return "never" if share is None else f"{100 * share:.0f} %"


def plot(document: dict[str, Any], path: pathlib.Path) -> None:
    """Draws every method but the variants of ours; the best is the topmost in the legend."""
    methods = [row for row in document["methods"] if not row["method"].startswith(PARTS)]
    figure, axes = pyplot.subplots(figsize=(9, 4.5), dpi=110, layout="constrained")
    for row in sorted(methods, key=lambda row: -row["hypervolume"]):
        name, medians = row["method"], row["by_cost"]
        shares = [(i + 1) / len(medians) for i in range(len(medians))]
        (line,) = axes.plot(
            shares, medians, label=name, color=COLOURS[name.removesuffix(FIRST_DRAWS)],
            linestyle=":" if name.endswith(FIRST_DRAWS) else "-",
            linewidth=2.5 if name == OURS else 1.2, zorder=3 if name == OURS else 2,
        )  # fmt: skip
        if name in SHADED:
            low, high = zip(*row["quartiles_by_cost"], strict=True)
            axes.fill_between(shares, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0.3)
    axes.grid(alpha=0.3)
    axes.set_xlabel(f"cost, share of {document['budget_seconds'] / 60:.0f} min of training")
    axes.set_ylabel(f"hypervolume, median of {document['seeds']} seeds")
    figure.legend(fontsize="small", loc="outside right upper")
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Draws and prints what a file of figures holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=pathlib.Path, help="what search_methods published")
    args = parser.parse_args()
    document = load_json(args.figures)
    plot(document, args.figures.with_suffix(".png"))
    print("\n".join(table(document)))


if __name__ == "__main__":
    main()
