"""Many points in a few rows: every claim, every model of a paper."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.figures.style import LOOKS, MODALITIES, named_below, rows_of
from perturbcore.report.marks import BY, mark


def strips(
    table: pd.DataFrame, *, row: str, look: str, xlabel: str, x: str = "", spread: float = 0.0
) -> Figure:
    """Draw one row per value of `row` and one point per line of `table`, see `mark`.

    `look`: column that gives colour and marker, the modality or up to five values; `x`: column of
    the place, by default side by side; `spread`: moves points up and down, apart from each other.
    """
    names, kinds = list(dict.fromkeys(table[row])), list(dict.fromkeys(table[look]))
    looks = MODALITIES if look == "modality" else dict(zip(kinds, LOOKS, strict=False))
    figure = Figure(figsize=(7.6, (0.4 + spread) * len(names) + 1.1), layout="constrained")
    axis, rng = figure.subplots(), np.random.default_rng(0)
    shown = table.assign(y=table[row].map(names.index) + rng.uniform(-1, 1, len(table)) * spread)
    shown["x"] = table[x] if x else table.groupby(row).cumcount() + 1
    for _, here in shown.groupby(list({look, row, *(c for c in BY if c in table)}), sort=False):
        c, m = looks[here[look].iloc[0]][:2]
        mark(here, *axis.plot(here["x"], here["y"], m, color=c, ms=5.5, mec="white", mew=0.4))
    axis.axvline(0, color="#333333", lw=1, zorder=0)
    rows_of(axis, names)
    axis.set_xlabel(xlabel)
    every = [(kind, *looks[kind][:2]) for kind in kinds]
    handles = [plt.Line2D([], [], ls="", label=k, color=c, marker=m) for k, c, m in every]
    named_below(figure, handles, min(len(handles), 3))
    return figure
