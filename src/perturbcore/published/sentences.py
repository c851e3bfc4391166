"""One computed sentence for each published figure: what it shows."""

import pandas as pd

from perturbcore.published.evidence import by_line, listed, percent
from perturbcore.published.figure_specs import FIGURES
from perturbcore.published.figures import FigureData

_NOT_SINGLE = ("Negative control", "Positive control", "Fusion")


def _modality(data: FigureData) -> pd.Series:
    return data.scores.drop_duplicates("display").set_index("display")["modality"]


def _each(values: pd.Series, form) -> str:
    """Write a value once where there is one panel, or where all panels agree."""
    words = [form(v) for v in values]
    if len(words) == 1:
        return words[0]
    if len(set(words)) == 1:
        return f"{words[0]} (every line)"
    return by_line(values, form)


def _box(data: FigureData) -> str:
    medians = data.medians()
    modality = _modality(data)[medians.columns]
    lower = data.spec.lower_is_better
    single = medians.columns[~modality.isin(_NOT_SINGLE)]
    sign = -1 if lower else 1
    best = (sign * medians[single]).idxmax(axis=1)
    value = (sign * medians[single]).max(axis=1)
    floor, limit = sign * medians["Train Mean"], sign * medians["Experimental Error"]
    name = "macro F1" if data.spec.metric == "f1_score" else data.spec.metric
    text = f"{_each(best, str)} {'has' if len(single) == 1 else 'is the best single method with'} "
    text += f"median {name} {_each(sign * value, '{:.3f}'.format)}"
    if len(single) > 1:
        better = (sign * medians[single]).gt(floor, axis=0).sum(axis=1)
        of = f"{{:.0f}} of {len(single)}".format
        text += f"; {_each(better, of)} are {'below' if lower else 'above'} Train Mean"
    share = ((value - floor) / (limit - floor)).where(limit > floor)
    if share.notna().any():
        text += (
            "; of the gap from Train Mean to experimental error it closes "
            f"{_each(share.dropna(), percent)}"
        )
    missing = list(share.index[share.isna()])
    if missing:
        text += (
            f" (no such share on {listed(missing)}, where the published experimental error is worse "
            "than Train Mean)"
        )
    fusion = medians.columns[modality == "Fusion"]
    if len(fusion):
        closed = (sign * medians[fusion]).sub(floor, axis=0).div(limit - floor, axis=0)
        text += "; " + "; ".join(f"{d} closes {_each(closed[d], percent)}" for d in fusion)
    return text + "."


def _rank(data: FigureData) -> str:
    ranks = data.scores.groupby("display")["value"].median()
    modality = _modality(data)
    ranks = ranks[modality[ranks.index] != "Positive control"].sort_values()
    top = modality[ranks.index[:10]]
    prior = int((top == "Prior knowledge").sum())
    first = listed(f"{d} ({ranks[d]:g})" for d in ranks.index[:3])
    return (
        f"Leaving out the positive controls, the best median ranks are those of {first}; {prior} of the "
        "first ten are of prior knowledge."
    )


def _scatter(data: FigureData) -> str:
    rows = data.scores.pivot_table(index=["display", "fold"], columns="metric", values="value")
    rho = {m: rows["L2"].corr(rows[m], method="spearman") for m in data.spec.panels}
    kind = "points" if data.level == "folds" else "medians"
    return (
        f"Spearman correlation with L2 over {len(rows)} {kind}: "
        + ", ".join(f"{m} {v:.3f}" for m, v in rho.items())
        + "."
    )


def _bars(data: FigureData) -> str:
    names = {"discrimination_score_l1": "discrimination", "overlap_at_N": "overlap", "mae": "MAE"}
    parts = []
    for metric in data.spec.panels:
        mean = data.medians(metric).mean()
        best = mean.idxmin() if metric == "mae" else mean.idxmax()
        parts.append(f"{names[metric]} {best} ({mean[best]:.3f}, STATE {mean['STATE']:.3f})")
    n = len(data.medians(data.spec.panels[0]))
    return f"Best mean over {n} held-out lines: {'; '.join(parts)}."


_SENTENCES = {"box": _box, "rank": _rank, "scatter": _scatter, "bars": _bars}


def describe(data: FigureData) -> str:
    """Say in one computed sentence what a published figure shows.

    Parameters
    ----------
    data : FigureData
        As `figure_data` returns.

    Returns
    -------
    str
    """
    return _SENTENCES[data.spec.kind](data)


def not_drawn() -> pd.DataFrame:
    """Figures that cannot be redrawn from what is public, and what is missing.

    Returns
    -------
    pandas.DataFrame
        figure, title, missing.
    """
    rows = [(f"Figure {n}", s.title, s.missing) for n, s in FIGURES.items() if s.missing]
    return pd.DataFrame(rows, columns=["figure", "title", "missing"])


def figure_table(data: FigureData) -> pd.DataFrame:
    """Numbers behind a figure: medians over folds, methods x panels, in the figure's order.

    Parameters
    ----------
    data : FigureData
        As `figure_data` returns.

    Returns
    -------
    pandas.DataFrame
        method, modality and a column a cell line (or metric); for rank plots the median rank.
    """
    if data.spec.kind == "rank":
        values = data.scores.groupby("display")["value"].median().to_frame("median rank")
        values = values.reindex(data.order[::-1])
    elif data.spec.kind == "bars":
        values = pd.DataFrame({m: data.medians(m).mean() for m in data.spec.panels})
    elif data.spec.kind == "scatter":
        metrics = ("L2", *data.spec.panels)
        values = pd.DataFrame({m: data.medians(m).iloc[0] for m in metrics})
    else:
        values = data.medians().T
    values = values.rename_axis("method").rename_axis(columns=None)
    out = values.reset_index()
    out.insert(1, "modality", list(_modality(data)[values.index]))
    return out
