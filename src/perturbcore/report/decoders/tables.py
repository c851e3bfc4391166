"""The tables of the chapter on generative decoders: scores, costs, learning curves, distributions."""

import numpy as np
import pandas as pd

from perturbcore.models.decoders.distributions import METRICS
from perturbcore.report.decoders.contest import SHIFTED, TITLES, UNCHANGED, Contest, shown
from perturbcore.score.metrics.registry import metric as find_metric
from perturbcore.score.uncertainty.differences import paired_differences
from perturbcore.score.uncertainty.intervals import mean_ci

LINES = ("Train Mean", "No Change", "Experimental error", "Idealized")
SCORE_COLUMNS = {
    "data": "Data",
    "display": "Method",
    "value": "L2",
    "low": "95 % low",
    "high": "high",
    "difference": "Minus kNN",
    "difference_low": "95 % low",
    "difference_high": "high",
    "p_holm": "p (Holm)",
    "wins": "Beats kNN on (share)",
}
DISTRIBUTION_COLUMNS = {
    "display": "Cells",
    "energy": METRICS["energy"],
    "unexplained": "Share of unchanged controls",
    "difference": "Minus shifted controls",
    "low": "95 % low",
    "high": "high",
    "mmd": METRICS["mmd"],
    "energy_genes": METRICS["energy_genes"],
    "variance_ratio": METRICS["variance_ratio"],
}


def is_decoder(table: pd.DataFrame) -> pd.Series:
    """Say which rows are of a decoder on the embedding (not on random vectors)."""
    return table["embedding"].isin(list(TITLES.values()))


def score_table(contest: Contest, metric: str = "L2") -> pd.DataFrame:
    """Rank the methods of a contest, each against kNN on the same embedding.

    Returns
    -------
    pandas.DataFrame
        display, modality, embedding, predictor, value, low, high (mean over folds with its 95 %
        interval), difference to kNN on the same folds with difference_low, difference_high and p_holm
        (adjusted over the methods), beats_knn (whether that interval lies on the better side of zero),
        seconds of training and sampling a fold and cell line, wins and n_each (see `wins`); best first.
    """
    rows = contest.scores[contest.scores["metric"] == metric]
    ratio = float((rows["n_test"] / rows["n_train"]).mean())
    keys = ["display", "modality", "embedding", "predictor"]
    out = []
    folds = rows.groupby([*keys, "fold"], as_index=False)["value"].mean()
    for key, part in folds.groupby(keys, sort=False):
        interval = mean_ci(part["value"].to_numpy(), test_ratio=ratio)
        numbers = {
            "value": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "n_folds": interval.n,
        }
        out.append(dict(zip(keys, key, strict=True)) | numbers)
    table = pd.DataFrame(out)
    against = against_knn(contest, metric)
    table = table.merge(against, on=["embedding", "predictor"], how="left")
    table = table.merge(contest.cost, on="display", how="left").merge(
        wins(contest), on="display", how="left"
    )
    sign = -1 if find_metric(metric).higher_is_better else 1
    table["beats_knn"] = (
        np.maximum(sign * table["difference_low"], sign * table["difference_high"]) < 0
    )
    return table.iloc[np.argsort(sign * table["value"].to_numpy(), kind="stable")].reset_index(
        drop=True
    )


def against_knn(contest: Contest, metric: str = "L2") -> pd.DataFrame:
    """Paired differences of every method to kNN on the same embedding: method minus kNN, over folds."""
    found = paired_differences(
        contest.scores, metric, reference=(contest.embedding.name, "knn"), by=(), exclude=()
    )
    return pd.DataFrame(
        {
            "embedding": found["embedding_b"],
            "predictor": found["predictor_b"],
            "difference": -found["difference"],
            "difference_low": -found["high"],
            "difference_high": -found["low"],
            "p_holm": found["p_holm"],
        }
    )


def wins(contest: Contest) -> pd.DataFrame:
    """Share of the held-out perturbations on which a method has a lower L2 than kNN on the embedding.

    Returns
    -------
    pandas.DataFrame
        display, wins (ties count half), n_each (perturbations, counted in every cell line).
    """
    wide = contest.each.pivot_table(
        index=["cell_line", "perturbation"], columns="display", values="value"
    )
    knn = shown(contest.embedding.name, "knn", contest.embedding.name)
    rows = []
    for name in wide.columns.drop(knn):
        both = wide[[name, knn]].dropna()
        share = ((both[name] < both[knn]) + 0.5 * (both[name] == both[knn])).mean()
        rows.append({"display": name, "wins": float(share), "n_each": len(both)})
    return pd.DataFrame(rows)


def summary_table(contests: list[Contest], metric: str = "L2") -> pd.DataFrame:
    """`score_table` of every data set, one below the other."""
    return pd.concat(
        [score_table(c, metric).assign(data=c.title) for c in contests], ignore_index=True
    )


def other_metrics(contests: list[Contest]) -> pd.DataFrame:
    """Mean of every shared metric, one row a method and data set."""
    parts = []
    for c in contests:
        wide = c.scores.pivot_table(index="display", columns="metric", values="value", sort=False)
        order = score_table(c)["display"]
        parts.append(wide.reindex(order).reset_index().assign(data=c.title))
    table = pd.concat(parts, ignore_index=True)
    return table[["data", *[c for c in table if c != "data"]]]


def cost_points(contests: list[Contest]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Methods with their seconds for the Pareto figure, and lines for those that cost nothing."""
    table = summary_table(contests)
    line = table["display"].isin(LINES)
    # the two others are far off and would squeeze the rest
    return table[~line & table["seconds"].gt(0)], table[
        table["display"].isin(["Train Mean", "Experimental error"])
    ]


def curve_table(contests: list[Contest]) -> pd.DataFrame:
    """Losses relative to those of the first epoch, mean and range over folds and lines, by method.

    Returns
    -------
    pandas.DataFrame
        panel, epoch (from 1), series ("training", "validation"), value, low, high.
    """
    rows = []
    for c in contests:
        for (method, _, _), h in c.histories().groupby(
            ["display", "cell_line", "fold"], sort=False
        ):
            for column, series in (("train_loss", "training"), ("val", "validation")):
                if column in h and h[column].notna().any():
                    relative = h[column] / h[column].iloc[0]
                    panel = method if len(contests) == 1 else f"{method}\n{c.data.name}"
                    rows.append(pd.DataFrame({"panel": panel, "series": series, "epoch": h["epoch"] + 1,
                                              "value": relative}))  # fmt: skip
    table = pd.concat(rows)
    grouped = table.groupby(["panel", "series", "epoch"], sort=False)["value"]
    return grouped.agg(value="mean", low="min", high="max").reset_index()


def distribution_summary(table: pd.DataFrame, contest: Contest) -> pd.DataFrame:
    """Mean of each distributional metric by source of cells, and what is left of the gap to the floor.

    Returns
    -------
    pandas.DataFrame
        display, the metrics, `unexplained` (energy distance as a share of that of unchanged controls;
        the halves of the observed cells are at about 0), energy_difference to the controls shifted by kNN
        with low and high over folds; best energy distance first.
    """
    means = (
        table.groupby(["display", "metric"], sort=False)["value"].mean().unstack()[list(METRICS)]
    )
    means["unexplained"] = means["energy"] / means.loc[UNCHANGED, "energy"]
    rows = table[table["metric"] == "energy"]
    folds = rows.groupby(["display", "fold"])["value"].mean().unstack("fold")
    ratio = float((rows["n_test"] / rows["n_train"]).mean())
    for name, values in (folds - folds.loc[SHIFTED]).iterrows():
        interval = mean_ci(values.to_numpy(), test_ratio=ratio)
        means.loc[name, ["difference", "low", "high"]] = interval.mean, interval.low, interval.high
    means.loc[SHIFTED, ["difference", "low", "high"]] = np.nan
    return means.sort_values("energy").reset_index().assign(data=contest.title)


def panels(contests: list[Contest]) -> pd.DataFrame:
    """L2 scores for the box plot; panels are cell lines, named by data set where there are several."""
    parts = []
    for c in contests:
        rows = c.scores[c.scores["metric"] == "L2"]
        where, short = rows["cell_line"].astype(str), c.title.split(" (")[0]
        if len(contests) > 1:
            where = short if len(c.lines()) == 1 else short + ", " + where
        parts.append(rows.assign(cell_line=where))
    return pd.concat(parts, ignore_index=True)


def cost_table(contests: list[Contest]) -> pd.DataFrame:
    """Seconds of training and of sampling, together and relative to kNN, with the score they buy."""
    table = summary_table(contests)
    table = table[~table["display"].isin(LINES) & table["seconds"].gt(0)].copy()
    parts = []
    for c in contests:
        here = table[table["data"] == c.title].copy()
        own = here[(here["embedding"] == c.embedding.name) & (here["predictor"] == "knn")]
        parts.append(here.assign(times_knn=here["seconds"] / float(own["seconds"].iloc[0])))
    columns = [
        "data",
        "display",
        "value",
        "train_seconds",
        "sample_seconds",
        "seconds",
        "times_knn",
    ]
    return pd.concat(parts, ignore_index=True)[columns].sort_values(["data", "seconds"])
