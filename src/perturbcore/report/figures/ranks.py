"""Ranks of methods over folds and cell lines, with the uncertainty of the mean rank."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.figures.style import colour, display_names, legend_of, marker


def rank_plot(
    ranks: pd.DataFrame, table: pd.DataFrame | None = None, *, order=None, label="Rank (1 is best)"
) -> Figure:
    """Draw the distribution of ranks, worst median at the top, and the interval of the mean rank.

    Parameters
    ----------
    ranks : pandas.DataFrame
        `perturbcore.score.uncertainty.ranking.ranks`: columns embedding, predictor (or display), modality, rank.
    table : pandas.DataFrame, optional
        `perturbcore.score.uncertainty.ranking.rank_table`: mean_rank, low, high.
    order : list of str, optional
        Methods from top to bottom; by median rank otherwise.
    label : str
        Axis label.
    """
    data = display_names(ranks)
    if order is None:
        typical = data.groupby("display")["rank"].agg(["median", "mean"])
        order = list(typical.sort_values(["median", "mean"], ascending=False).index)
    modality = data.drop_duplicates("display").set_index("display")["modality"]
    figure = Figure(figsize=(7.6, 0.26 * len(order) + 1.1), layout="constrained")
    axis = figure.subplots()
    rng = np.random.default_rng(0)
    for y, method in enumerate(order):
        values = data.loc[data["display"] == method, "rank"].to_numpy()
        c, m = colour(modality[method]), marker(modality[method])
        q1, middle, q3 = np.quantile(values, [0.25, 0.5, 0.75])
        axis.barh(y, q3 - q1, left=q1, height=0.66, color=c, alpha=0.3, edgecolor=c, lw=0.8)
        axis.plot([middle, middle], [y - 0.33, y + 0.33], color=c, lw=2)
        jitter = rng.uniform(-0.22, 0.22, len(values))
        axis.plot(values, y + jitter, ls="", marker=m, ms=3, color=c, alpha=0.7, mew=0)
    if table is not None:
        shown = display_names(table).set_index("display").reindex(order)
        for y, (_, row) in enumerate(shown.iterrows()):
            if np.isfinite(row["low"]):
                axis.plot([row["low"], row["high"]], [y + 0.42] * 2, color="black", lw=1.6)
                axis.plot(row["mean_rank"], y + 0.42, "|", color="black", ms=6, mew=1.6)
    axis.set_yticks(range(len(order)), order)
    for text in axis.get_yticklabels():
        text.set_color(colour(modality[text.get_text()]))
    axis.set_ylim(len(order) - 0.2, -0.7)
    axis.set_xlabel(label)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    legend_of(figure, data["modality"])
    return figure
