"""Error against cost, and cells as small multiples."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.figures.style import colour, grid_of, legend_of, marker

# of a letter and of a line of a label, as shares of the panel
WIDTH, HEIGHT = 0.0125, 0.045


def pareto_front(cost, error) -> np.ndarray:
    """Say of n methods which no other matches in one and beats in the other; lower is better."""
    cost, error = np.asarray(cost, dtype=float), np.asarray(error, dtype=float)
    there = np.isfinite(cost) & np.isfinite(error)
    no_worse = (cost[None] <= cost[:, None]) & (error[None] <= error[:, None])
    better = (cost[None] < cost[:, None]) | (error[None] < error[:, None])
    beaten = (no_worse & better & there[None]).any(axis=1)
    return there & ~beaten


def pareto_plot(
    table: pd.DataFrame,
    *,
    cost: str = "seconds",
    error: str = "value",
    panel: str = "dataset",
    references: pd.DataFrame | None = None,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Draw error against cost (log axis); the Pareto front is a step line."""
    names = list(dict.fromkeys(table[panel]))
    figure, axes = grid_of(len(names), 2, (4.6, 4.0))
    for axis, name in zip(axes.ravel(), names, strict=False):
        here = table[(table[panel] == name) & (table[cost] > 0) & table[error].notna()]
        lines = references[references[panel] == name] if references is not None else table.iloc[:0]
        _panel(axis, here, cost, error, lines)
        axis.set_title(str(name))
        axis.set_xlabel(xlabel)
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    legend_of(figure, table["modality"])
    return figure


def _panel(axis, here, cost, error, lines) -> None:
    front = pareto_front(here[cost], here[error])
    step = here[front].sort_values(cost)
    axis.set_xscale("log")
    edge = (here[cost].min() / 3, here[cost].max() * 4)
    if len(step):
        x, y = [*step[cost], edge[1]], [*step[error], step[error].iloc[-1]]
        axis.step(x, y, where="post", color="#333333", lw=1.2, ls="-", zorder=1)
    for on, (_, row) in zip(front, here.iterrows(), strict=True):
        c = colour(row["modality"])
        axis.plot(row[cost], row[error], marker=marker(row["modality"]), ls="", ms=8, color=c,
                  mec="black" if on else "white", mew=1.3 if on else 0.6, zorder=3)  # fmt: skip
    axis.set_xlim(*edge)
    for _, line in lines.iterrows():
        axis.axhline(line["value"], color=colour(line["modality"]), ls="--", lw=0.9, zorder=0)
        axis.annotate(
            line["display"], (1.0, line["value"]), xycoords=axis.get_yaxis_transform(), fontsize=7,
            ha="right", xytext=(-2, 2), textcoords="offset points", color=colour(line["modality"]),
        )  # fmt: skip
    axis.margins(y=0.15)
    _label(axis, here, cost, error)
    axis.grid()


def _label(axis, here, cost, error) -> None:
    """Write each name beside its point, up or down where it would lie on another name."""
    low, high = axis.get_ylim()
    left, right = np.log10(axis.get_xlim())
    taken: list[tuple] = []
    for _, row in here.sort_values(error, ascending=False).iterrows():
        x = (np.log10(row[cost]) - left) / (right - left)
        y = (row[error] - low) / (high - low)
        to_left = x > 0.5
        width = WIDTH * len(str(row["display"]))
        span = (x - 0.02 - width, x - 0.02) if to_left else (x + 0.02, x + 0.02 + width)
        near = [t for t in taken if t[0] < span[1] and span[0] < t[1]]
        tries = sorted((y + k * HEIGHT / 2 for k in range(-40, 41)), key=lambda v: abs(v - y))
        place = next(
            (v for v in tries if 0.02 < v < 0.98 and all(abs(v - t[2]) >= HEIGHT for t in near)), y
        )
        taken.append((*span, place))
        axis.annotate(
            row["display"], (span[1] if to_left else span[0], place), xycoords="axes fraction",
            fontsize=7, ha="right" if to_left else "left", va="center", zorder=2,
            color=colour(row["modality"]),
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )  # fmt: skip


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
