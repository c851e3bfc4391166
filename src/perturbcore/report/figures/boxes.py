"""Scores by method: one box a method, one point a fold, the floor and the ceiling as lines."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.core.errors import InputError
from perturbcore.report.figures.style import colour, display_names, legend_of, marker

REFERENCES = ("Train Mean", "Noise floor", "Experimental error", "Experimental Error")


def method_order(scores: pd.DataFrame, lower_is_better: bool) -> list[str]:
    """Order methods from worst to best median over folds, averaged over panels."""
    medians = scores.groupby(["display", "cell_line"], observed=True)["value"].median()
    return list(medians.groupby("display").mean().sort_values(ascending=not lower_is_better).index)


def reference_lines(scores: pd.DataFrame, lower_is_better: bool) -> pd.DataFrame:
    """Medians over folds of Train Mean, experimental error and the best other method, by panel.

    Returns
    -------
    pandas.DataFrame
        Columns panel, display, modality, value.
    """
    medians = scores.groupby(["cell_line", "display", "modality"], observed=True)["value"].median()
    medians = medians.rename_axis(index={"cell_line": "panel"}).reset_index()
    out = [medians[medians["display"].isin(REFERENCES)]]
    pool = medians[~medians["modality"].isin(("Positive control", "Fusion", "Negative control"))]
    for _, here in pool.groupby("panel", observed=True):
        best = here["value"].idxmin() if lower_is_better else here["value"].idxmax()
        out.append(here.loc[[best]])
    return pd.concat(out, ignore_index=True)


def box_by_method(
    scores: pd.DataFrame,
    metric: str,
    *,
    lower_is_better: bool,
    label: str | None = None,
    order: list[str] | None = None,
    panels: list[str] | None = None,
    lines: pd.DataFrame | None = None,
    columns: int = 2,
    legend: bool = True,
) -> Figure:
    """Draw one panel a cell line, one row a method.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy scores; rows of other metrics are ignored. `display` is used where there.
    metric, label : str
        Which metric, and the axis label.
    lower_is_better : bool
        Direction; the worst method is at the top.
    order, panels : list of str, optional
        Methods from top to bottom; cell lines.
    lines : pandas.DataFrame, optional
        Reference lines (panel, display, modality, value); by default `reference_lines`.
    columns : int
        Panels in a row.

    Raises
    ------
    InputError
        No row has this metric, or a modality has no colour.
    """
    data = display_names(scores[scores["metric"] == metric])
    if data.empty:
        there = ", ".join(sorted(scores["metric"].unique()))
        raise InputError(f"no scores of metric '{metric}' to draw; there are: {there or 'none'}")
    panels = panels or list(dict.fromkeys(data["cell_line"]))
    order = [m for m in (order or method_order(data, lower_is_better)) if m in set(data["display"])]
    lines = reference_lines(data, lower_is_better) if lines is None else lines
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    height = max(1.6, 0.235 * len(order) + 0.75)
    figure = Figure(figsize=(2.2 + 3.6 * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis in axes.ravel()[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.ravel(), panels, strict=False):
        here = data[data["cell_line"] == panel]
        _draw(axis, here, order)
        _reference(axis, lines[lines["panel"] == panel])
        axis.set_title(panel, loc="left", pad=14)
        axis.set_xlabel(label or metric)
        axis.set_ylim(len(order) - 0.4, -0.6)
    modality = data.drop_duplicates("display").set_index("display")["modality"]
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(order)), order)
        for text in axis.get_yticklabels():
            text.set_color(colour(modality[text.get_text()]))
    if legend:
        legend_of(figure, data["modality"])
    return figure


def _draw(axis, data: pd.DataFrame, order: list[str]) -> None:
    for y, method in enumerate(order):
        rows = data[data["display"] == method]
        values = rows["value"].dropna().to_numpy()
        if not len(values):
            axis.text(0.02, y, "not scored", transform=axis.get_yaxis_transform(), va="center",
                      fontsize=7, color="#6b6b6b")  # fmt: skip
            continue
        modality = rows["modality"].iloc[0]
        low, q1, middle, q3, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
        c = colour(modality)
        axis.plot([low, high], [y, y], color=c, lw=1, zorder=1)
        axis.barh(
            y, q3 - q1, left=q1, height=0.62, color=c, alpha=0.35, edgecolor=c, lw=0.8, zorder=2
        )
        axis.plot([middle, middle], [y - 0.31, y + 0.31], color=c, lw=2, zorder=3)
        axis.plot(values, np.full(len(values), y), ls="", marker=marker(modality), ms=3.6,
                  color=c, mec="white", mew=0.4, zorder=4)  # fmt: skip
    axis.margins(x=0.05)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)


def _reference(axis, lines: pd.DataFrame) -> None:
    """Draw the lines and name them above the panel, apart from each other."""
    lines = lines.sort_values("value")
    low, high = axis.get_xlim()
    at, shift = -np.inf, 0
    for _, line in lines.iterrows():
        c = colour(line["modality"])
        axis.axvline(line["value"], color=c, ls="--", lw=1, zorder=0)
        close = (line["value"] - at) < 0.24 * (high - low)
        shift = 0 if not close else shift + 1
        axis.annotate(
            line["display"], (line["value"], 1.0), xycoords=axis.get_xaxis_transform(),
            xytext=(0, 2 + 7.5 * (shift % 3)), textcoords="offset points", ha="center", va="bottom",
            fontsize=6.5, color=c, annotation_clip=False,
        )  # fmt: skip
        at = line["value"]


def interval_plot(table: pd.DataFrame, *, label: str) -> Figure:
    """Draw one row a method: its mean and 95 % interval, floor and ceiling as lines, best at the bottom.

    Parameters
    ----------
    table : pandas.DataFrame
        `perturbcore.report.summary.ranking_table`: display, modality, value, low, high; best first.
    label : str
        Of the axis.
    """
    table = display_names(table)
    ends = table["display"].isin([*REFERENCES, "Idealized", "No Change"])
    rows = table[~ends].iloc[::-1].reset_index(drop=True)
    figure = Figure(figsize=(7.2, 0.3 * len(rows) + 1.2), layout="constrained")
    axis = figure.subplots()
    for y, row in rows.iterrows():
        c = colour(row["modality"])
        axis.plot(
            [row["low"], row["high"]], [y, y], color=c, lw=2.2, alpha=0.6, solid_capstyle="butt"
        )
        axis.plot(
            row["value"], y, marker=marker(row["modality"]), color=c, ms=7, mec="white", mew=0.6
        )
    ceilings = [n for n in (*REFERENCES[1:], "Idealized") if (table["display"] == n).any()]
    lines = table[table["display"].isin(["Train Mean", *ceilings[:1]])]
    _reference(axis, lines[["display", "modality", "value"]])
    axis.set_yticks(range(len(rows)), rows["display"])
    for text, modality in zip(axis.get_yticklabels(), rows["modality"], strict=True):
        text.set_color(colour(modality))
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel(label)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    legend_of(figure, rows["modality"])
    return figure
