"""Metrics and costs of methods as points, curves over an amount, likeness, and single cells."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from perturbcore.report.figures import style
from perturbcore.report.marks import mark


def metric_scatter(scores: pd.DataFrame, x: str, others: Sequence[str]) -> Figure:
    """Draw metric `x` against each of `others`, one point per unit; titles give Spearman's rho.

    Cole et al. 2026, Fig. S11.
    """
    data = style.display_names(scores)
    keys = ["dataset", "cell_line", "fold", "embedding", "predictor", "modality"]
    wide = data.pivot_table(index=keys, columns="metric", values="value").reset_index()
    figure, axes = style.grid_of(len(others), 2, (3.7, 2.9))
    for axis, other in zip(axes.ravel(), others, strict=False):
        for modality, here in wide.groupby("modality"):
            c, m = style.colour(modality), style.marker(modality)
            axis.plot(here[x], here[other], ls="", marker=m, color=c, ms=4, alpha=0.75, mec="white",
                      mew=0.3)  # fmt: skip
        axis.set_title(f"{other}: ρ = {spearmanr(wide[x], wide[other])[0]:.3f}")
        axis.set_xlabel(x)
        axis.set_ylabel(other)
    style.legend_of(figure, wide["modality"])
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
    sharey: bool = True,
) -> Figure:
    """Draw one line per series with its band, one panel per value of `panel`.

    `x`, `y`, `series`, `panel` and the bounds `low`, `high` name columns of `table`; `log`: whether
    x is on a logarithmic axis; `sharey`: whether y is the same in all panels, else it starts at 0.
    """
    panels, names = list(dict.fromkeys(table[panel])), list(dict.fromkeys(table[series]))
    figure, axes = style.grid_of(len(panels), 2, (3.6, 2.9), sharey=sharey)
    for axis, here in zip(axes.ravel(), panels, strict=False):
        part = table[table[panel] == here]
        for name, (c, m, dash) in zip(names, style.LOOKS, strict=False):
            rows = part[part[series] == name].sort_values(x)
            axis.plot(rows[x], rows[y], color=c, marker=m, ls=dash, ms=4.5, label=name)
            if low and high:
                axis.fill_between(rows[x], rows[low], rows[high], color=c, alpha=0.15, lw=0)
        if log:
            axis.set_xscale("log")
            ticks = sorted(part[x].unique())
            axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
            axis.minorticks_off()
        if not sharey:
            axis.set_ylim(0, 1.1 * part[y].max())
        axis.set_title(str(here))
        axis.set_xlabel(xlabel or x)
        axis.grid()
    axes[0, 0].set_ylabel(ylabel or y)
    style.named_below(figure, axes[0, 0].get_legend_handles_labels()[0], min(len(names), 3))
    return figure


def named_points(
    x: Sequence, y: Sequence, names: Sequence, *, xlabel: str, ylabel: str, equal: bool = False
) -> Figure:
    """Draw points, each name in a look of its own that the legend tells; later ones are hollow.

    The dashed line is no difference: y equals x where they are to be `equal`, else y is zero.
    """
    figure = Figure(figsize=(5.8, 4.6), layout="constrained")
    axis, points = figure.subplots(), pd.DataFrame({"x": list(x), "y": list(y), "name": names})
    for i, (name, here) in enumerate(points.groupby("name", sort=False)):
        c, m, _ = style.LOOKS[i % len(style.LOOKS)]
        fill, size = "full" if i < len(style.LOOKS) else "none", 7 if len(here) == 1 else 3.5
        axis.plot(here["x"], here["y"], m, color=c, ms=size, fillstyle=fill, label=name)
    start = points["x"].min()
    axis.axline((start, start if equal else 0), slope=int(equal), color="#6b6b6b", ls="--", lw=0.9)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid()
    style.named_below(figure, axis.get_legend_handles_labels()[0], 2)
    return figure


def points_by_amount(
    table: pd.DataFrame, x: str, y: str, panel: str, *, xlabel: str, ylabel: str
) -> Figure:
    """Draw one point per row over a logarithmic x, one panel each, with a running median."""
    panels = list(dict.fromkeys(table[panel]))
    figure, axes = style.grid_of(len(panels), 2, (3.6, 2.8), sharex=True, sharey=True)
    for axis, name in zip(axes.ravel(), panels, strict=False):
        here = table[table[panel] == name].sort_values(x)
        axis.plot(here[x], here[y], ls="", marker="o", ms=3, color="#0072B2", alpha=0.45, mew=0)
        if len(here) >= 20:
            groups = np.array_split(np.arange(len(here)), 8)
            middle = [(here[x].iloc[g].median(), here[y].iloc[g].median()) for g in groups]
            axis.plot(*zip(*middle, strict=True), color="#D55E00", lw=1.8)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")  # exponents would be too small to read
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
    size = min(0.34 * len(matrix), 7.8) + 2.2
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    axis = figure.subplots()
    text = matrix.map(lambda v: f"{v:.2f}".replace("0.", ".")) if len(matrix) <= 16 else False
    sns.heatmap(
        matrix, cmap="RdBu_r", vmin=-1, vmax=1, square=True, annot=text, fmt="", ax=axis,
        annot_kws={"fontsize": 8}, cbar_kws={"shrink": 0.5, "label": label},
        xticklabels=True, yticklabels=True,
    )  # fmt: skip
    for name in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        name.set_color(style.colour(modality[name.get_text()]))
    axis.set(xlabel="", ylabel="")
    axis.tick_params(length=0)
    style.legend_of(figure, [modality[n] for n in matrix.index])
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
        name.set_color(style.colour(modality[name.get_text()]))
    axis.set(xlabel=f"{profile.shape[1]:,} perturbed genes", ylabel="")
    axis.tick_params(length=0)
    style.legend_of(grid.figure, [modality[n] for n in profile.index])
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
        worst, text = place.max(axis=None), {"fontsize": 9}
        sns.heatmap(place, cmap="YlGnBu_r", vmin=0, vmax=worst, cbar=False, ax=axis, annot=table,
                    fmt=".3f", annot_kws=text, linewidths=0.6)  # fmt: skip
        for i, j in np.ndindex(*table.shape):
            value, rank = table.iat[i, j], place.iat[i, j]
            if np.isnan(rank) and np.isfinite(value):
                axis.text(j + 0.5, i + 0.5, f"{value:.3f}", ha="center", va="center", fontsize=9,
                          color="#6b6b6b", style="italic")  # fmt: skip
        for text in axis.texts:
            i, j = int(text.get_position()[1]), int(text.get_position()[0])
            text.set_fontweight("bold" if place.iat[i, j] == 1 else "normal")
        axis.set(xlabel="", ylabel="")
        axis.set_title(title, loc="left")
        axis.tick_params(length=0)
        axis.set_xticklabels(axis.get_xticklabels(), rotation=25, ha="right")
    return figure


# of a letter and of a line of a label, as shares of the panel
WIDTH, HEIGHT = 0.0145, 0.05


def pareto_front(cost, error) -> np.ndarray:
    """Say of n methods which no other matches in one and beats in the other; lower is better."""
    cost, error = np.asarray(cost, dtype=float), np.asarray(error, dtype=float)
    there = np.isfinite(cost) & np.isfinite(error)
    no_worse = (cost[None] <= cost[:, None]) & (error[None] <= error[:, None])
    better = (cost[None] < cost[:, None]) | (error[None] < error[:, None])
    beaten = (no_worse & better & there[None]).any(axis=1)
    return there & ~beaten


def pareto_plot(
    table: pd.DataFrame, references: pd.DataFrame, *, xlabel: str, ylabel: str
) -> Figure:
    """Draw `value`, an error, against `seconds` (log axis), one panel per `data`.

    The Pareto front is a step line; rows of `references`, which cost nothing, are dashed lines.
    """
    names = list(dict.fromkeys(table["data"]))
    figure, axes = style.grid_of(len(names), 2, (3.8, 3.9))
    for axis, name in zip(axes.ravel(), names, strict=False):
        here = table[(table["data"] == name) & (table["seconds"] > 0) & table["value"].notna()]
        _panel(axis, here, references[references["data"] == name])
        axis.set_title(str(name))
        axis.set_xlabel(xlabel)
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    style.legend_of(figure, table["modality"])
    return figure


def _panel(axis, here, lines) -> None:
    front = pareto_front(here["seconds"], here["value"])
    step = here[front].sort_values("seconds")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    edge = (here["seconds"].min() / 3, here["seconds"].max() * 4)
    if len(step):
        x, y = [*step["seconds"], edge[1]], [*step["value"], step["value"].iloc[-1]]
        axis.step(x, y, where="post", color="#333333", lw=1.2, ls="-", zorder=1)
    for on, (_, row) in zip(front, here.iterrows(), strict=True):
        c = style.colour(row["modality"])
        points = axis.plot(row["seconds"], row["value"], marker=style.marker(row["modality"]),
                           ls="", ms=8, color=c, mec="black" if on else "white",
                           mew=1.3 if on else 0.6, zorder=3)  # fmt: skip
        mark(row.to_frame().T, *points)
    axis.set_xlim(*edge)
    for _, line in lines.iterrows():
        axis.axhline(line["value"], color=style.colour(line["modality"]), ls="--", lw=0.9, zorder=0)
        axis.annotate(
            line["display"], (1.0, line["value"]), xycoords=axis.get_yaxis_transform(),
            fontsize=8.8, ha="right", xytext=(-2, 2), textcoords="offset points",
            color=style.colour(line["modality"]),
        )  # fmt: skip
    axis.margins(y=0.15)
    _label(axis, here)
    axis.grid()


def _label(axis, here) -> None:
    """Write each name beside its point, up or down where it would lie on another name."""
    low, high = axis.get_ylim()
    left, right = np.log10(axis.get_xlim())
    taken: list[tuple] = []
    for _, row in here.sort_values("value", ascending=False).iterrows():
        x = (np.log10(row["seconds"]) - left) / (right - left)
        y = (row["value"] - low) / (high - low)
        to_left = x > 0.5
        width = WIDTH * len(str(row["display"]))
        span = (x - 0.02 - width, x - 0.02) if to_left else (x + 0.02, x + 0.02 + width)
        near = [t for t in taken if t[0] < span[1] and span[0] < t[1]]
        tries = sorted((y + k * HEIGHT / 2 for k in range(-40, 41)), key=lambda v: abs(v - y))
        place = next(
            (v for v in tries if 0.02 < v < 0.98 and all(abs(v - t[2]) >= HEIGHT for t in near)), y
        )
        taken.append((*span, place))
        text = axis.annotate(
            row["display"], (span[1] if to_left else span[0], place), xycoords="axes fraction",
            fontsize=8.8, ha="right" if to_left else "left", va="center", zorder=2,
            color=style.colour(row["modality"]),
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )  # fmt: skip
        mark(row.to_frame().T, None, text)


CONTROL, OBSERVED, GENERATED = "#9a9a9a", "#D55E00", "#0072B2"


def cell_grid(table: pd.DataFrame, *, row: str, column: str, xlabel: str, ylabel: str) -> Figure:
    """Draw cells on two axes, with the mean of each sample as a cross."""
    rows = list(dict.fromkeys(table[row]))
    columns = [c for c in dict.fromkeys(table[column]) if c]
    figure = Figure(figsize=(0.8 + 1.5 * len(columns), 0.9 + 1.7 * len(rows)), layout="constrained")
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
                axis.set_title(which, fontsize=9, loc="left", fontweight="bold")
        axes[r, 0].set_ylabel(name, fontsize=9)
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    return figure
