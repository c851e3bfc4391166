"""Two metrics against each other, and curves over an amount."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from perturbcore.report.figures.style import colour, display_names, legend_of, marker

# series that are no modalities: colour, marker, dash
LOOKS = [
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#6b6b6b", "D", ":"),
    ("#CC79A7", "v", (0, (5, 1))),
]


def metric_scatter(scores: pd.DataFrame, x: str, others: list[str], *, columns: int = 2) -> Figure:
    """Draw metric `x` against each of `others`, one point a unit; titles give Spearman's rho.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy scores of the units to compare (controls left out by the caller).
    x, others : str, list of str
        Names of metrics.

    References
    ----------
    Cole et al. 2026, Fig. S11.
    """
    data = display_names(scores)
    keys = ["dataset", "cell_line", "fold", "embedding", "predictor", "modality"]
    wide = data.pivot_table(index=keys, columns="metric", values="value").reset_index()
    rows = -(-len(others) // columns)
    figure = Figure(figsize=(3.7 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel()[len(others) :]:
        axis.set_visible(False)
    for axis, other in zip(axes.ravel(), others, strict=False):
        for modality, here in wide.groupby("modality"):
            axis.plot(here[x], here[other], ls="", marker=marker(modality), color=colour(modality),
                      ms=4, alpha=0.75, mec="white", mew=0.3)  # fmt: skip
        rho = spearmanr(wide[x], wide[other])[0]
        axis.set_title(f"{other}: ρ = {rho:.3f}", loc="left")
        axis.set_xlabel(x)
        axis.set_ylabel(other)
    legend_of(figure, wide["modality"])
    return figure


def curves(
    table: pd.DataFrame,
    x: str,
    y: str,
    series: str,
    *,
    low: str | None = None,
    high: str | None = None,
    panel: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    log: bool = True,
    columns: int = 3,
) -> Figure:
    """Draw one line a series with its band, one panel a value of `panel`; lines are labelled directly.

    Parameters
    ----------
    table : pandas.DataFrame
        Tidy; `x`, `y`, `series` and the bounds `low`, `high` of the band name its columns.
    log : bool
        Whether x is on a logarithmic axis.
    """
    panels = list(dict.fromkeys(table[panel])) if panel else [None]
    looks = LOOKS
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.2 + 3.3 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    names = list(dict.fromkeys(table[series]))
    for axis in axes.ravel()[len(panels) :]:
        axis.set_visible(False)
    for axis, here in zip(axes.ravel(), panels, strict=False):
        part = table if here is None else table[table[panel] == here]
        for name, (c, m, dash) in zip(names, looks, strict=False):
            rows_ = part[part[series] == name].sort_values(x)
            if rows_.empty:
                continue
            axis.plot(rows_[x], rows_[y], color=c, marker=m, ls=dash, ms=4.5, label=name)
            if low and high:
                axis.fill_between(rows_[x], rows_[low], rows_[high], color=c, alpha=0.15, lw=0)
        if log:
            axis.set_xscale("log")
            ticks = sorted(part[x].unique())
            axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axis.minorticks_off()
        if here is not None:
            axis.set_title(str(here), loc="left")
        axis.set_xlabel(xlabel or x)
        axis.grid(color="#e5e5e5", lw=0.6)
    axes[0, 0].set_ylabel(ylabel or y)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center",
                  bbox_to_anchor=(0.5, 0), ncols=min(len(names), 3))  # fmt: skip
    return figure


def agreement(
    x: np.ndarray, y: np.ndarray, *, xlabel: str, ylabel: str, labels=None, title: str = ""
) -> Figure:
    """Draw y against x with the line of equality, each series of `labels` in its own look."""
    figure = Figure(figsize=(4.4, 4.1), layout="constrained")
    axis = figure.subplots()
    labels = np.zeros(len(x), int) if labels is None else np.asarray(labels)
    for name, (c, m, _) in zip(dict.fromkeys(labels), LOOKS, strict=False):
        here = labels == name
        axis.plot(np.asarray(x)[here], np.asarray(y)[here], ls="", marker=m, color=c, ms=3.5,
                  alpha=0.6, mew=0, label=str(name))  # fmt: skip
    ends = [min(np.min(x), np.min(y)), max(np.max(x), np.max(y))]
    axis.plot(ends, ends, color="black", lw=0.9, ls="--")
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.set_title(title, loc="left")
    if len(set(labels)) > 1:
        axis.legend(loc="best")
    return figure


def points_by_amount(
    table: pd.DataFrame, x: str, y: str, panel: str, *, xlabel: str, ylabel: str
) -> Figure:
    """Draw one point a row over a logarithmic x, one panel a value of `panel`, with a running median."""
    panels = list(dict.fromkeys(table[panel]))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.2 + 3.3 * columns, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True)
    for axis in axes.ravel()[len(panels) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.ravel(), panels, strict=False):
        here = table[table[panel] == name].sort_values(x)
        axis.plot(here[x], here[y], ls="", marker="o", ms=3, color="#0072B2", alpha=0.45, mew=0)
        if len(here) >= 20:
            groups = np.array_split(np.arange(len(here)), 8)
            middle = [(here[x].iloc[g].median(), here[y].iloc[g].median()) for g in groups]
            axis.plot(*zip(*middle, strict=True), color="#D55E00", lw=1.8)
        axis.set_xscale("log")
        axis.set_title(str(name), loc="left")
        axis.set_xlabel(xlabel)
        axis.grid(color="#e5e5e5", lw=0.6)
    axes[0, 0].set_ylabel(ylabel)
    return figure


def board(table: pd.DataFrame, columns: list[str], *, name: str, group: str, xlabel: str) -> Figure:
    """Draw a leaderboard: one row a method, one panel a column, one look a group.

    Parameters
    ----------
    table : pandas.DataFrame
        Best first; `name` and `group` name its columns.
    columns : list of str
        Values to draw, one panel each.
    """
    order = list(table[name])[::-1]
    figure = Figure(
        figsize=(2.6 + 1.9 * len(columns), 0.25 * len(order) + 1.1), layout="constrained"
    )
    axes = np.atleast_1d(figure.subplots(1, len(columns), sharey=True))
    for axis, column in zip(axes, columns, strict=True):
        for (label, here), (c, m, _) in zip(table.groupby(group, sort=False), LOOKS, strict=False):
            y = [order.index(n) for n in here[name]]
            axis.plot(here[column], y, ls="", marker=m, color=c, ms=5, label=label)
        axis.axvline(0.5, color="#6b6b6b", ls="--", lw=0.9)
        axis.set_title(column, loc="left")
        axis.set_xlabel(xlabel)
        axis.grid(color="#e5e5e5", lw=0.6)
    axes[0].set_yticks(range(len(order)), order)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(labels))
    return figure
