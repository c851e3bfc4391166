"""One look for the whole book: every modality keeps its colour and its marker."""

import matplotlib
import matplotlib.pyplot as plt
import seaborn as sns

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
}
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
    """Return the colour of a modality.

    Raises
    ------
    InputError
        The modality is not one of `MODALITIES`.
    """
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
    """Set the style; called once by every drawing function's module."""
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
            "legend.frameon": False,
        }
    )


def display_names(scores):
    """Return `scores` with a column `display`: what a figure calls the method of each row."""
    out = scores.copy()
    if "display" in out:
        return out
    if "method" in out:
        return out.assign(display=out["method"])
    name = out["embedding"].where(out["embedding"] != "", out["predictor"])
    out["display"] = name.map(NAMES).fillna(name)
    return out


def legend_of(figure, modalities, **options) -> None:
    """Name the modalities under the figure, colour and marker together."""
    shown = [m for m in MODALITIES if m in set(modalities)]
    handles = [
        plt.Line2D([], [], ls="", marker=marker(m), color=colour(m), label=m, ms=6) for m in shown
    ]
    place = dict(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(len(shown), 4))
    figure.legend(handles=handles, **{**place, **options})


apply()
