"""The sentences a chapter says about its scores, each with its number."""

import numpy as np
import pandas as pd

from perturbcore.report.summary import FLOOR, Headline, main_predictor, primary_metric
from perturbcore.score.metrics.registry import metric as find_metric


def listed(names) -> str:
    """Join names as a sentence does: a, b and c."""
    names = [str(n) for n in names]
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def percent(share: float) -> str:
    """Write a share as a whole percentage; undefined shares are said to be so."""
    return f"{round(100 * share):d} %" if np.isfinite(share) else "an undefined part"


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
    mean = (
        rows.groupby(["embedding", "predictor"])["value"].mean().unstack()[[first, second]].dropna()
    )
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


def signed(value: float) -> str:
    """Write a difference with its sign."""
    return f"{value:+.3f}".replace("-", "\u2212") if np.isfinite(value) else "undefined"


def three_sentences(told: Headline, metric: str, profile, fused: tuple | None = None) -> list[str]:
    """Give the answer of the first page: the best, the rest, the limit, each with its number.

    `fused` is what `perturbcore.report.summary.best_fusion` returns.
    """
    m = find_metric(metric)
    where = "on simulated cells with known truth" if profile.simulated else "on real cells"
    first = (
        f"In this build, {where}, {told.best} ({told.modality.lower()}) predicts unseen perturbations best: "
        f"{m.label} {told.value:.3f} (95 % interval {told.low:.3f} to {told.high:.3f}), where the Train Mean "
        f"reaches {told.floor:.3f}."
    )
    rivals = f"{len(told.rivals)} of the other {told.n - 1} embeddings cannot be told apart from it"
    if not told.rivals:
        rivals = f"all of the other {told.n - 1} embeddings are distinguishably worse"
    dull = (
        f"{len(told.useless)} of {told.n} ({listed(told.useless)})"
        if told.useless
        else f"none of {told.n}"
    )
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
    elif fused is not None:
        name, n, gap = fused
        third = (
            f"The best closes {percent(told.gap)} of the gap between Train Mean and ceiling "
            f"({told.ceiling_name}, {told.ceiling:.3f}), the best of {n} fusions of them ({name}) "
            f"{percent(gap)}{': the rest of the response is still unpredicted' if max(gap, told.gap) < 1 else ''}."
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
