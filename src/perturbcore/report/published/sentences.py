"""One computed sentence for each published figure: what it shows."""

import pandas as pd

from perturbcore.report.published.evidence import by_line, listed, percent
from perturbcore.report.published.figure_specs import FIGURES
from perturbcore.report.published.figures import FigureData

_NOT_SINGLE = ("Negative control", "Positive control", "Fusion")


def _modality(data: FigureData) -> pd.Series:
    return data.scores.drop_duplicates("display").set_index("display")["modality"]


def _lines(values: pd.Series) -> str:
    return percent(values.iloc[0]) if len(values) == 1 else by_line(values)


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
    better = (sign * medians[single]).gt(floor, axis=0).sum(axis=1)
    share = ((value - floor) / (limit - floor)).where(limit > floor)
    side = "below" if lower else "above"
    parts = []
    for i, line in enumerate(medians.index):
        first = i == 0
        inside = []
        if pd.notna(share[line]):
            of = " of the gap from Train Mean to experimental error" if first else ""
            inside.append(f"{percent(share[line])}{of}")
        else:
            inside.append("no gap: the published experimental error is worse than Train Mean")
        if len(single) > 1:
            inside.append(
                f"{better[line]} of {len(single)}" + (f" {side} Train Mean" if first else "")
            )
        where = f"{line} " if len(medians) > 1 else ""
        parts.append(f"{where}{best[line]} {sign * value[line]:.3f} ({'; '.join(inside)})")
    head = f"{'Lowest' if lower else 'Highest'} median {name} of a single method: "
    text = head + ", ".join(parts)
    fusion = medians.columns[modality == "Fusion"]
    if len(fusion):
        closed = (sign * medians[fusion]).sub(floor, axis=0).div(limit - floor, axis=0)
        text += ". " + "; ".join(f"{d} closes {_lines(closed[d])}" for d in fusion)
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
