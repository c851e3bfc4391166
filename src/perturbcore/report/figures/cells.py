"""Cells as small multiples: one row a perturbation, one column a source of cells, controls behind."""

import pandas as pd
from matplotlib.figure import Figure

CONTROL, OBSERVED, GENERATED = "#9a9a9a", "#D55E00", "#0072B2"


def cell_grid(table: pd.DataFrame, *, row: str, column: str, xlabel: str, ylabel: str) -> Figure:
    """Draw cells on two axes, with the mean of each sample as a cross.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a cell: x, y, `row`, `column` and `sample` ("control", "observed" or "generated").
        Controls and observed cells of a row are drawn in each of its panels: a panel with observed cells
        only has the observed ones, the others show the mean of the observed cells as a cross.
    row, column : str
        Columns of `table` that make the grid, in order of first appearance.
    xlabel, ylabel : str
    """
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
            c = OBSERVED if (cells["sample"] == "observed").any() else GENERATED
            axis.plot(
                control["x"],
                control["y"],
                ls="",
                marker=".",
                ms=2.5,
                color=CONTROL,
                alpha=0.45,
                mew=0,
            )
            axis.plot(cells["x"], cells["y"], ls="", marker="o", ms=3, color=c, alpha=0.55, mew=0)
            for part, look in ((control, "#4d4d4d"), (observed, OBSERVED), (cells, c)):
                if len(part):
                    axis.plot(
                        part["x"].mean(),
                        part["y"].mean(),
                        marker="+",
                        ms=10,
                        mew=3.4,
                        color="white",
                    )
                    axis.plot(
                        part["x"].mean(), part["y"].mean(), marker="+", ms=9, mew=1.8, color=look
                    )
            axis.set_xticks([])
            axis.set_yticks([])
            if r == 0:
                axis.set_title(which, fontsize=8, loc="left", fontweight="bold")
        axes[r, 0].set_ylabel(name, fontsize=8)
    figure.supxlabel(xlabel, fontsize=8)
    figure.supylabel(ylabel, fontsize=8)
    return figure
