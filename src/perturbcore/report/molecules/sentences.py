"""The sentences of the chapter on small molecules, each with its numbers."""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from perturbcore.report.molecules.signal import BY_CHANCE, true_error, truth_of
from perturbcore.report.summary import FLOOR, RANKING_COLUMNS, main_predictor, primary_metric

ENOUGH = 0.25


def _mean(table: pd.DataFrame, column: str) -> float:
    known = table[table[column].notna()]
    return float(np.average(known[column], weights=known["drugs"])) if len(known) else float("nan")


def noise_said(data, table: pd.DataFrame) -> str:
    """Say how many drugs stand out from noise: by replicates, by their own error, and by the truth.

    Parameters
    ----------
    data : Dataset
    table : pandas.DataFrame
        Of `perturbcore.report.molecules.signal.noise_table`.
    """
    again, beyond = (_mean(table, c) for c in ("reproducible", "beyond"))
    parts = []
    if np.isfinite(again):
        most = "Most drugs are near noise" if again < 0.5 else "Most drugs stand out from noise"
        parts.append(
            f"{most}: {again:.0%} of them are found again, that is, the two halves of a drug's plates resemble "
            f"each other more than {1 - BY_CHANCE:.0%} of the pairs of different drugs do (by chance: "
            f"{BY_CHANCE:.0%}). "
            f"On average, halves of one drug correlate by {_mean(table, 'same'):.2f}, of different drugs by "
            f"{_mean(table, 'other'):.2f}, the mean drug taken away."
        )
    if np.isfinite(beyond):
        parts.append(
            f"The measured effect of {beyond:.0%} is larger than its own experimental error, which it contains; "
            f"the median effect has an L2 of {table['effect'].median():.2f}, the median error is "
            f"{table['error'].median():.2f}."
        )
    if not parts:
        parts.append(
            "These data hold no replicates: it cannot be said how many drugs stand out from noise."
        )
    truth = truth_of(data)
    if truth is not None and "inert" in truth.obs:
        inert = truth.obs["inert"].to_numpy(bool)
        size = np.linalg.norm(np.asarray(truth.X, float), axis=1)
        parts.append(
            f"In truth {inert.mean():.0%} do nothing, and of the others half move the cell by less than "
            f"{np.median(size[~inert]):.2f}."
        )
    return " ".join(parts)


def reading(scores: pd.DataFrame, data) -> str:
    """Say what lies between No Change, the Train Mean and the experimental error.

    Parameters
    ----------
    scores : pandas.DataFrame
        Of one data set, task "lfc".
    data : Dataset
    """
    rows = main_predictor(scores[scores["metric"] == "L2"], "knn")
    mean = rows.groupby("predictor")["value"].mean()
    floor, none = mean[FLOOR], mean["no_change"]
    verb = "is worse than" if floor > none else "beats"
    parts = [
        f"The Train Mean ({floor:.2f}) {verb} No Change ({none:.2f}) by {abs(1 - floor / none):.1%}."
    ]
    limit = mean.get("experimental_error", np.nan)
    if np.isfinite(limit):
        real = "better than the Train Mean: some of what is left of the responses is real."
        noise = (
            "no better than the Train Mean: by this measure, an upper quantile, what is left of the responses "
            "cannot be told from noise."
        )
        parts.append(f"The experimental error ({limit:.2f}) is {real if limit < floor else noise}")
    if truth_of(data) is not None:
        parts.append(f"Predicting every true effect would score {true_error(data):.2f}.")
    return " ".join(parts)


def _gap(told) -> float:
    """Share of the gap that the best closes, or missing where there is no gap."""
    return told.gap if told.ceiling < told.floor else float("nan")


def answer(told, data) -> str:
    """Say what the ranking found, and what of the gap it closes, where there is a gap.

    Parameters
    ----------
    told : Headline
        Of `perturbcore.report.summary.headline`, metric L2.
    data : Dataset
    """
    first = (
        f"On {data.title}, the best of {told.n} embeddings is **{told.best}** ({told.modality.lower()}): L2 "
        f"{told.value:.3f} (95 % interval {told.low:.3f} to {told.high:.3f}), against {told.floor:.3f} for "
        "the Train Mean."
    )
    gap, ceiling = _gap(told), f"{told.ceiling_name}, {told.ceiling:.3f}"
    if np.isfinite(gap):
        share = f"closes **{gap:.0%}**" if gap > 0 else f"closes nothing ({gap:.0%})"
        second = f"It {share} of the gap between Train Mean and ceiling ({ceiling})."
    else:
        second = (
            f"The ceiling ({ceiling}) is no better than the Train Mean: there is no gap to close."
        )
    rivals, dull = len(told.rivals), len(told.useless)
    third = f"Of the other {told.n - 1}, {rivals or 'none'} cannot be told apart from it"
    if rivals == told.n - 1:
        third = f"None of the other {told.n - 1} can be told apart from it"
    if dull == told.n:
        fourth = "none can be shown to beat the Train Mean."
    elif dull:
        fourth = f"{dull} of all {told.n} cannot be shown to beat the Train Mean."
    else:
        fourth = "all beat the Train Mean."
    return f"{first}\n\n{second}\n\n{third}, and {fourth}"


def columns(told) -> dict:
    """Columns of the ranking to show: without the share of the gap where there is no gap."""
    gap = np.isfinite(_gap(told))
    return {c: h for c, h in RANKING_COLUMNS.items() if c != "gap_closed" or gap}


def one_line(told, table: pd.DataFrame, data) -> str:
    """Condense the answer of the chapter to one sentence.

    Parameters
    ----------
    told : Headline
        Of `perturbcore.report.summary.headline`.
    table : pandas.DataFrame
        Of `perturbcore.report.molecules.signal.noise_table`.
    data : Dataset
    """
    drugs = data.responses.obs["perturbation"].nunique()
    part = f"Of {told.n} drug embeddings on {drugs} drugs, "
    if told.best in told.useless:
        part += (
            f"none can be shown to beat the Train Mean (L2 {told.floor:.2f}); the best, {told.best}, reaches "
            f"{told.value:.2f}"
        )
    else:
        part += (
            f"{told.best} ({told.modality.lower()}) is best with an L2 of {told.value:.2f} against "
            f"{told.floor:.2f} for the Train Mean, and {len(told.useless)} cannot be shown to beat it"
        )
    again, beyond = (_mean(table, c) for c in ("reproducible", "beyond"))
    if np.isfinite(again):
        return f"{part}; {again:.0%} of the drugs are found again in replicates, the others are near noise."
    if np.isfinite(beyond):
        return f"{part}; {beyond:.0%} of the effects are larger than their own experimental error."
    return f"{part}."


def twins_said(report: pd.DataFrame, responses) -> str:
    """Say in how far folds part drugs that are one molecule, or one but for salt or stereo-chemistry.

    Parameters
    ----------
    report : pandas.DataFrame
        Of `perturbcore.report.molecules.report.molecule_report`.
    responses : AnnData
        With folds.
    """
    obs = responses.obs
    folds = obs.groupby(obs["perturbation"].astype(str))["fold"]
    shared = int((folds.nunique() == 1).sum())
    lines = obs["cell_line"].nunique()
    where = "" if lines == 1 else f", the same in all {lines} cell lines"
    first = f"Each drug lies in one fold{where}"
    if shared < folds.ngroups:
        first = f"{folds.ngroups - shared} of {folds.ngroups} drugs lie in different folds in different cell lines"
    fold, flat = folds.first(), report.loc[report["flat"] != "", "flat"]
    flat = flat[flat.index.isin(fold.index)]
    groups = [fold[list(drugs)] for drugs in flat.groupby(flat).groups.values() if len(drugs) > 1]
    if not groups:
        return f"{first}; no two drugs are one molecule up to salt and stereo-chemistry."
    n = sum(len(g) for g in groups)
    apart = sum(len(g) for g in groups if g.nunique() > 1)
    return (
        f"{first}; but {n} drugs are one molecule with another up to salt and stereo-chemistry, and {apart} of "
        "these have such a twin in another fold, which flatters every embedding a little."
    )


def known_targets_said(report: pd.DataFrame, table: pd.DataFrame, name: str) -> str:
    """Say how many drugs of a table without targets have one in another table, matched by structure.

    Parameters
    ----------
    report : pandas.DataFrame
        Of `molecule_report`, of the drugs in question.
    table : pandas.DataFrame
        Drugs with targets; name is what it is called.
    """
    from perturbcore.report.molecules.report import molecule_report

    targeted = table[table["targets"] != ""]
    known = set(molecule_report(targeted)["flat"]) - {""}
    n = int(report["flat"].isin(known).sum())
    few = n < ENOUGH * len(report)
    return (
        f"The data set names no targets. {n} of its {len(report)} drugs ({n / len(report):.0%}) have one in "
        f"{name}, matched by structure without salt and stereo-chemistry"
        + (": too few to ask here what targets are worth." if few else ".")
    )


def information_said(told: pd.DataFrame, scores: pd.DataFrame, predictor: str = "knn") -> str:
    """Say whether the ranking of embeddings is the order of what they know of the true effects.

    Parameters
    ----------
    told : pandas.DataFrame
        Of `perturbcore.report.molecules.signal.information`.
    scores : pandas.DataFrame
        Scores of the same embeddings.
    """
    if told.empty:
        return (
            "Whether the ranking is the order of what the embeddings know cannot be asked here; on the simulated "
            "drugs, whose truth is known, it can (`make run CHAPTER=small_molecules PROFILE=demo`)."
        )
    from perturbcore.score.metrics.registry import metric as find_metric

    metric = primary_metric(scores)
    rows = main_predictor(scores[scores["metric"] == metric], predictor)
    value = rows.groupby("embedding")["value"].mean()
    both = (
        told[~told["modality"].str.endswith("control")]
        .assign(value=told["embedding"].map(value))
        .dropna()
    )
    good = both["value"] if find_metric(metric).higher_is_better else -both["value"]
    test = spearmanr(both["follows"], good)
    by = both.groupby("modality")["follows"].median().sort_values(ascending=False)
    best = both.loc[good.idxmax(), "embedding"]
    agrees = test.pvalue < 0.05 and test.statistic > 0
    return (
        f"Here the truth is known: distances in an embedding follow the true effects best in "
        f"{both['embedding'].iloc[0]} (rank correlation {both['follows'].iloc[0]:.2f} over pairs of drugs; "
        + "medians: "
        + ", ".join(f"{m.lower()} {v:.2f}" for m, v in by.items())
        + f"), {predictor} scores {best} best, and over {len(both)} embeddings the two orders correlate by "
        f"{test.statistic:.2f} (p = {test.pvalue:.2g}, were they independent): the ranking "
        + ("is" if agrees else "is not distinguishably")
        + " the order of what the embeddings know."
    )


def beside_said(scores: pd.DataFrame, published) -> str:
    """Set the gain of the best embedding over Train Mean beside the published one on Sci-Plex.

    Parameters
    ----------
    scores : pandas.DataFrame
        Own scores, task "lfc".
    published : Published
    """
    from perturbcore.report.published.figures import figure_data

    rows = main_predictor(scores[scores["metric"] == "L2"], "knn")
    mean = rows.groupby(["embedding", "predictor", "modality"])["value"].mean().reset_index()
    floor = float(mean.loc[mean["predictor"] == FLOOR, "value"].iloc[0])
    own = mean[~mean["modality"].str.endswith("control")]
    own = own.loc[own["value"].idxmin()]
    figure = figure_data("S8", published)
    medians = figure.medians()
    real = figure.scores.drop_duplicates("display").set_index("display")["modality"]
    names = [
        d
        for d in medians
        if not real[d].endswith("control") and real[d] not in ("Fusion", "Advanced")
    ]
    gain = 1 - medians[names].min(axis=1) / medians["Train Mean"]
    each = ", ".join(f"{line} {g:.1%}" for line, g in gain.items())
    here = 1 - own["value"] / floor
    return (
        f"On Sci-Plex the published best embedding lowers the L2 of the Train Mean by {each} (medians over "
        f"folds); here the best, {own['embedding']}, {'lowers' if here > 0 else 'raises'} it by {abs(here):.1%}."
    )


def tahoe_read_off() -> tuple[str, pd.DataFrame]:
    """Figures S5 and S6, whose scores are not public: what can be read off the images, and a sentence."""
    from perturbcore.data.published.facts import facts

    table = facts("cole2026_tahoe_lfc_read_off")
    wide = table.set_index(["figure", "display_name"])["L2_median"]
    parts = []
    for figure, estimator in (
        table[["figure", "estimator"]].drop_duplicates().itertuples(index=False)
    ):
        here = wide[figure]
        name = next(n for n in here.index if "best by median" in n)
        gap = (here["Train Mean"] - here[name]) / (here["Train Mean"] - here["Experimental Error"])
        parts.append(
            f"{estimator}: {name.split(' (')[0]} {here[name]:.2f} against {here['Train Mean']:.2f}, "
            f"{gap:.0%} of the gap"
        )
    sentence = (
        "The scores of Figures S5 and S6 (Tahoe) are not in the authors' repository. Read off the images, "
        f"the best embedding is hardly better than the Train Mean ({'; '.join(parts)})."
    )
    return sentence, table.rename(columns={"display_name": "method"})
