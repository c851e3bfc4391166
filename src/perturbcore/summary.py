"""From scores to the few numbers a reader takes home: one ranking, its uncertainty, one sentence."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from perturbcore.errors import InputError
from perturbcore.figures.style import display_names
from perturbcore.metrics import metric as find_metric
from perturbcore.uncertainty import gap_closed, indistinguishable, mean_ci, rank_table

PRIMARY = {"lfc": "L2", "deg_pairs": "auroc_within", "dir_pairs": "auroc_within"}
FLOOR, CEILINGS = "train_mean", ("experimental_error", "idealized")


def primary_metric(scores: pd.DataFrame) -> str:
    """Return the metric that ranks methods on the task of these scores.

    Raises
    ------
    InputError
        The scores hold several tasks, or one without a primary metric.
    """
    tasks = list(scores["task"].unique())
    if len(tasks) != 1 or tasks[0] not in PRIMARY:
        raise InputError(f"scores of one task among {', '.join(PRIMARY)} are needed, not {tasks}")
    return PRIMARY[tasks[0]]


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
    raise InputError(f"the scores have no ceiling ({' or '.join(CEILINGS)}): evaluate with controls")


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
    folds = rows.groupby(["embedding", "predictor", "modality", "fold"], as_index=False)["value"].mean()
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
    table["with_best"] = table["with_best"].fillna(False).astype(bool)
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
    from perturbcore.uncertainty import paired_differences

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


def listed(names) -> str:
    """Join names as a sentence does: a, b and c."""
    names = [str(n) for n in names]
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def significant_neighbours(scores: pd.DataFrame, metric: str, predictor: str = "knn") -> pd.DataFrame:
    """Say for each embedding of the ranking whether the next one is truly worse."""
    from perturbcore.uncertainty import neighbour_table

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
    wide = gaps.pivot_table(index="display", columns="cell_line", values="gap_closed", observed=True)
    return wide.assign(mean=wide.mean(axis=1)).sort_values("mean", ascending=False)


def percent(share: float) -> str:
    """Write a share as a whole percentage; undefined shares are said to be so."""
    return f"{100 * share:.0f} %" if np.isfinite(share) else "an undefined part"


def answer(told: Headline, metric: str, data) -> str:
    """Say in three sentences what a ranking found, each with its number and interval."""
    m = find_metric(metric)
    by_line = ", ".join(f"{line} {percent(g)}" for line, g in told.gap_by_line.items())
    low, high = f"{told.low:.3f}", f"{told.high:.3f}"
    first = (
        f"On {data.title}, the best of {told.n} embeddings is **{told.best}** ({told.modality.lower()}): "
        f"{m.label} {told.value:.3f} (95 % interval {low} to {high}), against {told.floor:.3f} for the "
        f"Train Mean."
    )
    second = (
        f"It closes **{percent(told.gap)}** of the gap between Train Mean and ceiling "
        f"({told.ceiling_name}, {told.ceiling:.3f}); by cell line: {by_line}."
    )
    rivals = (
        f"{listed(told.rivals)} cannot be told apart from it"
        if told.rivals
        else "every other embedding is distinguishably worse"
    )
    dull = (
        f"{listed(told.useless)} cannot be shown to beat the Train Mean"
        if told.useless
        else "every embedding beats the Train Mean"
    )
    return f"{first}\n\n{second}\n\nOf the others, {rivals}, and {dull}."


def predictor_agreement(scores: pd.DataFrame, metric: str, first: str, second: str) -> str:
    """Say how far two predictors rank the embeddings alike."""
    rows = scores[(scores["metric"] == metric) & ~scores["modality"].str.endswith("control")]
    mean = rows.groupby(["embedding", "predictor"])["value"].mean().unstack()[[first, second]].dropna()
    rho = mean.corr("spearman").iloc[0, 1]
    better = mean[second] < mean[first]
    if find_metric(metric).higher_is_better:
        better = mean[second] > mean[first]
    return (
        f"Over {len(mean)} embeddings, the mean scores of {first} and {second} have a rank correlation "
        f"of {rho:.2f}; {second} is the better predictor for {int(better.sum())} of them."
    )


def one_line(told: Headline, metric: str) -> str:
    """Condense the answer of a ranking to one sentence."""
    m = find_metric(metric)
    if told.best in told.useless:
        return (
            f"No embedding can be shown to beat the Train Mean ({m.label} {told.floor:.2f}); the best, "
            f"{told.best}, reaches {told.value:.2f}, the ceiling lies at {told.ceiling:.2f}."
        )
    return (
        f"{told.best} ({told.modality.lower()}) is best of {told.n} and closes {percent(told.gap)} of the gap "
        f"between Train Mean and ceiling; {len(told.useless)} of {told.n} cannot be shown to beat the Train Mean."
    )


def three_sentences(told: Headline, metric: str, profile) -> list[str]:
    """Give the answer of the first page: the best, the rest, the limit, each with its number."""
    m = find_metric(metric)
    where = "on simulated cells with known truth" if profile.simulated else "on real cells"
    first = (
        f"In this build, {where}, {told.best} ({told.modality.lower()}) predicts unseen perturbations best: "
        f"{m.label} {told.value:.3f} (95 % interval {told.low:.3f} to {told.high:.3f}), where the Train Mean "
        f"reaches {told.floor:.3f}."
    )
    rivals = f"{len(told.rivals)} of the other {told.n - 1} embeddings cannot be told apart from it"
    dull = f"{len(told.useless)} of {told.n} ({listed(told.useless)})" if told.useless else f"none of {told.n}"
    second = f"{rivals}, and {dull} cannot be shown to beat the Train Mean."
    third = (
        f"The best closes {percent(told.gap)} of the gap between Train Mean and ceiling "
        f"({told.ceiling_name}, {told.ceiling:.3f}): the rest of the response is still unpredicted."
    )
    if told.gap >= 1:
        third = (
            f"It reaches the ceiling ({told.ceiling_name}, {told.ceiling:.3f}), closing {percent(told.gap)} "
            "of the gap from the Train Mean."
        )
    return [first, second[0].upper() + second[1:], third]


def reading(scores: pd.DataFrame, predictor: str = "knn") -> str:
    """Say what floor and ceiling mean on a screen where little is learnt: what is there to be found."""
    metric = primary_metric(scores)
    sign = 1 if find_metric(metric).higher_is_better else -1
    rows = main_predictor(scores[scores["metric"] == metric], predictor)
    mean = rows.groupby(["embedding", "predictor"])["value"].mean()
    floor, none = mean["", FLOOR], mean["", "no_change"]
    limit = mean["", "experimental_error"] if ("", "experimental_error") in mean.index else np.nan
    shared = (
        f"The Train Mean ({floor:.2f}) beats No Change ({none:.2f}): the shared part of the responses is "
        "learnt even from few perturbations."
        if sign * (floor - none) > 0
        else f"The Train Mean ({floor:.2f}) does not beat No Change ({none:.2f}): the responses share little."
    )
    if not np.isfinite(limit):
        return f"{shared} Without replicates, it cannot be said how much of the rest is noise."
    rest = (
        f"The experimental error ({limit:.2f}) lies beyond the Train Mean: the rest of the response is real "
        "and measured; no embedding finds it with so few examples."
        if sign * (limit - floor) > 0
        else f"The experimental error ({limit:.2f}) is no better than the Train Mean: what is left of the "
        "responses cannot be told from noise, by any embedding."
    )
    return f"{shared} {rest}"
