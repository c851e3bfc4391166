"""One look for the whole book: every modality keeps its colour and its marker."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
