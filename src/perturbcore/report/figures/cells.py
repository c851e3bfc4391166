"""Cells as small multiples: one row per perturbation, one column per source of cells."""

import pandas as pd
from matplotlib.figure import Figure

CONTROL, OBSERVED, GENERATED = "#9a9a9a", "#D55E00", "#0072B2"


def cell_grid(table: pd.DataFrame, *, row: str, column: str, xlabel: str, ylabel: str) -> Figure:
    """Draw cells on two axes, with the mean of each sample as a cross."""
    rows = list(dict.fromkeys(table[row]))
    columns = [c for c in dict.fromkeys(table[column]) if c]
    figure = Figure(
        figsize=(0.8 + 1.75 * len(columns), 0.9 + 1.7 * len(rows)), layout="constrained"
    )
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex="row", sharey="row")
    for r, name in enumerate(rows):
        here = table[table[row] == name]
        control = here[here["sample"] == "control"]
        observed = here[here["sample"] == "observed"]
        for side in ("x", "y"):
            # a few far cells must not squeeze the others
            low, high = here[side].quantile([0.01, 0.99])
            axes[r, 0].set(
                **{f"{side}lim": (low - 0.15 * (high - low), high + 0.15 * (high - low))}
            )
        for axis, which in zip(axes[r], columns, strict=True):
            cells = here[(here[column] == which) & (here["sample"] != "control")]
            look = OBSERVED if (cells["sample"] == "observed").any() else GENERATED
            for part, m, c, size, alpha in (
                (control, ".", CONTROL, 2.5, 0.45), (cells, "o", look, 3, 0.55),
            ):  # fmt: skip
                axis.plot(
                    part["x"], part["y"], ls="", marker=m, ms=size, color=c, alpha=alpha, mew=0
                )
            for part, c in ((control, "#4d4d4d"), (observed, OBSERVED), (cells, look)):
                for width, shade in ((3.4, "white"), (1.8, c)) if len(part) else ():
                    axis.plot(part["x"].mean(), part["y"].mean(), marker="+", ms=10, mew=width,
                              color=shade)  # fmt: skip
            axis.set_xticks([])
            axis.set_yticks([])
            if r == 0:
                axis.set_title(which, fontsize=8, loc="left", fontweight="bold")
        axes[r, 0].set_ylabel(name, fontsize=8)
    figure.supxlabel(xlabel, fontsize=8)
    figure.supylabel(ylabel, fontsize=8)
    return figure
