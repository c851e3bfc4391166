"""Metrics against each other, curves over an amount, and how alike embeddings are."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from perturbcore.report.figures.style import (
    LOOKS,
    colour,
    display_names,
    grid_of,
    legend_of,
    marker,
    named_below,
)


def metric_scatter(scores: pd.DataFrame, x: str, others: Sequence[str]) -> Figure:
    """Draw metric `x` against each of `others`, one point per unit; titles give Spearman's rho.

    Cole et al. 2026, Fig. S11.
    """
    data = display_names(scores)
    keys = ["dataset", "cell_line", "fold", "embedding", "predictor", "modality"]
    wide = data.pivot_table(index=keys, columns="metric", values="value").reset_index()
    figure, axes = grid_of(len(others), 2, (3.7, 2.9))
    for axis, other in zip(axes.ravel(), others, strict=False):
        for modality, here in wide.groupby("modality"):
            axis.plot(here[x], here[other], ls="", marker=marker(modality), color=colour(modality),
                      ms=4, alpha=0.75, mec="white", mew=0.3)  # fmt: skip
        axis.set_title(f"{other}: ρ = {spearmanr(wide[x], wide[other])[0]:.3f}")
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
    panel: str,
    xlabel: str = "",
    ylabel: str = "",
    log: bool = True,
) -> Figure:
    """Draw one line per series with its band, one panel per value of `panel`.

    `x`, `y`, `series`, `panel` and the bounds `low`, `high` name columns of `table`; `log`: whether
    x is on a logarithmic axis.
    """
    panels, names = list(dict.fromkeys(table[panel])), list(dict.fromkeys(table[series]))
    figure, axes = grid_of(len(panels), 3, (3.3, 2.9), sharey=True)
    for axis, here in zip(axes.ravel(), panels, strict=False):
        part = table[table[panel] == here]
        for name, (c, m, dash) in zip(names, LOOKS, strict=False):
            rows = part[part[series] == name].sort_values(x)
            axis.plot(rows[x], rows[y], color=c, marker=m, ls=dash, ms=4.5, label=name)
            if low and high:
                axis.fill_between(rows[x], rows[low], rows[high], color=c, alpha=0.15, lw=0)
        if log:
            axis.set_xscale("log")
            ticks = sorted(part[x].unique())
            axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axis.minorticks_off()
        axis.set_title(str(here))
        axis.set_xlabel(xlabel or x)
        axis.grid()
    axes[0, 0].set_ylabel(ylabel or y)
    named_below(figure, axes[0, 0].get_legend_handles_labels()[0], min(len(names), 3))
    return figure


def agreement(x: Sequence, y: Sequence, *, xlabel: str, ylabel: str, labels: Sequence) -> Figure:
    """Draw y against x with the line of equality, each series of `labels` in its own look."""
    figure = Figure(figsize=(4.4, 4.1), layout="constrained")
    axis = figure.subplots()
    a, b, series = np.asarray(x), np.asarray(y), np.asarray(labels)
    for name, (c, m, _) in zip(dict.fromkeys(series), LOOKS, strict=False):
        here = series == name
        axis.plot(a[here], b[here], ls="", marker=m, color=c, ms=3.5, alpha=0.6, mew=0,
                  label=str(name))  # fmt: skip
    ends = [min(a.min(), b.min()), max(a.max(), b.max())]
    axis.plot(ends, ends, color="black", lw=0.9, ls="--")
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if len(set(labels)) > 1:
        axis.legend(loc="best")
    return figure


def points_by_amount(
    table: pd.DataFrame, x: str, y: str, panel: str, *, xlabel: str, ylabel: str
) -> Figure:
    """Draw one point per row over a logarithmic x, one panel each, with a running median."""
    panels = list(dict.fromkeys(table[panel]))
    figure, axes = grid_of(len(panels), 3, (3.3, 2.8), sharex=True, sharey=True)
    for axis, name in zip(axes.ravel(), panels, strict=False):
        here = table[table[panel] == name].sort_values(x)
        axis.plot(here[x], here[y], ls="", marker="o", ms=3, color="#0072B2", alpha=0.45, mew=0)
        if len(here) >= 20:
            groups = np.array_split(np.arange(len(here)), 8)
            middle = [(here[x].iloc[g].median(), here[y].iloc[g].median()) for g in groups]
            axis.plot(*zip(*middle, strict=True), color="#D55E00", lw=1.8)
        axis.set_xscale("log")
        axis.set_title(str(name))
        axis.set_xlabel(xlabel)
        axis.grid()
    axes[0, 0].set_ylabel(ylabel)
    return figure


def similarity_map(matrix: pd.DataFrame, modality: Mapping[str, str], *, label: str) -> Figure:
    """Draw a symmetric similarity matrix, -1 to 1, in the order of average-linkage clustering.

    Names carry the colour of their modality. Cole et al. 2026, Fig. 3 (default linkage of seaborn).
    """
    order = np.arange(len(matrix))
    if len(matrix) > 2:
        order = leaves_list(linkage(pdist(matrix.to_numpy(dtype=float)), "average"))
    matrix = matrix.iloc[order, order]
    size = 0.34 * len(matrix) + 2.2
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    axis = figure.subplots()
    text = matrix.map(lambda v: f"{v:.2f}".replace("0.", ".")) if len(matrix) <= 16 else False
    sns.heatmap(
        matrix, cmap="RdBu_r", vmin=-1, vmax=1, square=True, annot=text, fmt="", ax=axis,
        annot_kws={"fontsize": 6.5}, cbar_kws={"shrink": 0.5, "label": label},
        xticklabels=True, yticklabels=True,
    )  # fmt: skip
    for name in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        name.set_color(colour(modality[name.get_text()]))
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0)
    legend_of(figure, [modality[n] for n in matrix.index])
    return figure


def heat_map(table: pd.DataFrame, label: str) -> Figure:
    """Draw a table of shares, -1 to 1, each cell with its number."""
    figure = Figure(
        figsize=(0.75 * table.shape[1] + 2.6, 0.42 * len(table) + 1.9), layout="constrained"
    )
    axis = figure.subplots()
    sns.heatmap(
        table,
        cmap="RdBu",
        vmin=-1,
        vmax=1,
        annot=True,
        fmt=".2f",
        ax=axis,
        cbar_kws={"label": label},
    )
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0)
    return figure


def error_clusters(profile: pd.DataFrame, modality: Mapping[str, str], *, label: str) -> Figure:
    """Draw z-scored errors (embeddings x genes), both clustered, clipped to -2 and 2.

    Names carry the colour of their modality. Hasanaj et al. 2025, Fig. 3.
    """
    grid = sns.clustermap(
        profile.clip(-2, 2), cmap="RdBu_r", vmin=-2, vmax=2, xticklabels=False, yticklabels=True,
        figsize=(8.2, 0.26 * len(profile) + 2.4), dendrogram_ratio=(0.12, 0.14),
        cbar_kws={"label": label}, cbar_pos=(0.01, 0.86, 0.02, 0.12), rasterized=True,
    )  # fmt: skip
    axis = grid.ax_heatmap
    for name in axis.get_yticklabels():
        name.set_color(colour(modality[name.get_text()]))
    axis.set(xlabel=f"{profile.shape[1]:,} perturbed genes", ylabel="")
    axis.tick_params(length=0)
    legend_of(grid.figure, [modality[n] for n in profile.index])
    plt.close(grid.figure)  # or a notebook would show it a second time
    return grid.figure


def place_maps(panels: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """Draw tables of scores, each cell coloured by its place in the row; first places are bold.

    `panels`: title -> scores (rows x methods), and places of the same shape (missing: a control,
    which has no place and no colour).
    """
    width = max(table.shape[1] for table, _ in panels.values())
    heights = [0.27 * len(table) + 1.5 for table, _ in panels.values()]
    figure = Figure(figsize=(0.72 * width + 2.6, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, (table, place)) in zip(axes, panels.items(), strict=True):
        worst, text = place.max(axis=None), {"fontsize": 7.5}
        sns.heatmap(place, cmap="YlGnBu_r", vmin=0, vmax=worst, cbar=False, ax=axis, annot=table,
                    fmt=".3f", annot_kws=text, linewidths=0.6)  # fmt: skip
        for i, j in np.ndindex(*table.shape):
            value, rank = table.iat[i, j], place.iat[i, j]
            if np.isnan(rank) and np.isfinite(value):
                axis.text(j + 0.5, i + 0.5, f"{value:.3f}", ha="center", va="center", fontsize=7.5,
                          color="#6b6b6b", style="italic")  # fmt: skip
        for text in axis.texts:
            i, j = int(text.get_position()[1]), int(text.get_position()[0])
            text.set_fontweight("bold" if place.iat[i, j] == 1 else "normal")
        axis.set(xlabel="", ylabel="")
        axis.set_title(title, loc="left")
        axis.tick_params(length=0)
        axis.set_xticklabels(axis.get_xticklabels(), rotation=25, ha="right")
    return figure
