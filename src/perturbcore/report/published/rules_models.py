"""Rules on fine-tuning, generative models, and GEARS (Figures 4, S14)."""

import pandas as pd

from perturbcore.report.published.evidence import (
    FAILS,
    HOLDS,
    QUALIFIED,
    Evidence,
    Finding,
    by_line,
    listed,
    needs_tables,
    percent,
    verdict,
)
from perturbcore.report.published.rules import rule

KNN3M, MLP3M = "AIDO.Cell 3M Frozen + kNN", "AIDO.Cell 3M Frozen + MLP"
INDEXING, INSILICO = (
    "AIDO.Cell 3M Fine-Tuning (Indexing)",
    "AIDO.Cell 3M Fine-Tuning (In-Silico KO)",
)
GNN_KNN, GNN_TUNED = "STRING GNN Frozen + kNN", "STRING GNN Fine-Tuning"
SIMPLE, FULL = "Fusion (Simple)", "Fusion (Full)"
WAVEGC = "STRING WaveGC"


def pair(ev: Evidence, figure: str, a: str, b: str) -> Finding:
    """Whether method a is better than method b, on medians and in the folds."""
    versus = ev.versus(figure, a, b)
    most = versus.fold_wins is None or versus.fold_wins > versus.n_folds / 2
    on_medians = versus.median_wins == versus.lines
    return Finding(
        verdict(on_medians and versus.every_fold, on_medians and most),
        versus.folds or versus.medians,
        f"{a} against {b}: {versus.medians} on medians"
        + (f", {versus.folds}" if versus.folds else "")
        + f"; mean gain {versus.mean_gain:+.3f} {ev.fig(figure).spec.metric}.",
        medians=versus.medians,
        means=versus.means,
        folds=versus.folds,
    )


@rule("insilico_best")
def insilico_best(ev: Evidence) -> Finding:
    """In-silico KO fine-tuning against the frozen model with kNN and with an MLP."""
    knn, mlp = pair(ev, "4", INSILICO, KNN3M), pair(ev, "4", INSILICO, MLP3M)
    versus = [ev.versus("4", INSILICO, KNN3M), ev.versus("4", INSILICO, MLP3M)]
    order = [HOLDS, QUALIFIED, FAILS]
    size = ev.gap("4", [INSILICO, KNN3M]).iloc[0]
    return Finding(
        max(knn.verdict, mlp.verdict, key=order.index),
        f"closes {percent(size[INSILICO])} of the gap, kNN {percent(size[KNN3M])}",
        f"Against kNN on the frozen model: {versus[0].folds or versus[0].medians}, mean gain "
        f"{versus[0].mean_gain:.3f} L2; against the MLP: {versus[1].folds or versus[1].medians}, mean "
        f"gain {versus[1].mean_gain:.3f} L2.",
        medians=f"{versus[0].medians}; {versus[1].medians}",
        means="" if not versus[0].means else f"{versus[0].means}; {versus[1].means}",
        folds="" if not versus[0].folds else f"{versus[0].folds}; {versus[1].folds}",
    )


@rule("indexing_hurts")
def indexing_hurts(ev: Evidence) -> Finding:
    """Compare indexing fine-tuning with kNN on the frozen model."""
    return pair(ev, "4", KNN3M, INDEXING)


@rule("gnn_tuning_hurts")
def gnn_tuning_hurts(ev: Evidence) -> Finding:
    """Compare the fine-tuned STRING GNN with kNN on the frozen one."""
    return pair(ev, "4", GNN_KNN, GNN_TUNED)


@rule("mlp_between")
def mlp_between(ev: Evidence) -> Finding:
    """Compare the MLP on the frozen model with kNN below and in-silico KO above."""
    above, below = ev.versus("4", MLP3M, KNN3M), ev.versus("4", INSILICO, MLP3M)
    on_medians = above.median_wins == below.median_wins == 1
    means = "" if above.mean_wins is None else f"{above.means}; {below.means}"
    all_means = above.mean_wins is None or above.mean_wins == below.mean_wins == 1
    return Finding(
        verdict(on_medians and all_means and above.every_fold and below.every_fold, on_medians),
        f"{above.folds or above.medians}; {below.folds or below.medians}",
        f"The MLP against kNN: {above.medians} on medians"
        + (f", {above.folds}, mean gain {above.mean_gain:+.3f} L2" if above.folds else "")
        + f". In-silico KO against the MLP: {below.medians} on medians"
        + (f", {below.folds}, mean gain {below.mean_gain:+.3f} L2." if below.folds else "."),
        medians=f"{above.medians}; {below.medians}",
        means=means,
        folds="" if not above.folds else f"{above.folds}; {below.folds}",
    )


@rule("figure4_sorted")
def figure4_sorted(ev: Evidence) -> Finding:
    """Order of the methods of Figure 4 against their medians."""
    medians = ev.fig("4").medians().iloc[0]
    swaps = [
        (a, b)
        for a, b in zip(medians.index, medians.index[1:], strict=False)
        if medians[a] < medians[b]
    ]
    return Finding(
        verdict(not swaps),
        f"{len(swaps)} neighbours out of order",
        "From top to bottom the medians are "
        + ", ".join(f"{v:.3f}" for v in medians)
        + (
            f"; out of order: {listed(f'{a} above {b}' for a, b in swaps)}. The figure groups the "
            "methods "
            "by model instead."
            if swaps
            else ", in order."
        ),
        medians=f"{len(swaps)} of {len(medians) - 1} neighbours out of order",
    )


@rule("frozen_more_robust")
def frozen_more_robust(ev: Evidence) -> Finding:
    """Compare the best fine-tuned model with kNN on the best frozen embedding, K-562."""
    tuned = ev.fig("4").medians().iloc[0][[INDEXING, INSILICO, GNN_TUNED]]
    frozen = ev.fig("1").medians().loc["K-562", ev.embeddings("1")]
    improved = [INSILICO] if tuned[INSILICO] < ev.fig("4").medians().iloc[0][KNN3M] else []
    return Finding(
        verdict(tuned.min() > frozen.min() and not improved, tuned.min() > frozen.min()),
        f"{tuned.min():.3f} fine-tuned, {frozen.min():.3f} frozen",
        f"The best of three fine-tuned models on K-562, {tuned.idxmin()}, has median L2 "
        f"{tuned.min():.3f}; "
        f"{(frozen < tuned.min()).sum()} of {len(frozen)} frozen embeddings with kNN are lower, the "
        f"best {frozen.idxmin()} at {frozen.min():.3f}. One of the three attempts "
        f"({listed(improved)}) improved on its own frozen model.",
        medians=f"{tuned.min():.3f} against {frozen.min():.3f}",
    )


@rule("advanced_older_set")
def advanced_older_set(ev: Evidence) -> Finding:
    """Compare generative models and GEARS with kNN on WaveGC in Figure S14 (older set)."""
    names = ev.embeddings("S14", "Advanced")
    medians = ev.fig("S14").medians()
    ahead = medians[names].lt(medians[WAVEGC], axis=0)
    closest = medians[names].min(axis=1) - medians[WAVEGC]
    lines = []
    for name in names:
        versus = ev.versus("S14", name, WAVEGC)
        if versus.fold_wins:
            lines.append(f"{name} in {versus.fold_wins} of {versus.n_folds}")
    fold_text = f" Fold by fold some are ahead: {listed(lines)}." if lines else ""
    return Finding(
        verdict(not ahead.any().any() and not lines, not ahead.any().any()),
        f"{int(ahead.sum().sum())} of {ahead.size} medians below WaveGC + kNN",
        f"On the older perturbation set of Figure S14 the best of {len(names)} methods is above kNN on "
        f"WaveGC by {by_line(closest, '{:.3f}'.format)} L2 (medians)." + fold_text,
        medians=f"{int(ahead.sum().sum())} of {ahead.size} ahead",
        folds="; ".join(lines),
    )


def full_set_runs(ev: Evidence) -> pd.DataFrame:
    """L2 of the generative models and GEARS on the full set, next to kNN on WaveGC.

    Returns
    -------
    pandas.DataFrame
        (cell line, fold) x method.
    """
    scores = ev.published.scores
    rows = scores[
        (scores["dataset"] == "essential")
        & (scores["perturbation_set"] == "full")
        & (scores["metric"] == "L2")
    ]
    knn = (rows["predictor"] == "knn") & (rows["display"] == WAVEGC)
    rows = rows[(rows["modality"] == "Advanced") | knn]
    wide = rows.pivot_table(index=["cell_line", "fold"], columns="display", values="value")
    return wide


@rule("advanced_full_set")
def advanced_full_set(ev: Evidence) -> Finding:
    """Compare the same models on the full set, in rows of the tables that no figure shows."""
    wide = full_set_runs(ev)
    other = wide.drop(columns=WAVEGC)
    difference = other.sub(wide[WAVEGC], axis=0)
    medians = wide.groupby("cell_line").median()
    gain = medians.drop(columns=WAVEGC).sub(medians[WAVEGC], axis=0)
    wins = (gain < 0).sum()
    best = wins.idxmax()
    unit = "folds" if ev.level == "folds" else "medians"
    counts = {
        d: f"{int((difference[d] < 0).sum())} of {int(difference[d].notna().sum())}"
        for d in difference
    }
    means = folds = ""
    if ev.level == "folds":
        mean = wide.groupby("cell_line").mean()
        means = f"{best} lower on {int((mean[best] < mean[WAVEGC]).sum())} of {len(mean)} lines"
        folds = f"{best} lower in {counts[best]} folds"
    return Finding(
        verdict(not (wins > 0).any(), wins.max() <= 1),
        f"{best} lower than WaveGC + kNN in {counts[best]} {unit}",
        "On the full perturbation set, lower than kNN on WaveGC: "
        + ", ".join(f"{d} in {n} {unit}" for d, n in counts.items())
        + f". The mean difference of {best} is {difference[best].mean():+.3f} L2, "
        f"{percent(abs(difference[best].mean()) / wide[WAVEGC].mean(), 1)} of the error: small, at a "
        "far "
        "greater cost. What distinguishes these runs from those of Figure S14 is not published.",
        medians=f"{best} lower on {int(wins[best])} of {int(gain[best].notna().sum())} lines",
        means=means,
        folds=folds,
    )


@rule("drawn_runs")
def drawn_runs(ev: Evidence) -> Finding:
    """Count the points of Figure S14 that come from another run than the legend says."""
    if ev.level == "medians":
        return needs_tables()
    rows = ev.published.scores
    rows = rows[(rows["perturbation_set"] == "older") & (rows["metric"] == "L2")]
    rows = rows.set_index(["method", "cell_line", "fold"])["value"]
    parts, other, total = [], 0, 0
    for display, run in (("Latent Diffusion", "Diffusion"), ("Schrödinger Bridge", "Schrodinger")):
        drawn = ev.fig("S14").folds()[f"{display} (PCA 50)"].dropna()
        lines = (drawn != rows[f"{run}_R2"].reindex(drawn.index)).groupby("cell_line").sum()
        parts.append(
            f"{display} {int(lines.sum())} of {len(drawn)} ({by_line(lines, '{:.0f}'.format)})"
        )
        other, total = other + int(lines.sum()), total + len(drawn)
    n_k562 = len(ev.fig("S14").folds()["Latent Diffusion (PCA 50)"].loc["K-562"].dropna())
    return Finding(
        verdict(other == 0, other < total / 2),
        f"{other} of {total} points from run V1",
        "Points that are not of run R2: "
        + "; ".join(parts)
        + f". By the names of the flow runs V1 has PCA 128. Latent Diffusion has {n_k562} of 5 folds "
        "on K-562.",
        folds=f"{other} of {total}",
    )
