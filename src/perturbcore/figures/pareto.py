"""Error against cost, with the methods that no other beats in both."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.figures.style import colour, legend_of, marker


def pareto_front(cost, error) -> np.ndarray:
    """Say which methods no other matches in one and beats in the other; both lower is better.

    Parameters
    ----------
    cost, error : (n,) arrays
        Entries that are not finite are never on the front.

    Returns
    -------
    (n,) bool array
        Equal methods are on the front together.
    """
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
    columns: int = 2,
) -> Figure:
    """Draw error against cost on a logarithmic axis; the Pareto front is a step line.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a method: display, modality, `cost` (above 0), `error`, `low`, `high` and `panel`.
    references : pandas.DataFrame, optional
        Lines without a cost: display, modality, value, `panel`.
    xlabel, ylabel : str
    columns : int
        Panels in a row.
    """
    names = list(dict.fromkeys(table[panel]))
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(1.0 + 4.6 * columns, 4.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel()[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.ravel(), names, strict=False):
        here = table[(table[panel] == name) & (table[cost] > 0) & table[error].notna()]
        lines = references[references[panel] == name] if references is not None else table.iloc[:0]
        _panel(axis, here, cost, error, lines)
        axis.set_title(str(name), loc="left")
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
    x = [*step[cost], edge[1]]
    y = [*step[error], step[error].iloc[-1]] if len(step) else []
    if len(step):
        axis.step(x, y, where="post", color="#333333", lw=1.2, ls="-", zorder=1)
    for on, (_, row) in zip(front, here.iterrows(), strict=True):
        c = colour(row["modality"])
        axis.plot([row[cost]] * 2, [row["low"], row["high"]], color=c, lw=1.4, alpha=0.45, zorder=2)
        axis.plot(row[cost], row[error], marker=marker(row["modality"]), ls="", ms=8, color=c,
                  mec="black" if on else "white", mew=1.3 if on else 0.6, zorder=3)  # fmt: skip
    axis.set_xlim(*edge)
    for _, line in lines.iterrows():
        axis.axhline(line["value"], color=colour(line["modality"]), ls="--", lw=0.9, zorder=0)
        axis.annotate(
            line["display"], (1.0, line["value"]), xycoords=axis.get_yaxis_transform(), fontsize=6.5, ha="right",
            xytext=(-2, 2), textcoords="offset points", color=colour(line["modality"]),
        )  # fmt: skip
    axis.margins(y=0.12)
    _label(axis, here, cost, error)
    axis.grid(color="#e5e5e5", lw=0.6)
    axis.set_axisbelow(True)


def _label(axis, here, cost, error) -> None:
    """Write each name beside its point, pushed apart where names would lie on each other."""
    low, high = axis.get_ylim()
    gap, last = 0.048 * (high - low), -np.inf
    middle = np.sqrt(np.prod(axis.get_xlim()))
    for _, row in here.sort_values(error).iterrows():
        y = max(row[error], last + gap)
        last = y
        right = row[cost] > middle
        axis.annotate(
            row["display"], (row[cost], row[error]), xytext=(row[cost] * (0.82 if right else 1.22), y), fontsize=7,
            ha="right" if right else "left", va="center", color=colour(row["modality"]),
        )  # fmt: skip
