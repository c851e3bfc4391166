"""Rules on the ranking of single embeddings on Essential and Norman (Figures 1, S1, S4)."""

import pandas as pd

from perturbcore.report.published.evidence import (
    Evidence,
    Finding,
    by_line,
    listed,
    mean_off_diagonal,
    needs_tables,
    percent,
    verdict,
)
from perturbcore.report.published.rules import rule

NETWORKS = ["STRING WaveGC", "STRING GNN", "STRING Network", "STRING Spectral"]
ANNOTATION = ["GenotypeVAE"]
FM_MODALITIES = ("Expression", "DNA", "Protein")
SIMPLE = ["Train Mean", "No Change", "Random Embeddings"]


def texts(ev: Evidence) -> list[str]:
    """Embeddings of gene descriptions (GenePT)."""
    return [d for d in ev.embeddings("1") if d.startswith("GenePT")]


def median_ranks(ev: Evidence, figure: str = "2") -> pd.Series:
    """Median rank over the folds of all lines, positive controls left out, best first."""
    ranks = ev.fig(figure).scores.groupby("display")["value"].median().sort_values()
    return ranks.drop(["Idealized Baseline", "Experimental Error"])


@rule("n_models")
def n_models(ev: Evidence) -> Finding:
    """Count of distinct models with published scores."""
    if ev.level == "medians":
        return needs_tables()
    scores = ev.published.scores
    scores = scores[scores["predictor"] != "experimental_error"]
    keys = ["dataset", "task", "perturbation_set"]
    names = len(scores.drop_duplicates([*keys, "method"]))
    once = len(scores.drop_duplicates([*keys, "predictor", "embedding", "display"]))
    fits = len(scores.drop_duplicates([*keys, "method", "cell_line"]))
    tahoe = 2 * 27
    full = names > 600
    return Finding(
        verdict(full, fits > 600),
        f"{names} names, {fits} with cell lines counted",
        f"The public tables name {names} models over all data sets and tasks ({once} if the "
        "versions of one embedding for different cell lines count once; "
        f"{fits} if every cell line counts). The Tahoe LFC table, not public, would add about "
        f"{tahoe}, which "
        + ("is not needed for" if full else "would reach" if names + tahoe > 600 else "misses")
        + " the 600 of the paper; how the paper counted is not said.",
    )


@rule("some_fail")
def some_fail(ev: Evidence) -> Finding:
    """Foundation models that are not better than Train Mean."""
    names = ev.embeddings("1", *FM_MODALITIES)
    medians = ev.fig("1").medians()
    worse = medians[names].ge(medians["Train Mean"], axis=0)
    everywhere = [d for d in names if worse[d].all()]
    somewhere = [d for d in names if worse[d].any()]
    return Finding(
        verdict(bool(everywhere), bool(somewhere)),
        f"{len(everywhere)} of {len(names)} on every line",
        f"Of {len(names)} DNA, protein and expression embeddings, {len(somewhere)} are no better "
        f"than Train Mean on at least one Essential line and {len(everywhere)} on all four "
        f"({listed(everywhere)}).",
        medians=f"{len(everywhere)} on all lines, {len(somewhere)} on some",
    )


@rule("some_improve_genetic")
def some_improve_genetic(ev: Evidence) -> Finding:
    """Embeddings better than every simple baseline in every fold."""
    names = ev.embeddings("1")
    baselines = [*SIMPLE, "PCA"]
    sure = [d for d in names if ev.beats_all("1", d, baselines)]
    best = median_ranks(ev).index[0]
    versus = ev.versus("1", best, "Train Mean")
    norman = ev.fig("S1")
    wide = norman.folds()
    on_norman = 0
    if wide is not None:
        gain = wide.rsub(wide["Train Mean"], axis=0)[ev.embeddings("S1")]
        on_norman = int((gain > 0).all().sum())
    return Finding(
        verdict(bool(sure)),
        f"{len(sure)} of {len(names)} embeddings",
        f"{len(sure)} of {len(names)} embeddings have a lower L2 than Train Mean, No Change, random "
        f"embeddings and PCA in every fold of every Essential line; the best by rank, {best}, is "
        f"{versus.folds or versus.medians} against Train Mean. On Norman {on_norman} embeddings are "
        "better than Train Mean in all five folds.",
        medians=versus.medians,
        means=versus.means,
        folds=versus.folds,
    )


@rule("interactome_across_tasks")
def interactome_across_tasks(ev: Evidence) -> Finding:
    """Network embeddings against simple baselines in LFC and DEG, four lines."""
    parts = {}
    for task, figure in (("LFC", "1"), ("DEG", "S4")):
        base = ["Train Mean", "Random Embeddings"]
        parts[task] = [d for d in NETWORKS if ev.beats_all(figure, d, base)]
    norman = ev.versus("S1", "STRING WaveGC", "Train Mean")
    some = all(parts.values())
    full = some and all(len(p) == len(NETWORKS) for p in parts.values())
    return Finding(
        verdict(full, some),
        f"LFC {len(parts['LFC'])} of 4, DEG {len(parts['DEG'])} of 4 network embeddings",
        "Better than Train Mean and random embeddings throughout Essential: in LFC "
        f"{listed(parts['LFC'])}; in DEG {listed(parts['DEG'])}. On Norman STRING WaveGC is "
        f"{norman.folds or norman.medians} against Train Mean.",
    )


@rule("norman_no_benefit")
def norman_no_benefit(ev: Evidence) -> Finding:
    """Norman: no embedding is clearly better than Train Mean."""
    names = ev.embeddings("S1")
    gap = ev.gap("S1", names).iloc[0].sort_values(ascending=False)
    best = gap.index[0]
    versus = ev.versus("S1", best, "Train Mean")
    n_better = int((gap > 0).sum())
    always = [d for d in names if ev.versus("S1", d, "Train Mean").every_fold]
    if ev.level == "medians":
        always = []
    mean_gap = (
        "" if ev.level == "medians" else percent(ev.gap("S1", names, "means").iloc[0].max(), 1)
    )
    return Finding(
        verdict(gap.iloc[0] < 0.1 and not always, gap.iloc[0] < 0.1),
        f"best closes {percent(gap.iloc[0], 1)} of the gap",
        f"{n_better} of {len(names)} embeddings have a lower median L2 than Train Mean on Norman; the "
        f"best, {best}, closes {percent(gap.iloc[0], 1)} of the gap to the experimental error"
        + (f" and is {versus.folds}" if versus.folds else "")
        + ".",
        medians=percent(gap.iloc[0], 1),
        means=mean_gap,
        folds=versus.folds,
    )


@rule("reproducible_across_lines")
def reproducible_across_lines(ev: Evidence) -> Finding:
    """Agreement of the rankings of the four Essential lines."""
    names = ev.embeddings("1")
    mean, low = mean_off_diagonal(ev.fig("1").medians()[names].T.corr("spearman"))
    means = ""
    if ev.level == "folds":
        means = f"{mean_off_diagonal(ev.fig('1').means()[names].T.corr('spearman'))[0]:.2f}"
    return Finding(
        verdict(low >= 0.7, mean >= 0.7),
        f"mean Spearman {mean:.2f}",
        f"The {len(names)} embeddings are ranked alike by the four Essential lines: Spearman "
        f"correlation of median L2 between lines is {mean:.2f} on average and {low:.2f} at least.",
        medians=f"{mean:.2f}",
        means=means,
    )


@rule("spread")
def spread(ev: Evidence) -> Finding:
    """Count embeddings no better than Train Mean, and far better."""
    names = ev.embeddings("1")
    gap = ev.gap("1", names)
    none = (gap <= 0).sum(axis=1)
    half = (gap >= 0.5).sum(axis=1)
    best = gap.max(axis=1)
    return Finding(
        verdict(bool((none > 0).all() and (half > 0).all()), bool((best > 0.3).all())),
        f"best embedding closes {percent(best.min())} to {percent(best.max())}",
        f"Embeddings that close none of the gap from Train Mean to the experimental error: "
        f"{by_line(none, '{:.0f}'.format)}; the best closes {by_line(best)}.",
        medians=by_line(best),
        means="" if ev.level == "medians" else by_line(ev.gap("1", names, "means").max(axis=1)),
    )


@rule("modality_drives")
def modality_drives(ev: Evidence) -> Finding:
    """Share of the variance between embeddings that lies between modalities."""
    names = ev.embeddings("1")
    modality = pd.Series(ev.modality("1"))[names]

    def between(table: pd.DataFrame) -> pd.Series:
        values = table[names].T
        centred = values - values.mean()
        fitted = centred.groupby(modality).transform("mean")
        return (fitted**2).sum() / (centred**2).sum()

    share = between(ev.fig("1").medians())
    means = "" if ev.level == "medians" else by_line(between(ev.fig("1").means()))
    chance = (modality.nunique() - 1) / (len(names) - 1)
    return Finding(
        verdict(bool((share > 0.5).all()), bool(share.mean() > 0.5)),
        f"{percent(share.min())} to {percent(share.max())} of the variance",
        "Of the variance of median L2 between embeddings, the modality accounts for "
        f"{by_line(share)}; grouping {len(names)} embeddings at random would give {percent(chance)} on "
        "average.",
        medians=by_line(share),
        means=means,
    )
