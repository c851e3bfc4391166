"""What the single folds that are published say and the papers do not report."""

import pandas as pd

from perturbcore.data.published.names import without_line
from perturbcore.data.published.tables import PRIMARY, Published
from perturbcore.report.comparison import Comparison
from perturbcore.report.published.figures import FIGURES, RUNS, figure_data

RANKINGS = ("1", "S2", "S4", "5", "S1", "S7", "S8", "S10", "S14")


def comparison_of(figure: str, published: Published) -> Comparison:
    """Compare the methods of a box plot, by display name and without positive controls."""
    data = figure_data(figure, published)
    rows = data.scores[data.scores["modality"] != "Positive control"]
    rows = rows.assign(method=rows["display"], embedding=rows["display"], predictor="")
    return Comparison(rows, data.spec.metric)


def neighbours(figure: str, published: Published) -> pd.DataFrame:
    """Compare each method of a box plot with the next, paired over folds."""
    c = comparison_of(figure, published)
    return c.neighbours(c.methods.index)


def ranking_certainty(published: Published) -> pd.DataFrame:
    """For each ranking: how many neighbours differ clearly, and how many share the first place."""
    rows = []
    for name in RANKINGS:
        c, pairs = comparison_of(name, published), neighbours(name, published)
        best = c.best_of(c.methods.index)
        rivals = c.gains(best, methods=c.methods.index)
        row = {
            "figure": name,
            "ranking": FIGURES[name].title,
            "methods": len(c.methods),
            "neighbours": len(pairs) - 1,
            "interval_without_0": int((pairs["low"] > 0).sum()),
            "distinguishable": int((pairs["verdict"] == "worse").sum()),
            "best": best,
            "as_good_as_best": int((rivals["verdict"] != "worse").sum()),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def run_choice(published: Published) -> pd.DataFrame:
    """Effect of choosing the run to show for each line in Figure S14."""
    scores = published.scores
    older = scores[(scores["perturbation_set"] == "older") & (scores["metric"] == "L2")]
    runs = older.pivot_table("value", "cell_line", "method", aggfunc="median")
    drawn = figure_data("S14", published).medians()
    tables = []
    for model, prefix in RUNS.items():
        table = pd.DataFrame({f"run_{r}": runs[f"{prefix}_{r}"] for r in ("V1", "R2")}).loc[
            drawn.index
        ]
        worse, shown = table.max(axis=1), drawn[f"{model} (PCA 50)"]
        table = table.assign(drawn=shown, gain=worse - shown, WaveGC_kNN=drawn["STRING WaveGC"])
        table = table.rename_axis("cell_line").reset_index()
        table.insert(0, "model", model)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def unused_rows(published: Published) -> pd.DataFrame:
    """Methods of the full-set tables that no figure shows, next to the best that one shows."""
    figures = {
        name: figure_data(name, published)
        for name, spec in FIGURES.items()
        if not spec.missing and spec.perturbation_set == "full"
    }

    def keyed(rows: pd.DataFrame) -> pd.DataFrame:
        names = zip(rows["method"], rows["cell_line"], strict=True)
        return rows.assign(method=[without_line(m, line) for m, line in names])

    keys = ["dataset", "task", "method"]
    shown = pd.MultiIndex.from_frame(pd.concat([keyed(f.scores)[keys] for f in figures.values()]))
    rows = published.scores
    rows = rows[(rows["perturbation_set"] == "full") & (rows["modality"] != "Positive control")]
    rows = keyed(rows[rows["metric"] == rows["task"].map(PRIMARY)])
    rows = rows[~pd.MultiIndex.from_frame(rows[keys]).isin(shown)]
    out = []
    for figure in (figures[name] for name in ("1", "S1", "S8", "S4", "S10")):
        wide = figure.better(figure.folds())
        best = wide[figure.select("single")].mean().idxmax()
        spec = figure.spec
        here = rows[(rows["dataset"] == spec.dataset) & (rows["task"] == spec.task)]
        keyed = here.set_index(["cell_line", "fold"])
        gain = figure.better(keyed["value"]) - wide[best].reindex(keyed.index)
        here = here.assign(gain=gain.to_numpy(), won=(gain > 0).to_numpy(), reference=best)
        names = ["dataset", "task", "predictor", "display", "method", "modality", "reference"]
        first = {name: (name, "first") for name in names}
        means = dict(n=("value", "size"), mean=("value", "mean"), difference=("gain", "mean"))
        groups = here.groupby(here["method"].rename(None), sort=False)
        out.append(groups.agg(**first, **means, ahead=("won", "sum")))
    by = ["dataset", "task", "difference"]
    columns = [*names[:-1], "n", "mean", "reference", "ahead", "difference"]
    return pd.concat(out)[columns].sort_values(by, ascending=[True, True, False], ignore_index=True)
