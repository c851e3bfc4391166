"""What the published scores say and the papers do not report."""

import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.data.published.names import without_line
from perturbcore.data.published.read import PRIMARY
from perturbcore.data.published.tables import HOW_TO_GET, Published
from perturbcore.report.comparison import Comparison
from perturbcore.report.published.figures import FIGURES, FigureData, figure_data

RANKINGS = ("1", "S2", "S4", "5", "S1", "S7", "S8", "S10", "S14")


def _paired(figure: str, published: Published) -> tuple[FigureData, Comparison]:
    """Give a figure, and the comparison of all its methods but positive controls.

    Raises InputError if only medians are at hand. A method goes by its display name.
    """
    _need_folds(published)
    data = figure_data(figure, published)
    rows = data.scores[data.scores["modality"] != "Positive control"]
    rows = rows.assign(method=rows["display"], embedding=rows["display"], predictor="")
    higher = not data.spec.lower_is_better
    return data, Comparison(rows, data.spec.metric, higher_is_better=higher)


def _need_folds(published: Published) -> None:
    if published.level != "folds":
        raise InputError(
            f"this is decided on single folds, and only medians are at hand: {HOW_TO_GET}"
        )


def neighbours(figure: str, published: Published) -> pd.DataFrame:
    """Which neighbours in the ranking of a box-plot figure are distinguishable, paired over folds.

    Returns place, method, mean, next_method, behind (how much worse the next is), low, high
    (95%), p_holm, distinguishable.

    Lines are averaged within a fold. Folds are the units, and the interval is that of the
    corrected resampled t-test, because the training sets of folds overlap; five folds separate
    only what differs clearly.

    Nadeau and Bengio 2003, Machine Learning 52.
    """
    _, c = _paired(figure, published)
    table = c.neighbours(c.methods.index).rename(columns={"value": "mean", "next": "next_method"})
    return table.assign(distinguishable=table.pop("verdict") == "worse")


def ranking_certainty(published: Published) -> pd.DataFrame:
    """For each ranking: how many neighbours differ clearly, and how many share the first place.

    Returns figure, ranking, methods, neighbours (pairs), interval_without_0 (pairs whose own
    interval leaves out no difference), distinguishable (pairs, adjusted for their number),
    best, and as_good_as_best (methods not distinguishable from the best, the best not counted).
    """
    rows = []
    for name in RANKINGS:
        data, c = _paired(name, published)
        pairs = neighbours(name, published)
        best = c.best_of(c.methods.index)
        rivals = c.gains(best, methods=c.methods.index)
        row = {
            "figure": name,
            "ranking": data.spec.title,
            "methods": len(c.methods),
            "neighbours": len(pairs) - 1,
            "interval_without_0": int((pairs["low"] > 0).sum()),
            "distinguishable": int(pairs["distinguishable"].sum()),
            "best": best,
            "as_good_as_best": int((rivals["verdict"] != "worse").sum()),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def run_choice(published: Published) -> pd.DataFrame:
    """Effect of choosing the run to show for each line in Figure S14.

    Returns model, cell_line, the median of each published run, of what is drawn, and of kNN on
    WaveGC; `gain`, how much lower what is drawn is than the worse run.
    """
    _need_folds(published)
    scores = published.scores
    older = scores[(scores["perturbation_set"] == "older") & (scores["metric"] == "L2")]
    runs = older.pivot_table("value", "cell_line", "method", aggfunc="median")
    drawn = figure_data("S14", published).medians()
    tables = []
    for model, prefix in (("Latent Diffusion", "Diffusion"), ("Schrödinger Bridge", "Schrodinger")):
        table = runs.loc[drawn.index, [f"{prefix}_V1", f"{prefix}_R2"]].set_axis(
            ["run_V1", "run_R2"], axis=1
        )
        table["drawn"] = drawn[f"{model} (PCA 50)"]
        table["gain"] = table[["run_V1", "run_R2"]].max(axis=1) - table["drawn"]
        table["WaveGC_kNN"] = drawn["STRING WaveGC"]
        table.insert(0, "model", model)
        tables.append(table.rename_axis("cell_line").reset_index())
    table = pd.concat(tables, ignore_index=True)
    return table[["model", *(c for c in table if c != "model")]]


def unused_rows(published: Published) -> pd.DataFrame:
    """Methods of the full-set tables that no figure shows, next to the best that one shows.

    Returns dataset, task, predictor, display, method, modality, n (folds and lines), mean
    (primary metric), reference (the best single embedding of the figure), ahead (folds better),
    and difference (mean; positive is better). Best first within a data set and task.
    """
    _need_folds(published)
    keys = ["dataset", "task", "method", "cell_line"]
    figures = {
        name: figure_data(name, published)
        for name, spec in FIGURES.items()
        if not spec.missing and spec.perturbation_set == "full"
    }
    rows = pd.concat([f.scores[keys] for f in figures.values()]).drop_duplicates()
    shown = {(d, t, without_line(m, line)) for d, t, m, line in rows.itertuples(index=False)}
    out = []
    for figure in (figures[name] for name in ("1", "S1", "S8", "S4", "S10")):
        dataset, task = figure.spec.dataset, figure.spec.task
        scores = published.scores
        rows = scores[(scores["dataset"] == dataset) & (scores["task"] == task)]
        rows = rows[(rows["perturbation_set"] == "full") & (rows["metric"] == PRIMARY[task])]
        names = [without_line(m, c) for m, c in zip(rows["method"], rows["cell_line"], strict=True)]
        rows = rows.assign(key=names)[[(dataset, task, name) not in shown for name in names]]
        rows = rows[rows["modality"] != "Positive control"]
        wide = figure.better(figure.folds())
        best = wide[figure.select("single")].mean().idxmax()
        for key, group in rows.groupby("key", sort=False):
            values = figure.better(group.set_index(["cell_line", "fold"])["value"])
            change = values - wide[best].reindex(values.index)
            about = group.iloc[0][["dataset", "task", "predictor", "display"]].to_dict()
            out.append(
                {
                    **about,
                    "method": key,
                    "modality": group["modality"].iloc[0],
                    "n": len(group),
                    "mean": group["value"].mean(),
                    "reference": best,
                    "ahead": int((change > 0).sum()),
                    "difference": change.mean(),
                }
            )
    return pd.DataFrame(out).sort_values(
        ["dataset", "task", "difference"], ascending=[True, True, False], ignore_index=True
    )
