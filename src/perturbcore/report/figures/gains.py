"""How much each method gains over one reference, in every cell line and over all."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.figures.style import colour

MARKERS = ("o", "s", "^", "v", "D", "p", "X", "*")


def gain_plot(lines: pd.DataFrame, overall: pd.DataFrame, *, reference: str, label: str) -> Figure:
    """Draw one row a method: its gain in every cell line and over all, with 95 % intervals.

    Parameters
    ----------
    lines : pandas.DataFrame
        method, cell_line, gain, low, high; positive is better. The first method is drawn at the bottom,
        as everywhere in the book.
    overall : pandas.DataFrame
        method, gain, low, high.
    reference : str
        Name of what is at zero.
    label : str
        Of the axis.
    """
    names, every = list(overall["method"]), sorted(lines["cell_line"].unique())
    figure = Figure(figsize=(7.2, 0.62 * len(names) + 1.3), layout="constrained")
    axis = figure.subplots()
    where = {name: len(names) - 1 - i for i, name in enumerate(names)}
    step = 0.46 / max(len(every), 1)
    for i, line in enumerate(every):
        rows = lines[lines["cell_line"] == line]
        y = rows["method"].map(where) - 0.1 - step * (len(every) / 2 - 1 - i)
        axis.hlines(y, rows["low"], rows["high"], color="#b0b0b0", lw=1.2)
        axis.plot(rows["gain"], y, ls="", marker=MARKERS[i % len(MARKERS)], color="#6b6b6b", ms=4.5)
    y = overall["method"].map(where) - 0.37
    axis.hlines(y, overall["low"], overall["high"], color=colour("Fusion"), lw=3.5)
    axis.plot(
        overall["gain"], y, ls="", marker="P", color=colour("Fusion"), ms=8.5, mec="black", mew=0.6
    )
    axis.axvline(0, color="#333333", lw=1)
    axis.annotate(reference, (0, 1), xycoords=axis.get_xaxis_transform(), xytext=(0, 3), ha="center",
                  textcoords="offset points", fontsize=7.5, annotation_clip=False)  # fmt: skip
    axis.set_yticks(np.arange(len(names)), names[::-1])
    axis.set_ylim(len(names) - 0.45, -0.6)
    axis.set_xlabel(label)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    handles = [plt.Line2D([], [], ls="", marker=MARKERS[i % len(MARKERS)], color="#6b6b6b", ms=5, label=line)
               for i, line in enumerate(every)]  # fmt: skip
    look = dict(marker="P", color=colour("Fusion"), mec="black", lw=3, ms=8)
    handles.append(plt.Line2D([], [], label="all lines", **look))
    figure.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(handles)
    )
    return figure
