"""One row per method, the best at the top: scores, intervals, gains, ranks, places."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perturbcore.core.errors import InputError
from perturbcore.report.figures import style
from perturbcore.report.marks import mark
from perturbcore.score.metrics.registry import metric as registered
from perturbcore.score.model import COVERING

ENDS = ("Noise floor", "Experimental error", "Experimental Error")
CEILINGS = (*ENDS, "Repeated experiment", "Idealized")
LINE_MARKERS = ("o", "s", "^", "v", "D", "p", "X", "*")


def method_order(scores: pd.DataFrame, lower_is_better: bool) -> list[str]:
    """Order methods from best to worst median over folds, averaged over panels."""
    medians = scores.groupby(["display", "cell_line"], observed=True)["value"].median()
    return list(medians.groupby("display").mean().sort_values(ascending=lower_is_better).index)


def reference_lines(
    scores: pd.DataFrame, lower_is_better: bool, *, fusion: bool = False
) -> pd.DataFrame:
    """Medians over folds of Train Mean, experimental error and the best method, by panel."""
    sparse = set()
    if "coverage" in scores:
        share = scores.groupby("display")["coverage"].mean()
        sparse = set(share.index[share < COVERING])
    medians = scores.groupby(["cell_line", "display", "modality"], observed=True)["value"].median()
    medians = medians.rename_axis(index={"cell_line": "panel"}).reset_index()
    control = medians["modality"].str.endswith("control")
    rivals = medians[~control & ((medians["modality"] == "Fusion") == fusion)]
    pool = rivals[~rivals["display"].isin(sparse)]
    pool = pool if len(pool) else rivals
    sign = 1 if lower_is_better else -1
    best = (sign * pool["value"]).groupby(pool["panel"], observed=True).idxmin()
    ends = medians["display"].isin(["Train Mean", *ENDS])
    return pd.concat([medians[ends], pool.loc[best]], ignore_index=True)


def box_by_method(
    scores: pd.DataFrame,
    metric: str,
    *,
    label: str | None = None,
    order: Sequence[str] | None = None,
    panels: Sequence[str] | None = None,
    fusion: bool = False,
) -> Figure:
    """Draw one panel per cell line, one row per method: quartiles, range and one point per fold.

    `scores`: tidy scores, named by `display` or `method` where there; `label`: of the metric by
    default; `order`: methods from top to bottom (by default `method_order`); `panels`: cell lines;
    `fusion`: whether a dashed line marks the best fusion (see `reference_lines`).
    """
    data = style.display_names(scores[scores["metric"] == metric])
    if data.empty:
        there = ", ".join(sorted(scores["metric"].unique()))
        raise InputError(f"no scores of metric '{metric}' to draw; there are: {there or 'none'}")
    panels, known = panels or list(dict.fromkeys(data["cell_line"])), registered(metric)
    lower_is_better = not known.higher_is_better
    order = [m for m in (order or method_order(data, lower_is_better)) if m in set(data["display"])]
    lines = reference_lines(data, lower_is_better, fusion=fusion)
    modality = data.drop_duplicates("display").set_index("display")["modality"]
    height = max(1.6, 0.235 * len(order) + 0.75)
    figure, axes = style.grid_of(len(panels), 2, (3.6, height), sharey=True)
    for axis, panel in zip(axes.ravel(), panels, strict=False):
        _boxes(axis, data[data["cell_line"] == panel], "value", order, modality)
        style.rows_of(axis, order, modality)
        axis.set_title(panel)
        _reference(axis, lines[lines["panel"] == panel])
        axis.set_xlabel(label or known.label)
    style.legend_of(figure, data["modality"])
    return figure


def _boxes(axis: Axes, data, value: str, order, modality, *, whiskers=True, spread=0.0) -> None:
    """Draw a box and the single values of each method; `spread` moves points up and down."""
    sns.boxplot(
        data, x=value, y="display", order=order, hue="display", legend=False, ax=axis,
        palette={m: style.colour(modality[m]) for m in order}, fill=False, width=0.64, linewidth=1,
        whis=(0, 100) if whiskers else 0, showcaps=False, showfliers=False,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    rows = {m: data[(data["display"] == m) & data[value].notna()] for m in order}
    for line in axis.lines:
        at = np.asarray(line.get_ydata(), dtype=float)
        if at.size and len(here := rows[order[round(at.mean())]]):
            mark(here, None, line)
    for y, method in enumerate(order):
        values = rows[method][value].to_numpy()
        if not len(values):
            axis.text(0.02, y, "not scored", transform=axis.get_yaxis_transform(), va="center",
                      fontsize=8.5, color="#6b6b6b")  # fmt: skip
            continue
        at = y + rng.uniform(-spread, spread, len(values))
        c, m = style.colour(modality[method]), style.marker(modality[method])
        look: dict[str, Any] = dict(ls="", ms=3.6, mec="white", mew=0.3, alpha=0.85, zorder=4)
        mark(rows[method], *axis.plot(values, at, color=c, marker=m, **look))
    axis.margins(x=0.05)


def _reference(axis: Axes, lines: pd.DataFrame) -> None:
    """Draw the lines and name them above the panel, apart from each other."""
    for _, line in lines.iterrows():
        c = style.colour(line["modality"])
        axis.axvline(line["value"], color=c, ls="--", lw=1, zorder=0)
        axis.annotate(
            line["display"], (line["value"], 1.0), xycoords=axis.get_xaxis_transform(),
            xytext=(0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
            color=c, annotation_clip=False, label=style.ABOVE,
        )  # fmt: skip
    style.lift(axis)


def interval_plot(table: pd.DataFrame, *, label: str, ceiling: str = "") -> Figure:
    """Draw one row per method: its mean and 95 % interval, floor and ceiling as lines."""
    table = style.display_names(table)
    ends = ("Train Mean", "No Change", *CEILINGS)
    rows = table[~table["display"].isin(ends)].reset_index(drop=True)
    figure = Figure(figsize=(7.2, 0.3 * len(rows) + 1.2), layout="constrained")
    axis = figure.subplots()
    for y, row in rows.iterrows():
        c = style.colour(row["modality"])
        line = axis.hlines(y, row["low"], row["high"], color=c, lw=2.2, alpha=0.6)
        points = axis.plot(row["value"], y, marker=style.marker(row["modality"]), color=c, ms=7,
                           mec="white", mew=0.6)  # fmt: skip
        mark(rows.loc[[y]], *points, line)
    style.rows_of(axis, rows["display"], rows.set_index("display")["modality"])
    _reference(axis, table[table["display"].isin(["Train Mean", ceiling])])
    axis.set_xlabel(label)
    style.legend_of(figure, rows["modality"])
    return figure


def grouped_intervals(table: pd.DataFrame, *, row: str, series: str, floor: str) -> Figure:
    """Draw a group per value of `row`, in it each series: `value` from `low` to `high`.

    The series called `floor` is a grey line through its group.
    """
    rows = list(dict.fromkeys(table[row]))
    names = [n for n in dict.fromkeys(table[series]) if n != floor]
    size = (7.6, 0.16 * len(rows) * (len(names) + 1.5) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    axis, step = figure.subplots(), 0.8 / len(names)
    for i, (name, (c, m, _)) in enumerate(zip(names, style.LOOKS, strict=False)):
        here = table[table[series] == name]
        y = here[row].map(rows.index) + (i - (len(names) - 1) / 2) * step
        axis.hlines(y, here["low"], here["high"], color=c, lw=1.8, alpha=0.6)
        axis.plot(here["value"], y, ls="", marker=m, color=c, ms=5, label=name)
    here = table[table[series] == floor]
    at = here[row].map(rows.index)
    axis.vlines(here["value"], at - 0.42, at + 0.42, color="#6b6b6b", ls="--", lw=1.2, label=floor)
    style.rows_of(axis, rows)
    axis.set_xlabel("Score")
    handles = axis.get_legend_handles_labels()[0]
    style.named_below(figure, handles, 3)
    return figure


def gain_plot(lines: pd.DataFrame, overall: pd.DataFrame, *, reference: str, label: str) -> Figure:
    """Draw the gain of each method in every cell line and over all, with 95 % intervals."""
    names, every = list(overall["method"]), sorted(lines["cell_line"].unique())
    figure = Figure(figsize=(7.2, 0.62 * len(names) + 1.3), layout="constrained")
    axis = figure.subplots()
    where = {name: i for i, name in enumerate(names)}
    step = 0.46 / max(len(every), 1)
    handles = []
    for i, line in enumerate(every):
        rows = lines[lines["cell_line"] == line]
        y = rows["method"].map(where) - 0.1 - step * (len(every) / 2 - 1 - i)
        shape = LINE_MARKERS[i % len(LINE_MARKERS)]
        look: dict[str, Any] = dict(ls="", marker=shape, color="#6b6b6b", ms=4.5)
        axis.hlines(y, rows["low"], rows["high"], color="#b0b0b0", lw=1.2)
        axis.plot(rows["gain"], y, **look)
        handles.append(plt.Line2D([], [], label=line, **look))
    y = overall["method"].map(where) - 0.37
    axis.hlines(y, overall["low"], overall["high"], color=style.colour("Fusion"), lw=3.5)
    look = dict(marker="P", color=style.colour("Fusion"), mec="black", mew=0.6, ms=8.5)
    axis.plot(overall["gain"], y, ls="", **look)
    handles.append(plt.Line2D([], [], label="all lines", lw=3, **look))
    axis.axvline(0, color="#333333", lw=1)
    axis.annotate(reference, (0, 1), xycoords=axis.get_xaxis_transform(), xytext=(0, 3),
                  ha="center", textcoords="offset points", fontsize=8.5,
                  annotation_clip=False)  # fmt: skip
    style.rows_of(axis, names)
    axis.set_xlabel(label)
    style.named_below(figure, handles, len(handles))
    return figure


def rank_plot(
    ranks: pd.DataFrame,
    table: pd.DataFrame | None = None,
    *,
    order: Sequence[str] | None = None,
    label: str = "Rank (1 is best)",
) -> Figure:
    """Draw the distribution of ranks, best median at the top, and the interval of the mean rank."""
    data = style.display_names(ranks)
    if order is None:
        typical = data.groupby("display")["rank"].agg(["median", "mean"])
        order = list(typical.sort_values(["median", "mean"]).index)
    modality = data.drop_duplicates("display").set_index("display")["modality"]
    figure = Figure(figsize=(7.6, 0.26 * len(order) + 1.1), layout="constrained")
    axis = figure.subplots()
    _boxes(axis, data, "rank", order, modality, whiskers=False, spread=0.22)
    if table is not None:
        shown = style.display_names(table).set_index("display").reindex(order)
        y = np.arange(len(order)) + 0.42
        axis.hlines(y, shown["low"], shown["high"], color="black", lw=1.6)
        axis.plot(shown["mean_rank"], y, "|", color="black", ms=6, mew=1.6)
    style.rows_of(axis, order, modality)
    axis.set_ylim(len(order) - 0.2, -0.7)
    axis.set_xlabel(label)
    style.legend_of(figure, data["modality"])
    return figure


def dot_plot(
    table: pd.DataFrame, columns: Sequence[str], *, name: str, group: str, xlabel: str
) -> Figure:
    """Draw one row per method, one panel per column, one look per group; 0.5 is a guess.

    `table`: best first; `name` and `group` name its columns.
    """
    order = list(table[name])
    size = (2.6 + 1.65 * len(columns), 0.25 * len(order) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axis, column in zip(axes, columns, strict=True):
        for (label, here), (c, m, _) in zip(
            table.groupby(group, sort=False), style.LOOKS, strict=False
        ):
            y = [order.index(n) for n in here[name]]
            axis.plot(here[column], y, ls="", marker=m, color=c, ms=5, label=label)
        axis.axvline(0.5, color="#6b6b6b", ls="--", lw=0.9)
        axis.set_title(column)
        axis.set_xlabel(xlabel)
        style.rows_of(axis, order)
    handles = axes[0].get_legend_handles_labels()[0]
    style.named_below(figure, handles, len(handles))
    return figure
