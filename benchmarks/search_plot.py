"""Draws the hypervolume by cost that `benchmarks.search_methods` measured, ours against others.

    python -m benchmarks.search_plot benchmarks/results/search_methods.json

Writes a PNG of the same name beside it: medians over the seeds, and quartiles of some of them.
"""

import argparse
import pathlib
from typing import Any

import matplotlib

from deepmaker_jax.files import load_json

matplotlib.use("Agg")
from matplotlib import pyplot

OURS, PARTS = "ours", "ours, "
FIRST_DRAWS = ", our first draws"  # of a peer: in its colour, dotted
SHADED = (OURS, "random, our sampler", "random, uniform genes")  # with their quartiles
COLOURS = {
    OURS: "#c0392b", "random, our sampler": "#222222", "random, uniform genes": "#999999",
    "NSGA-II": "#e08214", "regularised evolution": "#2ca02c", "Optuna NSGA-II": "#9467bd",
    "Optuna TPE": "#1f77b4", "pymoo NSGA-II": "#8c564b", "pymoo NSGA-III": "#17becf",
}  # fmt: skip


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
    """Draws what a file of figures holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=pathlib.Path, help="what search_methods published")
    args = parser.parse_args()
    plot(load_json(args.figures), args.figures.with_suffix(".png"))


if __name__ == "__main__":
    main()
