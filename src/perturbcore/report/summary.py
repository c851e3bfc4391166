"""From scores to the few numbers a reader takes home: one ranking, its uncertainty, one sentence."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.report.figures.style import display_names
from perturbcore.score.metrics.registry import metric as find_metric
from perturbcore.score.task import primary_metric
from perturbcore.score.uncertainty.differences import indistinguishable
from perturbcore.score.uncertainty.gap import gap_closed
from perturbcore.score.uncertainty.intervals import mean_ci
from perturbcore.score.uncertainty.ranking import rank_table

FLOOR, CEILINGS = "train_mean", ("experimental_error", "idealized")


def ceiling_of(scores: pd.DataFrame) -> str:
    """Return what serves as ceiling here: experimental error where measured, else idealized.

    Raises
    ------
    InputError
        The scores have neither.
    """
    for name in CEILINGS:
        if (scores["predictor"] == name).any() or (scores["embedding"] == name).any():
            return name
    raise InputError(
        f"the scores have no ceiling ({' or '.join(CEILINGS)}): evaluate with controls"
    )


def main_predictor(scores: pd.DataFrame, predictor: str) -> pd.DataFrame:
    """Keep the rows of one predictor and of the floors and ceilings that have none."""
    return scores[(scores["predictor"] == predictor) | (scores["embedding"] == "")]


def ranking_table(scores: pd.DataFrame, metric: str | None = None, predictor: str = "knn"):
    """Rank embeddings over all cell lines, with intervals and what cannot be told apart.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy scores of one data set and task.
    metric : str, optional
        The primary metric of the task by default.
    predictor : str
        Whose scores to rank; floors and ceilings come along.

    Returns
    -------
    pandas.DataFrame
        display, embedding, modality, value (mean over lines and folds), low, high (95 % interval
        over folds, corrected for overlapping training sets), gap_closed (share of the way from
        Train Mean to the ceiling, median over folds, mean over lines), median_rank, behind (how much
        worse than the best), with_best (best, or not distinguishable from it), competes.
        Floors and ceilings are in the table, but do not compete.
    """
    metric = metric or primary_metric(scores)
    m = find_metric(metric)
    rows = main_predictor(scores[scores["metric"] == metric], predictor)
    folds = rows.groupby(["embedding", "predictor", "modality", "fold"], as_index=False)[
        "value"
    ].mean()
    ratio = float((rows["n_test"] / rows["n_train"]).mean())
    out = []
    for (embedding, model, modality), part in folds.groupby(["embedding", "predictor", "modality"]):
        interval = mean_ci(part["value"].to_numpy(), test_ratio=ratio)
        out.append(
            {
                "embedding": embedding,
                "predictor": model,
                "modality": modality,
                "value": interval.mean,
                "low": interval.low,
                "high": interval.high,
            }
        )
    table = pd.DataFrame(out)
    keys = ["embedding", "predictor"]
    gap = gap_closed(rows, metric, floor=FLOOR, ceiling=ceiling_of(rows))
    table = table.merge(gap.groupby(keys, as_index=False)["gap_closed"].mean(), on=keys, how="left")
    ranks = rank_table(rows, metric, exclude=CEILINGS)
    table = table.merge(ranks[[*keys, "median_rank"]], on=keys, how="left")
    best = indistinguishable(rows, metric, by=())
    best["with_best"] = ~best["distinguishable"].astype(bool)
    best = best.rename(columns={"p_holm": "p_from_best"})
    table = table.merge(best[[*keys, "behind", "p_from_best", "with_best"]], on=keys, how="left")
    table["competes"] = table["with_best"].notna()
    table["with_best"] = table["with_best"].eq(True)
    order = table["value"] if not m.higher_is_better else -table["value"]
    table = table.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)
    return display_names(table)


RANKING_COLUMNS = {
    "display": "Method",
    "modality": "Modality",
    "value": "Score",
    "low": "95 % low",
    "high": "high",
    "gap_closed": "Gap closed",
    "median_rank": "Median rank",
    "behind": "Behind best",
    "p_from_best": "p (Holm)",
}
NEIGHBOURS = {
    "place": "Place",
    "display": "Embedding",
    "mean": "Score",
    "next": "Next",
    "behind": "Next is worse by",
    "p_holm": "p (Holm)",
    "distinguishable": "Told apart",
}


@dataclass(frozen=True)
class Headline:
    """The answer in numbers.

    Attributes
    ----------
    best, modality : str
        The embedding with the best mean score, and its modality.
    value, low, high : float
        Its score and 95 % interval.
    floor, ceiling : float
        Scores of Train Mean and of the ceiling.
    gap : float
        Share of the gap it closes.
    gap_by_line : dict
        The same by cell line (medians over folds).
    rivals : list of str
        Methods not distinguishable from it.
    useless : list of str
        Embeddings not distinguishable from Train Mean or worse.
    n : int
        Embeddings that compete (controls not counted).
    ceiling_name : str
        What the ceiling is.
    """

    best: str
    modality: str
    value: float
    low: float
    high: float
    floor: float
    ceiling: float
    gap: float
    gap_by_line: dict
    rivals: list
    useless: list
    n: int
    ceiling_name: str


def headline(scores: pd.DataFrame, metric: str | None = None, predictor: str = "knn") -> Headline:
    """Condense scores to a `Headline`; parameters as `ranking_table`."""
    from perturbcore.score.uncertainty.differences import paired_differences

    metric = metric or primary_metric(scores)
    rows = main_predictor(scores[scores["metric"] == metric], predictor)
    table = ranking_table(scores, metric, predictor)
    real = table[table["competes"] & ~table["modality"].str.endswith("control")]
    best = real.iloc[0]
    name = ceiling_of(rows)
    end = table[(table["predictor"] == name) | (table["embedding"] == name)].iloc[0]
    gaps = gap_closed(rows, metric, floor=FLOOR, ceiling=name)
    gaps = gaps[(gaps["embedding"] == best["embedding"]) & (gaps["predictor"] == best["predictor"])]
    against = paired_differences(rows, metric, reference=FLOOR, by=())
    against["worse"] = (against["better"] == "a") | ~against["distinguishable"]
    dull = set(against.loc[against["worse"], "embedding_b"])
    return Headline(
        best=best["display"],
        modality=best["modality"],
        value=best["value"],
        low=best["low"],
        high=best["high"],
        floor=float(table.loc[table["predictor"] == FLOOR, "value"].iloc[0]),
        ceiling=float(end["value"]),
        gap=float(best["gap_closed"]),
        gap_by_line=dict(zip(gaps["cell_line"], gaps["gap_closed"], strict=True)),
        rivals=[d for d in real.loc[real["with_best"], "display"] if d != best["display"]],
        useless=[d for d, e in zip(real["display"], real["embedding"], strict=True) if e in dull],
        n=len(real),
        ceiling_name=str(end["display"]),
    )


def best_fusion(told: Headline, scores: pd.DataFrame, metric: str) -> tuple[str, int, float] | None:
    """Name the best fusion of a data set, how many there are, and the share of the gap of `told` it closes.

    Parameters
    ----------
    told : Headline
        Of the single embeddings on the same data set.
    scores : pandas.DataFrame
        Tidy scores with fusions (modality "Fusion"); None is returned where there are none.
    metric : str
    """
    rows = scores[(scores["metric"] == metric) & (scores["modality"] == "Fusion")]
    if not len(rows):
        return None
    mean = rows.groupby("embedding")["value"].mean()
    name = mean.idxmax() if find_metric(metric).higher_is_better else mean.idxmin()
    return str(name), len(mean), float((mean[name] - told.floor) / (told.ceiling - told.floor))


def significant_neighbours(
    scores: pd.DataFrame, metric: str, predictor: str = "knn"
) -> pd.DataFrame:
    """Say for each embedding of the ranking whether the next one is truly worse."""
    from perturbcore.score.uncertainty.differences import neighbour_table

    rows = main_predictor(scores[scores["metric"] == metric], predictor)
    table = display_names(neighbour_table(rows, metric, by=()))
    following = table[["next_embedding", "next_predictor"]].fillna("")
    following.columns = ["embedding", "predictor"]
    table["next"] = display_names(following)["display"].to_numpy()
    return table


def gap_table(scores: pd.DataFrame, metric: str, predictor: str = "knn") -> pd.DataFrame:
    """Share of the gap closed by each embedding in each cell line, wide: methods x lines."""
    rows = main_predictor(scores[scores["metric"] == metric], predictor)
    gaps = display_names(gap_closed(rows, metric, floor=FLOOR, ceiling=ceiling_of(rows)))
    wide = gaps.pivot_table(
        index="display", columns="cell_line", values="gap_closed", observed=True
    )
    return wide.assign(mean=wide.mean(axis=1)).sort_values("mean", ascending=False)
