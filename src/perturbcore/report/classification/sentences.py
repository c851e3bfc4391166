"""What a chapter on labels says of its scores, each sentence with its number."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from perturbcore.report import summary
from perturbcore.report.classification.parts import RANDOM, Part
from perturbcore.report.classification.tables import (
    VISIBLE,
    beats_floors,
    families,
    label_counts,
    truth_table,
)
from perturbcore.report.sentences import listed, percent
from perturbcore.score.metrics.registry import metric as find_metric

# a difference of F1 below this is not worth an explanation
NOTABLE = 0.005
UP = {"f1_score": "macro F1", "auroc_within": "AUROC"}


def absent_said(absent: Mapping[str, str]) -> str:
    """Name the data sets that are not at hand, with the reason; empty where all are."""
    return "\n\n".join(f"Left out: data set `{name}`. {why}" for name, why in absent.items())


def left_out_said(part: Part) -> str:
    """Name the embeddings asked for that a data set cannot use; empty where there are none."""
    if not part.left_out:
        return ""
    return f"{part.title} has no use for {listed(part.left_out)}: absent, or with vectors for too few perturbations."


def counts_said(part: Part) -> str:
    """Say how sparse the labels of a data set are."""
    table = label_counts(part)
    share, none = table["share"], table["none"]
    of = "of the known labels" if part.data.task.endswith("_pairs") else "of the labels"
    one = f"In {part.title}, {_range(share)} {of} are not 0"
    if none.max() > 0:
        one += f"; {_range(none)} of the perturbations have none that is not"
    return one + "."


def _range(values: pd.Series) -> str:
    low, high = f"{100 * values.min():.1f}", f"{100 * values.max():.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def reading(part: Part, metric: str, predictor: str = "logistic") -> str:
    """Say what floor, random vectors and ceiling mean for the scores of a data set."""
    mean = _means(part.scores, metric, predictor)
    floor, random = mean["", "train_mean"], mean.get((RANDOM, predictor), np.nan)
    text = f"{part.title}: the Train Mean reaches {floor:.3f}, random vectors {random:.3f}"
    if random > floor + NOTABLE:
        text += (
            ", without knowing anything: the classifier gives rare classes their weight, which the score "
            "rewards. What an embedding adds must be read from the random ones"
        )
    elif random < floor - NOTABLE:
        text += (
            ": the classifier gives rare classes their weight also where it has nothing to tell them by, and "
            "with so few perturbations that costs more than it gains. A useful embedding must beat both"
        )
    ideal = mean.get(("idealized", predictor), np.nan)
    text += f". Vectors made from the labels themselves reach {ideal:.3f}"
    limit = mean.get(("", "experimental_error"), np.nan)
    if np.isfinite(limit):
        return (
            f"{text}; a repeated experiment would reach {limit:.3f} (experimental error, q = 0.1)."
        )
    return f"{text}; without replicates, it cannot be said what a repeated experiment would reach."


def _means(scores, metric, predictor) -> pd.Series:
    rows = summary.main_predictor(scores[scores["metric"] == metric], predictor)
    return rows.groupby(["embedding", "predictor"])["value"].mean()


def finding(part: Part, metric: str, predictor: str = "logistic") -> str:
    """Say which embedding is best on a data set, and how many beat random vectors and Train Mean."""
    m = find_metric(metric)
    table = families(part.scores, metric, predictor)
    mean = _means(part.scores, metric, predictor)
    top, good, rest = table.iloc[0], *beats_floors(part.scores, metric, predictor)
    text = (
        f"On {part.title}, **{top['best']}** ({top['modality'].lower()}) is best: {m.label} {top['value']:.3f}, "
        f"against {mean[RANDOM, predictor]:.3f} for random vectors and {mean['', 'train_mean']:.3f} for the "
        "Train Mean"
    )
    end = (
        ("", "experimental_error")
        if ("", "experimental_error") in mean.index
        else ("idealized", predictor)
    )
    name = "the experimental error" if end[0] == "" else "idealized vectors"
    floor = max(mean[RANDOM, predictor], mean["", "train_mean"])
    if mean[end] > floor:
        share = percent((top["value"] - floor) / (mean[end] - floor))
        text += (
            f"; from the better of the two to {name} ({mean[end]:.3f}) that is {share} of the way"
        )
    return (
        f"{text}. Of {len(good) + len(rest)} embeddings, {_told(good)} can be shown to beat both."
    )


def _told(names) -> str:
    return f"{len(names)} ({listed(names)})" if names else "none"


def one_line(parts: Mapping[str, Part], metric: str, predictor: str = "logistic") -> str:
    """Condense the answer on all data sets of drugs to one sentence."""
    said = []
    for part in parts.values():
        top = families(part.scores, metric, predictor).iloc[0]
        good, rest = beats_floors(part.scores, metric, predictor)
        mean = _means(part.scores, metric, predictor)
        n = len(good) + len(rest)
        said.append(
            f"on {part.title}, {len(good) or 'none'} of {n} embeddings can be shown to beat both random vectors "
            f"and the Train Mean (best: {top['best']}, {UP.get(metric, metric)} {top['value']:.3f}; random "
            f"{mean[RANDOM, predictor]:.3f}, Train Mean {mean['', 'train_mean']:.3f})"
        )
    text = "; ".join(said)
    return (
        f"Which genes a drug moves: {text}."
        if said
        else "No labels of drugs are at hand in this profile."
    )


def predictors_said(part: Part, metric: str) -> str:
    """Compare the logistic classifier with kNN over the embeddings of a data set."""
    from perturbcore.report.sentences import predictor_agreement

    return f"{part.title}. {predictor_agreement(part.scores, metric, 'knn', 'logistic')}"


def metrics_said(
    part: Part, metric: str, others=("roc_auc", "average_precision"), predictor="logistic"
) -> str:
    """Say how far other metrics rank the embeddings as the main one does."""
    rows = part.scores[
        (part.scores["predictor"] == predictor) & ~part.scores["modality"].str.endswith("control")
    ]
    wide = rows.pivot_table(index="embedding", columns="metric", values="value")
    there = [o for o in others if o in wide and wide[o].notna().all()]
    if len(wide) < 3 or not there:
        return ""
    rho = wide.corr("spearman")[metric]
    said = listed([f"{find_metric(o).label} ({rho[o]:.2f})" for o in there])
    return f"Rank correlation of {find_metric(metric).label} over the {len(wide)} embeddings with {said}."


def truth_said(part: Part, table: pd.DataFrame | None) -> str:
    """Say how true the labels of a simulated screen are, or that it cannot be known."""
    if table is None:
        return f"{part.title}: whether these labels are right cannot be checked, since the truth is not known."
    mean = table[["right", "found", "inert"]].mean()
    return (
        f"{part.title}: {percent(mean['right'])} of the labels that are not 0 have the sign of the true effect, "
        f"but only {percent(mean['found'])} of the effects large enough to be seen are labelled: what the "
        "tests say is nearly always right, and much is not said. Among perturbations that do nothing, "
        f"{100 * mean['inert']:.2f} % of the labels are not 0."
    )


def batches_said(parts: Mapping[str, Part], visible: float = VISIBLE) -> str:
    """Compare labels that pool batches with labels voted by plates, where the truth of both is known."""
    rates = {}
    for part in parts.values():
        table = truth_table(part, visible)
        if table is not None:
            rates[part.data.responses.uns["perturbcore"]["variant"]] = float(table["inert"].mean())
    if not {"pooled", "per_batch"} <= set(rates):
        return ""
    return (
        f"Perturbations that do next to nothing get {100 * rates['per_batch']:.2f} % labels that are not 0 where "
        f"each plate is tested against its own controls, and {100 * rates['pooled']:.1f} % where batches are "
        "pooled, as is published for small batches: batches hold unequal shares of controls here, and the pooled "
        "test takes the difference of batches for an effect."
    )
