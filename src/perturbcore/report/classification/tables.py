"""Tables of a chapter on labels: what was labelled, whether it is true, families of embeddings."""

import numpy as np
import pandas as pd

from perturbcore.report.classification.parts import RANDOM, Part
from perturbcore.report.figures.style import display_names
from perturbcore.report.summary import FLOOR, main_predictor
from perturbcore.score.metrics.registry import metric as find_metric
from perturbcore.score.uncertainty.differences import paired_differences

# effects on log1p(1e4) expression that a screen of some dozen cells could see
VISIBLE = 0.25

FAMILIES = {
    "modality": "Family",
    "n": "Embeddings",
    "best": "Best",
    "value": "Its score",
    "median": "Median",
    "over_random": "Best over random",
    "over_floor": "Best over Train Mean",
    "p_random": "p against random",
    "p_floor": "p against Train Mean",
}
LINES = {
    "dataset": "Data set",
    "display": "Method",
    "modality": "Modality",
    "cell_line": "Cell line",
    "logistic": "Logistic",
    "knn": "kNN",
}
LABELS = {
    "cell_line": "Cell line",
    "perturbations": "Perturbations",
    "genes": "Genes",
    "share": "Share not 0",
    "median": "Not 0 in the median perturbation",
    "none": "Perturbations without any",
    "constant": "Genes with one class only",
}
TRUTH = {
    "cell_line": "Cell line",
    "labelled": "Labels not 0",
    "right": "Right of those",
    "found": "Found of visible effects",
    "inert": "Labels not 0, no effect",
}


def label_counts(part: Part) -> pd.DataFrame:
    """Count labels by cell line.

    Returns
    -------
    pandas.DataFrame
        cell_line, perturbations, genes, share (labels that are not 0, of those known), median (such
        labels of a perturbation), none (share of perturbations without any), constant (share of genes
        that have one class only).
    """
    responses = part.data.responses
    rows = []
    for line in part.lines:
        here = responses[(responses.obs["cell_line"].astype(str) == line).to_numpy()]
        label = np.asarray(here.layers["deg"])
        known = np.ones(label.shape, bool)
        if "observed" in here.layers:
            known = np.asarray(here.layers["observed"], dtype=bool)
        moved = (label != 0) & known
        rows.append(
            {
                "cell_line": line,
                "perturbations": len(label),
                "genes": int(known.any(axis=0).sum()),
                "share": moved.sum() / known.sum(),
                "median": float(np.median(moved.sum(axis=1))),
                "none": float((moved.sum(axis=1) == 0).mean()),
                "constant": float((~moved.any(axis=0))[known.any(axis=0)].mean()),
            }
        )
    return pd.DataFrame(rows)


def truth_table(part: Part, visible: float = VISIBLE) -> pd.DataFrame | None:
    """Hold the labels of a simulated screen against the truth it was drawn from.

    Parameters
    ----------
    part : Part
    visible : float
        A true effect of at least this size (log1p of counts scaled to 1e4) counts as visible.

    Returns
    -------
    pandas.DataFrame or None
        cell_line, labelled (share of labels that are not 0), right (share of those that have the sign
        of the true effect), found (share of visible effects that are labelled with the right sign),
        inert (share of labels that are not 0 among perturbations that do nothing; missing where none
        does). None where the truth is not known.
    """
    simulation = part.data.extras.get("simulation")
    if simulation is None:
        return None
    return labels_against_truth(part.data.responses, simulation.true_effects, visible)


def labels_against_truth(responses, truth, visible: float = VISIBLE) -> pd.DataFrame:
    """See `truth_table`; rows of `truth` are found by name."""
    truth = truth[responses.obs_names, responses.var_names]
    label, effect = np.asarray(responses.layers["deg"]), np.asarray(truth.X)
    none = "inert" if "inert" in truth.obs else "near_null"
    rows = []
    for line, at in responses.obs.groupby("cell_line", observed=True, sort=False).indices.items():
        y, e = label[at], effect[at]
        right, seen = np.sign(e) == y, np.abs(e) >= visible
        dull = truth.obs[none].to_numpy(bool)[at]
        rows.append(
            {
                "cell_line": str(line),
                "labelled": float((y != 0).mean()),
                "right": float(right[y != 0].mean()) if (y != 0).any() else np.nan,
                "found": float(right[seen].mean()) if seen.any() else np.nan,
                "inert": float((y[dull] != 0).mean()) if dull.any() else np.nan,
            }
        )
    return pd.DataFrame(rows)


def families(scores: pd.DataFrame, metric: str, predictor: str = "logistic") -> pd.DataFrame:
    """Condense a ranking to families of embeddings, each held against random vectors.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy scores of one data set.
    metric, predictor : str

    Returns
    -------
    pandas.DataFrame
        modality, n (embeddings), best, value (mean over lines and folds), median (over the family),
        over_random, over_floor (gain of the best over random vectors and over the Train Mean, positive is
        better), p_random, p_floor (Holm over families, paired by fold; the best is chosen on the same
        folds, so that they look a little too small). Best family first.
    """
    m = find_metric(metric)
    sign = 1 if m.higher_is_better else -1
    rows = main_predictor(scores[scores["metric"] == metric], predictor)
    mean = (
        display_names(rows)
        .groupby(["embedding", "predictor", "modality", "display"])["value"]
        .mean()
    )
    mean = mean.reset_index()
    floor = mean.loc[mean["predictor"] == FLOOR, "value"].iloc[0]
    random = mean.loc[mean["embedding"] == RANDOM, "value"]
    random = float(random.iloc[0]) if len(random) else np.nan
    real = mean[(mean["embedding"] != "") & ~mean["modality"].str.endswith("control")]
    out = []
    for modality, part in real.groupby("modality"):
        best = part.loc[(sign * part["value"]).idxmax()]
        out.append(
            {
                "modality": modality,
                "n": len(part),
                "best": best["display"],
                "embedding": best["embedding"],
                "value": best["value"],
                "median": part["value"].median(),
                "over_random": sign * (best["value"] - random),
                "over_floor": sign * (best["value"] - floor),
            }
        )
    out = pd.DataFrame(out)
    for column, embedding, model in (("p_random", RANDOM, predictor), ("p_floor", "", FLOOR)):
        out[column] = out["embedding"].map(
            _p_against(rows, metric, list(out["embedding"]), embedding, model)
        )
    return out.sort_values("value", ascending=not m.higher_is_better).reset_index(drop=True)


def _p_against(rows, metric, embeddings, embedding, model) -> dict:
    """Give the adjusted p-value of each of `embeddings` against one method, where that was scored."""
    reference = (rows["embedding"] == embedding) & (rows["predictor"] == model)
    if not embeddings or not reference.any():
        return {}
    chosen = rows[rows["embedding"].isin([e for e in embeddings if e]) | reference]
    against = paired_differences(chosen, metric, reference=(embedding, model), by=())
    return dict(zip(against["embedding_b"], against["p_holm"], strict=True))


def beats_floors(
    scores: pd.DataFrame, metric: str, predictor: str = "logistic"
) -> tuple[list, list]:
    """Which embeddings are distinguishably better than random vectors and than the Train Mean, and which not."""
    rows = main_predictor(scores[scores["metric"] == metric], predictor)
    alone, random = rows["embedding"] == "", rows["embedding"] == RANDOM
    real = ~alone & ~rows["modality"].str.endswith("control")
    names = list(dict.fromkeys(rows.loc[real, "embedding"]))
    good = set(names)
    for floor, reference in (
        (random, (RANDOM, predictor)),
        (rows["predictor"] == FLOOR, ("", FLOOR)),
    ):
        if floor.any() and names:
            against = paired_differences(rows[real | floor], metric, reference=reference, by=())
            better = (against["better"] == "b") & against["distinguishable"]
            good &= set(against.loc[better, "embedding_b"])
    return [n for n in names if n in good], [n for n in names if n not in good]


def by_line(part: Part, metric: str) -> pd.DataFrame:
    """Mean over folds by method and cell line, and over the lines, both predictors side by side."""
    from perturbcore.report.classification.parts import averaged

    rows = part.scores[part.scores["metric"] == metric]
    both = [rows] if rows["cell_line"].nunique() == 1 else [rows, averaged(rows)]
    rows = display_names(pd.concat(both, ignore_index=True))
    alone = rows["embedding"] == ""
    keys = ["display", "modality", "cell_line"]
    mean = rows[~alone].pivot_table(index=keys, columns="predictor", values="value", sort=False)
    # floors and the experimental error have no predictor: they stand in both columns
    other = rows[alone].groupby(keys)["value"].mean()
    other = pd.DataFrame({p: other for p in mean.columns})
    out = pd.concat([mean, other]).reset_index().assign(dataset=part.title)
    higher = find_metric(metric).higher_is_better
    return out.sort_values(["cell_line", "logistic"], ascending=[True, not higher]).reset_index(
        drop=True
    )
