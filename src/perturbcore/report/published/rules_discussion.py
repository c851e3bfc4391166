"""Rules on the discussion: genetic against chemical perturbations."""

import pandas as pd

from perturbcore.report.published.evidence import (
    Evidence,
    Finding,
    by_line,
    percent,
    verdict,
)
from perturbcore.report.published.rules import rule
from perturbcore.report.published.rules_chemical import gap_over_controls


@rule("genetic_easier")
def genetic_easier(ev: Evidence) -> Finding:
    """Gap closed by the best single embedding, genetic against chemical, in DEG."""
    tahoe, sciplex = (
        gap_over_controls(ev, "S7").max(axis=1),
        gap_over_controls(ev, "S10").max(axis=1),
    )
    deg = gap_over_controls(ev, "S4").max(axis=1)
    lower = {}
    for figure in ("1", "S8", "S1"):
        medians = ev.fig(figure).medians()
        lower[figure] = float(
            (1 - medians[ev.embeddings(figure)].min(axis=1) / medians["Train Mean"]).mean()
        )
    easier = [deg.mean() > tahoe.mean(), deg.mean() > sciplex.mean(), lower["1"] > lower["S8"]]
    return Finding(
        verdict(all(easier), sum(easier) >= 2),
        f"DEG: Essential {percent(deg.mean())}, Tahoe {percent(tahoe.mean())}, Sciplex "
        f"{percent(sciplex.mean())}",
        "In DEG the best single embedding closes, from the best negative control to the experimental "
        "error, "
        f"{by_line(deg)} on Essential, {percent(tahoe.mean())} on Tahoe and {by_line(sciplex)} on "
        "Sciplex. In LFC "
        f"it lowers the error of Train Mean by {percent(lower['1'], 1)} on Essential, "
        f"{percent(lower['S8'], 1)} "
        f"on Sciplex and {percent(lower['S1'], 1)} on Norman (a genetic screen with 105 "
        "perturbations); the Tahoe "
        "LFC table is not public. Screens differ in size and depth as well as in kind.",
        medians=f"Essential {percent(deg.mean())}, Tahoe {percent(tahoe.mean())}, Sciplex "
        f"{percent(sciplex.mean())}",
    )


@rule("genetic_easier_with_target")
def genetic_easier_with_target(ev: Evidence) -> Finding:
    """Gap closed by target embeddings on Tahoe against gene embeddings on Essential."""
    over = gap_over_controls(ev, "S4").max(axis=1)
    targets = gap_over_controls(ev, "S7")[ev.embeddings("S7", "Gene target")].max(axis=1)
    return Finding(
        verdict(bool(over.min() > targets.max()), bool(over.mean() > targets.max())),
        f"Essential {percent(over.mean())}, Tahoe targets {percent(targets.max())}",
        f"In DEG the best target embedding on Tahoe closes {percent(targets.max())} from the best "
        "negative "
        f"control to the experimental error, the best gene embedding on Essential {by_line(over)}. The "
        "targets are predicted by a language model, so this speaks of assumed targets.",
        medians=f"{percent(over.mean())} against {percent(targets.max())}",
    )


@rule("molecules_poor")
def molecules_poor(ev: Evidence) -> Finding:
    """Off-the-shelf molecule embeddings: share of the gap they close."""
    kinds = ("SMILES transformer", "Molecule structure", "Protein affinity")
    tahoe = gap_over_controls(ev, "S7")[ev.embeddings("S7", *kinds)].max(axis=1)
    sciplex = gap_over_controls(ev, "S10")[ev.embeddings("S10", *kinds)].max(axis=1)
    both = pd.concat([tahoe, sciplex])
    return Finding(
        verdict(bool((both < 0.25).all()), bool((both < 0.5).any())),
        f"close at best {percent(both.min())} to {percent(both.max())} in DEG",
        f"The best molecule embedding closes {percent(tahoe.iloc[0])} on Tahoe and {by_line(sciplex)} "
        "on "
        "Sciplex of "
        "the way from the best negative control to the experimental error in DEG; Tahoe LFC is not "
        "public.",
        medians=f"Tahoe {percent(tahoe.iloc[0])}, {by_line(sciplex)}",
    )
