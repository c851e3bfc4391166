"""One look for the whole book: every modality keeps its colour and its marker."""

import copy
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text

from perturbcore.core.errors import InputError
from perturbcore.core.files import read_yaml

HERE = Path(__file__).parent
_STYLE = read_yaml(HERE / "style.yml")
# modality -> colour and marker, in the order of legends
MODALITIES: dict[str, tuple[str, str]] = {k: (c, m) for k, (c, m) in _STYLE["modalities"].items()}
# what was trained at large on something else than perturbations, and is used as it is
FOUNDATION = ("Language model", "Protein model", "DNA model", "Cell model")
# series that are no modalities: colour, marker, dash
LOOKS: list[tuple[str, str, Any]] = [
    (c, m, d if isinstance(d, str) else tuple(d)) for c, m, d in _STYLE["series"]
]
# inches of a drawing for phones, points of its letters, letters in its lines; points that a letter
# of a label takes; what the names of lines above a panel are known by
PHONE, SMALL, LINE, FOLD, LETTER, ABOVE = 3.75, 8.4, 38, 24, 5.0, "above"
sns.set_theme(style="ticks", font_scale=0.85)
plt.style.use(str(HERE / "book.mplstyle"))


def _look(modality: str) -> tuple[str, str]:
    if modality not in MODALITIES:
        raise InputError(
            f"modality '{modality}' has no colour; it is one of: {', '.join(MODALITIES)} "
            "(key 'modality' of the embedding in the profile)"
        )
    return MODALITIES[modality]


def colour(modality: str) -> str:
    """Return the colour of a modality."""
    return _look(modality)[0]


def marker(modality: str) -> str:
    """Return the marker of a modality."""
    return _look(modality)[1]


def display_names(scores: pd.DataFrame) -> pd.DataFrame:
    """Return `scores` with a column `display`: what a figure calls the method of each row."""
    if "display" in scores:
        return scores.copy()
    if "method" in scores:
        return scores.assign(display=scores["method"])
    name = scores["embedding"].where(scores["embedding"] != "", scores["predictor"])
    return scores.assign(display=name.replace(_STYLE["controls"]))


def grid_of(
    n: int, columns: int, size: tuple[float, float], **shared: Any
) -> tuple[Figure, np.ndarray]:
    """Make a figure of `n` panels of one size (inches); return it with all axes, row by row."""
    columns = min(columns, n)
    rows = -(-n // columns)
    figure = Figure(figsize=(1.2 + size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for axis in axes.ravel()[n:]:
        axis.set_visible(False)
    return figure, axes


def rows_of(axis: Axes, names: Iterable[str], modality: pd.Series | None = None) -> None:
    """Label one row per name, the first at the top, in the colour of its modality."""
    names = list(names)
    axis.set_yticks(range(len(names)), names)
    if modality is not None:
        for text in axis.get_yticklabels():
            text.set_color(colour(modality[text.get_text()]))
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_ylabel("")
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def legend_of(figure: Figure, modalities: Iterable[str]) -> None:
    """Name the modalities under the figure, colour and marker together."""
    shown = [m for m in MODALITIES if m in set(modalities)]
    handles = [
        plt.Line2D([], [], ls="", marker=marker(m), color=colour(m), label=m, ms=6) for m in shown
    ]
    named_below(figure, handles, min(len(shown), 4))


def named_below(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    """Put a legend under the figure."""
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns)


def lift(axis: Axes) -> None:
    """Raise names of lines above a panel where they would lie on each other, and its title."""
    width, (low, high) = _room(axis), axis.get_xlim()
    ends: list[float] = []  # right end of what each level holds so far
    names: list[Any] = [t for t in axis.texts if t.get_label() == ABOVE]
    for text in sorted(names, key=lambda t: t.xy[0]):
        at = (text.xy[0] - low) / (high - low) * width
        half = LETTER * (len(text.get_text()) + 2) / 2
        level = next((i for i, end in enumerate(ends) if end <= at - half), len(ends))
        ends[level : level + 1] = [at + half]
        text.xyann = (0, 2 + 10 * level)
    axis.set_title(axis.get_title(loc="left"), pad=5 + 10 * len(ends))


def _room(axis: Any) -> float:
    """Guess the points across a panel beside the names of its rows, before it is laid out."""
    figure = axis.get_figure()
    names = [line for t in axis.get_yticklabels() for line in t.get_text().split("\n")]
    bars = 50 * sum(a.get_subplotspec() is None for a in figure.axes)
    beside = max([6, *map(len, names)]) * LETTER + bars
    columns = axis.get_gridspec().ncols
    return (72 * figure.get_figwidth() - beside) / columns - 10 * (columns - 1)


def narrowed(wide: Figure) -> Figure:
    """Return a copy of a figure for a phone: one column of panels, texts in lines that fit."""
    figure: Any = copy.deepcopy(wide)
    plt.close(figure)  # the copy of one that pyplot keeps would be shown as well
    width, height = figure.get_size_inches()
    for axis in [a for a in figure.axes if not a.get_visible()]:
        axis.remove()
    panels = [a for a in figure.axes if a.get_subplotspec()]
    rows, columns = panels[0].get_gridspec().get_geometry() if panels else (1, 1)
    # pictures without ticks are compared across; what has an axis of its own is read alone
    if columns > 1 and any(len(a.get_xticks()) for a in panels):
        height, one = height * len(panels) / rows, GridSpec(len(panels), 1, figure)
        for i, axis in enumerate(panels):
            first = panels[i - i % columns]
            axis.set_subplotspec(one[i])
            axis.tick_params(labelleft=True, labelbottom=True)
            axis.set_ylabel(axis.get_ylabel() or first.get_ylabel())
            for label, known in zip(axis.get_yticklabels(), first.get_yticklabels(), strict=False):
                label.set_color(known.get_color())
    if any(a.get_aspect() == 1 for a in panels):
        height *= PHONE / width
    folded = [_fold_names(a) for a in panels]
    figure.set_size_inches(PHONE, height * (1.15 if any(folded) else 1))
    if not figure.get_constrained_layout():
        figure.subplots_adjust(right=0.7)  # names at the right of clusters
    for text in figure.findobj(Text):
        text.set_fontsize(min(text.get_fontsize(), SMALL))
    for axis in panels:
        _fit(axis)
    for legend in tuple(figure.legends):
        names = [t.get_text() for t in legend.texts]
        figure.legends.remove(legend)
        for handle, name in zip(legend.legend_handles, names, strict=True):
            handle.set_label(name)
        named_below(figure, legend.legend_handles, 2 if max(map(len, names)) < LINE / 2 else 1)
    return figure


def _fold_names(axis: Axes) -> bool:
    """Write long names of rows and columns in two lines; say whether there are such rows."""
    for side in (axis.xaxis, axis.yaxis):
        names = [fill(t.get_text(), FOLD) for t in side.get_ticklabels()]
        if folded := any("\n" in name for name in names):
            side.set_ticks(side.get_ticklocs(), names)
    return folded


def _fit(axis: Axes) -> None:
    """Write the texts of a narrow panel in lines, and the numbers of a heat map, as they fit."""
    room = _room(axis)
    most = max(8, int(room / LETTER))
    title = fill(axis.get_title(loc="left"), most, break_long_words=False)
    axis.set_title(title, fontsize=SMALL + 0.5)
    for label, width in (axis.xaxis.label, most), (axis.yaxis.label, LINE):
        label.set_text(fill(label.get_text(), width, break_long_words=False))
    if any(t.get_label() == ABOVE for t in axis.texts):
        lift(axis)
    if any(isinstance(c, QuadMesh) for c in axis.collections):
        letters = most / max(1, len(axis.get_xticks()))
        for name in axis.get_xticklabels():
            name.set(rotation=90, ha="center")
        for text in axis.texts:
            if re.fullmatch(r"-?\d*\.\d+", value := text.get_text()):
                short = [re.sub(r"^(-?)0\.", r"\1.", f"{float(value):.{d}f}") for d in (3, 2)]
                text.set_text(next((t for t in [value, *short] if len(t) <= letters), ""))
