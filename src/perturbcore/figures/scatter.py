"""Two metrics against each other, and curves over an amount."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from perturbcore.figures.style import colour, display_names, legend_of, marker


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
    looks = [("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", "-."), ("#6b6b6b", "D", ":")]
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
    looks = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#6b6b6b", "D")]
    for name, (c, m) in zip(dict.fromkeys(labels), looks, strict=False):
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
