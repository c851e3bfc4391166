"""What a chemical screen can carry: drugs beyond noise, twins across folds, information in embeddings."""

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from perturbcore.noise import by_line
from perturbcore.summary import FLOOR, main_predictor, primary_metric

NOISE = {
    "cell_line": "Cell line",
    "drugs": "Drugs",
    "effect": "Median effect",
    "error": "Median error",
    "beyond": "Share of drugs beyond their error",
}
FEWEST = 4
ENOUGH = 0.25


def drugs_of(data) -> pd.DataFrame | None:
    """Table of drugs that a data set brings, or None."""
    return (data.extras or {}).get("drugs")


def beyond_noise(data, ceiling: pd.DataFrame | None) -> pd.DataFrame:
    """Compare the size of each drug's effect with its own experimental error.

    Parameters
    ----------
    data : Dataset
    ceiling : pandas.DataFrame or None
        Experimental error a perturbation.

    Returns
    -------
    pandas.DataFrame
        One row a cell line: `drugs`, `effect` and `error` (medians of L2; error: quantile 0.9 under
        resampling), `beyond` (share of drugs whose effect is larger than its error). Empty without
        ceiling.
    """
    columns = ["cell_line", "drugs", "effect", "error", "beyond"]
    if ceiling is None:
        return pd.DataFrame(columns=columns)
    table = by_line(ceiling, data.responses)
    groups = table.groupby("cell_line", observed=True)
    return pd.DataFrame(
        {
            "drugs": groups.size(),
            "effect": groups["effect"].median(),
            "error": groups["value"].median(),
            "beyond": groups["above"].mean(),
        }
    ).reset_index()[columns]


def noise_said(data, table: pd.DataFrame) -> str:
    """Say how many drugs stand out from noise: by their own error, by replicates, and by the truth."""
    if table.empty:
        first = "These data hold no replicates, so that it cannot be said how many drugs stand out from noise."
    else:
        share = float(np.average(table["beyond"], weights=table["drugs"]))
        most = "Most drugs do not stand out from noise" if share < 0.5 else "Most drugs stand out from noise"
        by = ", ".join(f"{r.cell_line} {r.beyond:.0%}" for r in table.itertuples()) if len(table) < 6 else ""
        first = (
            f"{most}: the effect of {share:.0%} of them is larger than their own experimental error"
            f"{f' ({by})' if by and len(table) > 1 else ''}; the median effect has an L2 of "
            f"{table['effect'].median():.2f}, the median error is {table['error'].median():.2f}."
        )
    agreement = (data.extras or {}).get("agreement")
    if agreement is not None:
        first += f" {agreement['sentence']}"
    truth = _truth(data)
    if truth is not None and "inert" in truth.obs:
        inert = truth.obs["inert"].to_numpy(bool)
        size = np.linalg.norm(np.asarray(truth.X, float), axis=1)
        first += (
            f" In truth {inert.mean():.0%} of the drugs do nothing, and of the others half move the cell by "
            f"less than {np.median(size[~inert]):.2f}."
        )
    return first


def one_line(told, table: pd.DataFrame, data) -> str:
    """Condense the answer of the chapter to one sentence.

    Parameters
    ----------
    told : Headline
        Of `perturbcore.summary.headline`.
    table : pandas.DataFrame
        Of `beyond_noise`.
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
    if table.empty:
        return part + "."
    share = float(np.average(table["beyond"], weights=table["drugs"]))
    return f"{part}; {share:.0%} of the effects are larger than their own experimental error."


def _truth(data):
    return getattr((data.extras or {}).get("simulation"), "true_effects", None)


def twins_said(report: pd.DataFrame, responses) -> str:
    """Say in how far folds part drugs that are one molecule, or one but for salt or stereo-chemistry.

    Parameters
    ----------
    report : pandas.DataFrame
        Of `perturbcore.molecules.molecule_report`.
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
    from perturbcore.molecules.report import molecule_report

    targeted = table[table["targets"] != ""]
    known = set(molecule_report(targeted)["flat"]) - {""}
    n = int(report["flat"].isin(known).sum())
    few = n < ENOUGH * len(report)
    return (
        f"The data set names no targets. {n} of its {len(report)} drugs ({n / len(report):.0%}) have one in "
        f"{name}, matched by structure without salt and stereo-chemistry"
        + (": too few to ask here what targets are worth." if few else ".")
    )


def information(embeddings, data) -> pd.DataFrame:
    """How well the distances of an embedding follow the true effects of a simulated screen.

    Parameters
    ----------
    embeddings : list of Embedding
    data : Dataset
        With a simulation.

    Returns
    -------
    pandas.DataFrame
        embedding, modality, n (drugs that are not inert and have a vector), follows: Spearman's rank
        correlation, over pairs of drugs, of Euclidean distance in the standardised embedding with one
        minus the correlation of the true effects (mean over cell lines, the mean drug taken away).
        Empty without a truth.
    """
    truth = _truth(data)
    if truth is None:
        return pd.DataFrame(columns=["embedding", "modality", "n", "follows"])
    active = ~truth.obs["inert"].to_numpy(bool) if "inert" in truth.obs else np.ones(truth.n_obs, bool)
    X = pd.DataFrame(np.asarray(truth.X, float)[active])
    effect = X.groupby(truth.obs["perturbation"].astype(str).to_numpy()[active]).mean()
    effect -= effect.mean()
    rows = []
    for e in embeddings:
        known = effect.index.intersection(e.ids)
        if len(known) < FEWEST:
            continue
        V = e.X[e.ids.get_indexer(known)].astype(float)
        sd = V.std(axis=0)
        V = (V - V.mean(axis=0))[:, sd > 0] / sd[sd > 0]
        if not V.shape[1]:
            continue
        rho = spearmanr(pdist(V), pdist(effect.loc[known].to_numpy(), "correlation")).statistic
        rows.append({"embedding": e.name, "modality": e.modality, "n": len(known), "follows": float(rho)})
    return pd.DataFrame(rows).sort_values("follows", ascending=False, ignore_index=True)


def information_said(told: pd.DataFrame, scores: pd.DataFrame, predictor: str = "knn") -> str:
    """Say whether the ranking of embeddings is the order of what they know of the true effects.

    Parameters
    ----------
    told : pandas.DataFrame
        Of `information`.
    scores : pandas.DataFrame
        Scores of the same embeddings.
    """
    if told.empty:
        return (
            "On real cells nobody knows what an embedding should say; on simulated ones it is known "
            "(`make run CHAPTER=small_molecules PROFILE=demo`)."
        )
    from perturbcore.metrics import metric as find_metric

    metric = primary_metric(scores)
    rows = main_predictor(scores[scores["metric"] == metric], predictor)
    value = rows.groupby("embedding")["value"].mean()
    both = told[~told["modality"].str.endswith("control")].assign(value=told["embedding"].map(value)).dropna()
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
        f"{test.statistic:.2f} (p = {test.pvalue:.2g}): the ranking "
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
    from perturbcore.published.figures import figure_data

    rows = main_predictor(scores[scores["metric"] == "L2"], "knn")
    mean = rows.groupby(["embedding", "predictor", "modality"])["value"].mean().reset_index()
    floor = float(mean.loc[mean["predictor"] == FLOOR, "value"].iloc[0])
    own = mean[~mean["modality"].str.endswith("control")]
    own = own.loc[own["value"].idxmin()]
    figure = figure_data("S8", published)
    medians = figure.medians()
    real = figure.scores.drop_duplicates("display").set_index("display")["modality"]
    names = [d for d in medians if not real[d].endswith("control") and real[d] not in ("Fusion", "Advanced")]
    gain = 1 - medians[names].min(axis=1) / medians["Train Mean"]
    each = ", ".join(f"{line} {g:.1%}" for line, g in gain.items())
    return (
        f"On Sci-Plex the published best embedding lowers the L2 of the Train Mean by {each} (medians over "
        f"folds); here the best, {own['embedding']}, lowers it by {1 - own['value'] / floor:.1%}."
    )


def tahoe_read_off() -> tuple[str, pd.DataFrame]:
    """Figures S5 and S6, whose scores are not public: what can be read off the images, and a sentence."""
    from perturbcore.published.facts import facts

    table = facts("cole2026_tahoe_lfc_read_off")
    wide = table.set_index(["figure", "display_name"])["L2_median"]
    parts = []
    for figure, estimator in table[["figure", "estimator"]].drop_duplicates().itertuples(index=False):
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
