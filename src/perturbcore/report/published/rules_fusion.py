"""Rules on fusion of embeddings (Figure 5, S4)."""

from perturbcore.report.published.evidence import (
    Evidence,
    Finding,
    by_line,
    percent,
    verdict,
)
from perturbcore.report.published.rules import rule
from perturbcore.report.published.rules_models import FULL, SIMPLE, WAVEGC, pair


@rule("fusion_improves")
def fusion_improves(ev: Evidence) -> Finding:
    """Compare both fusions with the best single embedding of each line."""
    names = ev.embeddings("1")
    best = ev.fig("1").medians()[names].min(axis=1)
    best_name = ev.fig("1").medians()[names].idxmin(axis=1)
    fusion = ev.fig("5").medians()
    won = {d: int((fusion[d] < best).sum()) for d in (SIMPLE, FULL)}
    against = {d: ev.versus("5", d, WAVEGC) for d in (SIMPLE, FULL)}
    folds = "; ".join(f"{d} {v.folds}" for d, v in against.items() if v.folds)
    every = all(v.every_fold for v in against.values())
    all_lines = all(v == len(best) for v in won.values())
    return Finding(
        verdict(all_lines and every, won[FULL] == len(best)),
        f"Full {won[FULL]} of 4 lines, Simple {won[SIMPLE]} of 4",
        f"Against the best single embedding of each line ({by_line(best_name, str)}), median L2 is "
        "lower on "
        f"{won[SIMPLE]} of 4 lines for Simple and {won[FULL]} of 4 for Full fusion. Against WaveGC: "
        f"{folds or 'see medians'}.",
        medians=f"Simple {won[SIMPLE]} of 4, Full {won[FULL]} of 4",
        means="; ".join(f"{d} {v.means}" for d, v in against.items() if v.means),
        folds=folds,
    )


@rule("full_beats_simple")
def full_beats_simple(ev: Evidence) -> Finding:
    """Compare full fusion with simple fusion."""
    return pair(ev, "5", FULL, SIMPLE)


@rule("fusion_at_ceiling")
def fusion_at_ceiling(ev: Evidence) -> Finding:
    """Full fusion against the experimental error on Jurkat and K-562."""
    gap = ev.gap("5", [FULL])[FULL]
    alone = ev.gap("5", [WAVEGC])[WAVEGC]
    named = gap[["Jurkat", "K-562"]]
    folds = ""
    below = None
    wide = ev.fig("5").folds()
    if wide is not None:
        below = (wide[FULL] <= wide["Experimental Error"]).groupby("cell_line").sum()
        folds = by_line(below[["Jurkat", "K-562"]], "{:.0f} of 5 folds".format)
    return Finding(
        verdict(
            bool((named >= 1).all()) and (below is None or bool((below[named.index] == 5).all())),
            bool((named >= 0.98).all()),
        ),
        by_line(named),
        f"Full fusion closes {by_line(gap)} of the gap on medians"
        + (f" and is at or below the experimental error in {folds}" if folds else "")
        + f". WaveGC with kNN alone closes {percent(alone['Jurkat'])} on Jurkat, so there the line is "
        "passed "
        "without fusion.",
        medians=by_line(named),
        means=ev.means_gap("5", [FULL]),
        folds=folds,
    )


@rule("fusion_86_53")
def fusion_86_53(ev: Evidence) -> Finding:
    """Gap closed by full fusion on Hep-G2 and hTERT-RPE1."""
    gap = ev.gap("5", [FULL])[FULL][["Hep-G2", "hTERT-RPE1"]]
    agree = abs(gap["Hep-G2"] - 0.86) < 0.005 and abs(gap["hTERT-RPE1"] - 0.53) < 0.005
    medians = ev.fig("1").medians().loc[gap.index]
    floor = medians["Random Embeddings"]
    full = ev.fig("5").medians().loc[gap.index, FULL]
    from_random = (floor - full) / (floor - medians["Experimental Error"])
    return Finding(
        verdict(False, agree) if (from_random - gap).abs().max() > 0.005 else verdict(agree),
        by_line(gap),
        f"From Train Mean, full fusion closes {by_line(gap)} of the gap on medians; the text says from "
        f"random, and from random embeddings it is {by_line(from_random)}.",
        medians=by_line(gap),
        means=ev.means_gap("5", [FULL]),
    )


@rule("near_ceiling")
def near_ceiling(ev: Evidence) -> Finding:
    """Full fusion close to the limit on all lines."""
    gap = ev.gap("5", [FULL])[FULL]
    idealized = ev.gap("5", ["Idealized Baseline"])["Idealized Baseline"]
    near = gap >= 0.8
    return Finding(
        verdict(bool(near.all()), int(near.sum()) >= 3),
        f"{int(near.sum())} of {len(gap)} lines at 80% or more",
        f"Full fusion closes {by_line(gap)} of the gap. The limit itself is not firm: the Idealized "
        "Baseline, "
        f"which sees the test responses, reaches {by_line(idealized)}.",
        medians=by_line(gap),
        means=ev.means_gap("5", [FULL]),
    )


@rule("fusion_best_genetic")
def fusion_best_genetic(ev: Evidence) -> Finding:
    """Fusion first in the LFC and the DEG task of Essential."""
    lfc = ev.fig("5").medians()[FULL] < ev.fig("1").medians()[ev.embeddings("1")].min(axis=1)
    deg = ev.fig("S4").medians()
    first = deg["Simple Fusion"] > deg[ev.embeddings("S4")].max(axis=1)
    return Finding(
        verdict(bool(lfc.all() and first.all()), bool(lfc.all() or first.all())),
        f"LFC {int(lfc.sum())} of 4 lines, DEG {int(first.sum())} of 4",
        f"Fusion (Full) has a lower median L2 than every single embedding on {int(lfc.sum())} of 4 "
        "lines; "
        f"in DEG Simple Fusion has the highest median macro F1 on {int(first.sum())} of 4 lines. No "
        "fusion "
        "was run on Norman.",
        medians=f"LFC {int(lfc.sum())} of 4, DEG {int(first.sum())} of 4",
    )


@rule("deg_fusion_no_gain")
def deg_fusion_no_gain(ev: Evidence) -> Finding:
    """Fusion against the best single embedding in Essential DEG."""
    medians = ev.fig("S4").medians()
    best = medians[ev.embeddings("S4")].max(axis=1)
    gain = medians["Simple Fusion"] - best
    ahead = int((gain > 0).sum())
    return Finding(
        verdict(ahead < len(gain)),
        f"ahead on {ahead} of {len(gain)} lines",
        "Macro F1 of Simple Fusion minus that of the best single embedding: "
        f"{by_line(gain, '{:+.3f}'.format)}.",
        medians=by_line(gain, "{:+.3f}".format),
    )


@rule("models_near_limit")
def models_near_limit(ev: Evidence) -> Finding:
    """Abstract: with enough data, models come close to the limit."""
    found = near_ceiling(ev)
    norman = ev.gap("S1", ev.embeddings("S1")).iloc[0].max()
    return Finding(
        found.verdict,
        found.number,
        found.why
        + f" On Norman, with 105 perturbations, the best embedding closes {percent(norman)}.",
        found.medians,
        found.means,
    )
