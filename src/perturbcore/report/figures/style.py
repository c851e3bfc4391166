"""One look for the whole book: every modality keeps its colour and its marker."""

from collections.abc import Iterable

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perturbcore.core.errors import InputError

# colours of Okabe and Ito, told apart with the common kinds of colour blindness; the marker tells
# them apart without any colour
MODALITIES = {
    "Negative control": ("#6b6b6b", "X"),
    "Positive control": ("#E69F00", "D"),
    "Expression": ("#009E73", "o"),
    "DNA": ("#D55E00", "v"),
    "Protein": ("#CC79A7", "s"),
    "Prior knowledge": ("#0072B2", "^"),
    "Fusion": ("#56B4E9", "P"),
    "Advanced": ("#000000", "*"),
    "LLM": ("#009E73", "o"),
    "SMILES transformer": ("#D55E00", "v"),
    "Molecule structure": ("#CC79A7", "s"),
    "Protein affinity": ("#0072B2", "^"),
    "Gene target": ("#8C7A00", "p"),
    "Single source": ("#B8860B", "h"),
    "Language model": ("#882255", "d"),
    "Protein model": ("#332288", "H"),
}
# what was trained at large on something else than perturbations, and is used as it is
FOUNDATION = ("Language model", "Protein model")
# series that are no modalities: colour, marker, dash
LOOKS = [
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#6b6b6b", "D", ":"),
    ("#CC79A7", "v", (0, (5, 1))),
]
NAMES = {
    "train_mean": "Train Mean",
    "no_change": "No Change",
    "most_frequent": "Most frequent class",
    "prior": "Class frequencies",
    "experimental_error": "Experimental error",
    "noise_floor": "Noise floor",
    "idealized": "Idealized",
    "random": "Random",
}


def colour(modality: str) -> str:
    """Return the colour of a modality."""
    return _look(modality)[0]


def marker(modality: str) -> str:
    """Return the marker of a modality; raises as `colour` does."""
    return _look(modality)[1]


def _look(modality: str) -> tuple[str, str]:
    if modality not in MODALITIES:
        raise InputError(
            f"modality '{modality}' has no colour; it is one of: {', '.join(MODALITIES)} "
            "(key 'modality' of the embedding in the profile)"
        )
    return MODALITIES[modality]


def apply() -> None:
    """Set the style; called once, when figures are imported."""
    sns.set_theme(style="ticks", context="notebook", font_scale=0.85)
    matplotlib.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.bbox": "tight",
            "svg.fonttype": "none",  # text stays text: searchable, small, readable in print
            "font.family": "sans-serif",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titleweight": "bold",
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
        }
    )


def display_names(scores: pd.DataFrame) -> pd.DataFrame:
    """Return `scores` with a column `display`: what a figure calls the method of each row."""
    if "display" in scores:
        return scores.copy()
    if "method" in scores:
        return scores.assign(display=scores["method"])
    name = scores["embedding"].where(scores["embedding"] != "", scores["predictor"])
    return scores.assign(display=name.map(NAMES).fillna(name))


def grid_of(
    n: int, columns: int, size: tuple[float, float], **shared: bool | str
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


def legend_of(figure: Figure, modalities: Iterable[str], **options) -> None:
    """Name the modalities under the figure, colour and marker together."""
    there = set(modalities)
    shown = [m for m in MODALITIES if m in there]
    handles = [
        plt.Line2D([], [], ls="", marker=marker(m), color=colour(m), label=m, ms=6) for m in shown
    ]
    place = dict(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(len(shown), 4))
    figure.legend(handles=handles, **{**place, **options})


apply()
