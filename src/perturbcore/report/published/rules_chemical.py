"""Rules on small molecules: Tahoe and Sciplex, LFC and DEG (Figures S5-S10)."""

import pandas as pd

from perturbcore.data.published.facts import facts
from perturbcore.report.published.evidence import (
    UNDECIDED,
    Evidence,
    Finding,
    by_line,
    listed,
    percent,
    verdict,
)
from perturbcore.report.published.rules import rule

CONTROLS = ["Train Mean", "No Change", "Random Embeddings"]


def gap_over_controls(ev: Evidence, figure: str) -> pd.DataFrame:
    """Share of the way from the best negative control to the experimental error."""
    medians = ev.better(figure, ev.fig(figure).medians())
    floor = medians[CONTROLS].max(axis=1)
    names = ev.embeddings(figure)
    return medians[names].sub(floor, axis=0).div(medians["Experimental Error"] - floor, axis=0)


@rule("some_improve_chemical")
def some_improve_chemical(ev: Evidence) -> Finding:
    """Drug embeddings above all negative controls, task by task."""
    sure = {}
    for name, figure in (("Tahoe DEG", "S7"), ("Sciplex DEG", "S10"), ("Sciplex LFC", "S8")):
        sure[name] = [d for d in ev.embeddings(figure) if ev.beats_all(figure, d, CONTROLS)]
    deg = sure["Tahoe DEG"] and sure["Sciplex DEG"]
    return Finding(
        verdict(bool(deg and sure["Sciplex LFC"]), bool(sure["Tahoe DEG"] or sure["Sciplex DEG"])),
        ", ".join(f"{k} {len(v)}" for k, v in sure.items()),
        "Embeddings better than all three negative controls in every fold: "
        + ", ".join(
            f"{k} {len(v)} of {len(ev.embeddings(f))}"
            for (k, v), f in zip(sure.items(), ("S7", "S10", "S8"), strict=True)
        )
        + ". The Tahoe LFC scores are not public, and the paper reports no gain there.",
    )


@rule("tahoe_lfc")
def tahoe_lfc(ev: Evidence) -> Finding:
    """Tahoe LFC: only what can be read off the figure."""
    table = facts("cole2026_tahoe_lfc_read_off").set_index(["figure", "display_name"])["L2_median"]
    knn = table["S5"]
    best = knn.drop(
        ["Train Mean", "No Change", "Random Embeddings", "Idealized Baseline", "Experimental Error"]
    )
    gap = (knn["Train Mean"] - best.iloc[0]) / (knn["Train Mean"] - knn["Experimental Error"])
    return Finding(
        UNDECIDED,
        f"about {percent(gap, 1)} of the gap, read off",
        "The Tahoe LFC score table (results/scores/tahoe_lfc.csv) is not in the public repository. "
        "Read off "
        f"Figure S5 by eye, the best embedding closes about {percent(gap, 1)} of the gap, in line with "
        "the "
        "claim.",
    )


@rule("tahoe_deg_some")
def tahoe_deg_some(ev: Evidence) -> Finding:
    """Tahoe DEG: embeddings that clearly beat the controls."""
    names = ev.embeddings("S7")
    sure = [d for d in names if ev.beats_all("S7", d, CONTROLS)]
    gap = gap_over_controls(ev, "S7").iloc[0]
    return Finding(
        verdict(bool(sure) and gap.max() > 0.1, bool(sure)),
        f"{len(sure)} of {len(names)} in every fold",
        f"{len(sure)} of {len(names)} embeddings are above all negative controls in all five folds "
        "(means "
        f"of 45 lines); the best, {gap.idxmax()}, closes {percent(gap.max())} of the way from the best "
        "negative control to the experimental error.",
        medians=f"{int((gap > 0).sum())} of {len(names)} above",
        folds="" if ev.level == "medians" else f"{len(sure)} of {len(names)} in all 5",
    )


@rule("targets_best")
def targets_best(ev: Evidence) -> Finding:
    """Category of drug embeddings with the best median macro F1."""
    medians = ev.fig("S7").medians().iloc[0][ev.embeddings("S7")]
    category = pd.Series(ev.modality("S7"))[medians.index]
    by = medians.groupby(category).median().sort_values(ascending=False)
    low = medians[category == "Gene target"].idxmin()
    means = also = ""
    if ev.level == "folds":
        mean = ev.fig("S7").means().iloc[0][medians.index]
        means = mean.groupby(category).median().idxmax()
        also = f" On means the first category is {means} ({(category == means).sum()} embeddings)."
    return Finding(
        verdict(
            by.index[0] == "Gene target" and medians.idxmin() != low, by.index[0] == "Gene target"
        ),
        ", ".join(f"{k} {v:.3f}" for k, v in by.items()),
        f"Median macro F1 of the categories: {', '.join(f'{k} {v:.3f}' for k, v in by.items())}; the "
        "best "
        f"embedding is {medians.idxmax()} ({category[medians.idxmax()]}). Within the target category "
        f"{low} is at {medians[low]:.3f}, rank {int(medians.rank(ascending=False)[low])} of "
        f"{len(medians)}." + also,
        medians=by.index[0],
        means=means,
    )


@rule("named_targets_good")
def named_targets_good(ev: Evidence) -> Finding:
    """Rank simple target encodings, AIDO.Cell 100M and scPRINT."""
    medians = ev.fig("S7").medians().iloc[0][ev.embeddings("S7")]
    ranks = medians.rank(ascending=False)
    named = [d for d in medians.index if d.startswith("Targets ")]
    named += ["AIDO.Cell 100M - Norman", "scPRINT - Norman"]
    worst = int(ranks[named].max())
    top = int((ranks[named] <= len(medians) / 3).sum())
    return Finding(
        verdict(top == len(named), top >= len(named) - 2),
        f"ranks {int(ranks[named].min())} to {worst} of {len(medians)}",
        f"The {len(named)} named embeddings have ranks "
        + ", ".join(f"{d} {int(ranks[d])}" for d in ranks[named].sort_values().index)
        + f" of {len(medians)}.",
        medians=f"{top} of {len(named)} in the top third",
    )


@rule("ecfp_best_structure")
def ecfp_best_structure(ev: Evidence) -> Finding:
    """ECFP:2 the best structural fingerprint, close to the best."""
    medians = ev.fig("S7").medians().iloc[0]
    structure = medians[ev.embeddings("S7", "Molecule structure")].sort_values(ascending=False)
    best = medians[ev.embeddings("S7")]
    floor = medians[CONTROLS].max()
    share = (structure.iloc[0] - floor) / (best.max() - floor)
    versus = ev.versus("S7", "ECFP:2", structure.index[1])
    first = structure.index[0] == "ECFP:2"
    return Finding(
        verdict(first and share > 0.8 and versus.every_fold, first and share > 0.8),
        f"{structure.index[0]} {structure.iloc[0]:.3f}, best {best.max():.3f}",
        f"The best structural embedding is {structure.index[0]} at {structure.iloc[0]:.3f}, "
        f"{percent(share)} of "
        f"the gain of the best embedding ({best.idxmax()}, {best.max():.3f}) over the best negative "
        "control. "
        f"Against the next, {structure.index[1]}, ECFP:2 is {versus.folds or versus.medians}.",
        medians=f"{structure.index[0]} first",
        folds=versus.folds,
    )


@rule("smiles_underperform")
def smiles_underperform(ev: Evidence) -> Finding:
    """SMILES models below the middle of the field, MiniMol excepted."""
    medians = ev.fig("S7").medians().iloc[0][ev.embeddings("S7")]
    ranks = medians.rank(ascending=False)
    smiles = ev.embeddings("S7", "SMILES transformer")
    middle = (len(medians) + 1) / 2
    low = [d for d in smiles if ranks[d] > middle]
    expected = set(smiles) - {"MiniMol"}
    return Finding(
        verdict(set(low) == expected),
        ", ".join(f"{d} {int(ranks[d])}" for d in smiles) + f" of {len(medians)}",
        f"In the lower half of {len(medians)} embeddings: {listed(low)}; MiniMol has rank "
        f"{int(ranks['MiniMol'])}. Uni-Mol2, which the text counts here and the figure with structure, "
        "has "
        f"rank {int(ranks['Uni-Mol2 (570M-H)'])}.",
        medians=f"{len(low)} of {len(smiles)} in the lower half",
    )


@rule("sciplex_lfc_minimal")
def sciplex_lfc_minimal(ev: Evidence) -> Finding:
    """Sciplex LFC: how far embeddings are below Train Mean."""
    names = ev.embeddings("S8")
    medians = ev.fig("S8").medians()
    gain = 1 - medians[names].min(axis=1) / medians["Train Mean"]
    best = medians[names].idxmin(axis=1)
    sure = [d for d in names if ev.versus("S8", d, "Train Mean").every_fold]
    above = [
        line
        for line in medians.index
        if medians.loc[line, "Experimental Error"] > medians.loc[line, "No Change"]
    ]
    return Finding(
        verdict(bool((gain < 0.02).all()), bool((gain < 0.1).all())),
        f"best embedding lowers L2 by {percent(gain.min(), 1)} to {percent(gain.max(), 1)}",
        f"The best embedding of each line ({by_line(best, str)}) lowers the L2 of Train Mean by "
        f"{by_line(gain, lambda v: percent(v, 1))}; better than Train Mean "
        f"{'in every fold' if ev.level == 'folds' else 'on every line'}: {listed(sure)}. No share of a "
        f"gap can be given for {listed(above)}, where the published experimental error lies above No "
        "Change "
        "(it was computed on differently normalised data).",
        medians=by_line(gain, lambda v: percent(v, 1)),
        folds="" if ev.level == "medians" else f"{len(sure)} of {len(names)} in all 15",
    )


@rule("sciplex_deg_slight")
def sciplex_deg_slight(ev: Evidence) -> Finding:
    """Sciplex DEG: how far above the negative controls."""
    gap = gap_over_controls(ev, "S10")
    best = gap.max(axis=1)
    names = ev.embeddings("S10")
    sure = [d for d in names if ev.beats_all("S10", d, CONTROLS)]
    most = ""
    wide = ev.fig("S10").folds()
    if wide is not None:
        ahead = wide[names].gt(wide[CONTROLS].max(axis=1), axis=0).sum()
        most = f", {int((ahead >= 12).sum())} of them in 12 or more of {len(wide)}"
    return Finding(
        verdict(bool((best < 0.25).all()) and bool((best > 0).all()), bool((best > 0).all())),
        f"best embedding closes {by_line(best)}",
        "From the best negative control to the experimental error the best embedding closes "
        f"{by_line(best)}; "
        f"{len(sure)} of {len(names)} embeddings are above all negative controls "
        f"{'in every fold' if ev.level == 'folds' else 'on every line'}" + most + ".",
        medians=by_line(best),
        folds="" if ev.level == "medians" else f"{len(sure)} of {len(names)} in all 15",
    )


@rule("chemical_fusion")
def chemical_fusion(ev: Evidence) -> Finding:
    """Fusion against random embeddings in Tahoe and Sciplex DEG."""
    tahoe = ev.versus("S7", "Simple Fusion", "Random Embeddings")
    sciplex = ev.versus("S10", "Simple Fusion", "Random Embeddings")
    ahead = tahoe.median_wins + sciplex.median_wins
    return Finding(
        verdict(ahead == 0, ahead <= 1),
        f"Tahoe {tahoe.medians}; Sciplex {sciplex.medians}",
        f"Simple Fusion against random embeddings in macro F1: Tahoe {tahoe.medians}"
        + (f", {tahoe.folds}" if tahoe.folds else "")
        + f" (mean difference {tahoe.mean_gain:+.3f}); Sciplex {sciplex.medians}"
        + (f", {sciplex.folds}" if sciplex.folds else "")
        + f" ({sciplex.mean_gain:+.3f}).",
        medians=f"{tahoe.medians}; {sciplex.medians}",
        means=f"{tahoe.means}; {sciplex.means}" if tahoe.means else "",
        folds=f"{tahoe.folds}; {sciplex.folds}" if tahoe.folds else "",
    )
