"""Rules on what the methods section states: controls, limits, counts, dimensions, metrics."""

from perturbcore.data.published.facts import facts
from perturbcore.report.published.evidence import (
    HOLDS,
    QUALIFIED,
    Evidence,
    Finding,
    by_line,
    listed,
    needs_tables,
    verdict,
)
from perturbcore.report.published.rules import rule


@rule("error_is_lower_bound")
def error_is_lower_bound(ev: Evidence) -> Finding:
    """Methods with an error below the experimental-error line."""
    medians = (
        ev.fig("1").medians().join(ev.fig("5").medians()[["Fusion (Simple)", "Fusion (Full)"]])
    )
    line = medians["Experimental Error"]
    names = [d for d in medians if d not in ("Experimental Error",)]
    below = [d for d in names if (medians[d] < line).any()]
    honest = [d for d in below if d != "Idealized Baseline"]
    folds = ""
    wide = ev.fig("1").folds()
    if wide is not None:
        n = int((wide["Idealized Baseline"] < wide["Experimental Error"]).sum())
        folds = f"Idealized Baseline below in {n} of {len(wide)} folds"
    return Finding(
        verdict(not below),
        f"{len(honest)} methods below it on some line",
        f"Below the experimental error on at least one line: {listed(below)}. The line is the 0.9 "
        "quantile of "
        "the error of resampled data, so a good prediction may pass it; it marks an error a repeated "
        "experiment would rarely exceed, not the smallest error that can be had.",
        medians=f"{len(honest)} methods besides the Idealized Baseline",
        folds=folds,
    )


@rule("idealized_hard")
def idealized_hard(ev: Evidence) -> Finding:
    """Methods better than the Idealized Baseline."""
    beaten = {}
    for name, figure in (
        ("Essential LFC", "1"),
        ("Norman LFC", "S1"),
        ("Sciplex LFC", "S8"),
        ("Essential DEG", "S4"),
        ("Sciplex DEG", "S10"),
        ("Tahoe DEG", "S7"),
    ):
        medians = ev.better(figure, ev.fig(figure).medians())
        names = ev.embeddings(figure)
        beaten[name] = [d for d in names if (medians[d] >= medians["Idealized Baseline"]).any()]
    fusion = ev.fig("5").medians()
    if (fusion["Fusion (Full)"] < fusion["Idealized Baseline"]).any():
        beaten["Essential LFC"].append("Fusion (Full)")
    n = sum(map(len, beaten.values()))
    return Finding(
        verdict(n == 0),
        f"{n} methods reach it",
        f"No median of an embedding or fusion is as good as the Idealized Baseline in {len(beaten)} "
        "settings."
        if n == 0
        else "As good as the Idealized Baseline: "
        + "; ".join(f"{k}: {listed(v)}" for k, v in beaten.items() if v),
        medians=f"{n} methods",
    )


def _counts(ev: Evidence, dataset: str):
    table = ev.published.ceilings
    return table[table["dataset"] == dataset].drop_duplicates(["cell_line", "perturbation"])


@rule("essential_counts")
def essential_counts(ev: Evidence) -> Finding:
    """Perturbations of Essential in the experimental-error tables."""
    if ev.level == "medians":
        return needs_tables()
    counts = _counts(ev, "essential").groupby("cell_line").size()
    said = {"K-562": 2054, "Hep-G2": 2387, "Jurkat": 2387, "hTERT-RPE1": 2387}
    off = [said[line] - int(n) for line, n in counts.items()]
    return Finding(
        verdict(not any(off), max(off) <= 1),
        by_line(counts, "{:.0f}".format),
        f"The experimental-error tables hold {by_line(counts, '{:.0f}'.format)} perturbations, "
        f"{max(off)} fewer a line than the text, which presumably counts the non-targeting control.",
    )


@rule("essential_batches")
def essential_batches(ev: Evidence) -> Finding:
    """Batches of Essential in the experimental-error tables."""
    if ev.level == "medians":
        return needs_tables()
    table = _counts(ev, "essential")
    most = table.groupby("cell_line")["n_batches"].max()
    pairs = int(table["n_batches"].sum())
    least = int(table.groupby("perturbation")["n_batches"].max().sum())
    said, cells = 133_784, 964_451
    return Finding(
        verdict(most.max() == 56 and said == pairs, most.max() == 56 and least <= said <= pairs),
        f"at most {most.max()} batches; {pairs} pairs with lines apart",
        f"A perturbation is seen in at most {by_line(most, '{:.0f}'.format)} batches. With the lines "
        "counted apart "
        f"there are {pairs} (batch, perturbation) pairs, {cells / pairs:.1f} cells each; the text's "
        f"{said} "
        f"({cells / said:.1f} cells each) is possible only if batches of the same number in different "
        "lines count "
        f"once (at least {least}).",
    )


@rule("norman_counts")
def norman_counts(ev: Evidence) -> Finding:
    """Perturbations and batches of Norman in the experimental-error table."""
    if ev.level == "medians":
        return needs_tables()
    table = _counts(ev, "norman")
    return Finding(
        verdict(len(table) == 105 and table["n_batches"].max() == 8),
        f"{len(table)} perturbations, {table['n_batches'].max()} batches",
        f"The experimental-error table of Norman has {len(table)} perturbations in at most "
        f"{table['n_batches'].max()} batches.",
    )


@rule("sciplex_counts")
def sciplex_counts(ev: Evidence) -> Finding:
    """Drugs of Sciplex in the experimental-error table."""
    if ev.level == "medians":
        return needs_tables()
    counts = _counts(ev, "sciplex").groupby("cell_line").size()
    return Finding(
        verdict(bool((counts == 188).all())),
        by_line(counts, "{:.0f}".format),
        f"The experimental-error table of Sciplex has {by_line(counts, '{:.0f}'.format)} drugs.",
    )


@rule("deg_train_mean")
def deg_train_mean(ev: Evidence) -> Finding:
    """Train Mean of the DEG task against the most frequent class."""
    if ev.level == "medians":
        return needs_tables()
    scores = ev.published.scores
    rows = scores[(scores["task"] == "deg") & (scores["metric"] == "f1_score")]
    wide = rows.pivot_table(
        index=["dataset", "cell_line", "fold"], columns="method", values="value", aggfunc="first"
    )
    both = wide[["prior", "most_frequent"]].dropna()
    same = int((both["prior"] == both["most_frequent"]).sum())
    return Finding(
        verdict(same < len(both)),
        f"equal in {same} of {len(both)} folds",
        f"The rows drawn as Train Mean (`prior`) equal those of the most frequent class in {same} of "
        f"{len(both)} folds and lines: what is scored is the most likely class of each gene, not a "
        "sample from "
        "the class distribution.",
        folds=f"{same} of {len(both)} equal",
    )


@rule("embedding_sizes")
def embedding_sizes(ev: Evidence) -> Finding:
    """Sizes in the names of the scored embeddings against the text."""
    methods = facts("cole2026_methods")
    methods = methods[methods["section"] == "essential_lfc"].set_index("display")["method"]
    size = methods.str.extract(r"\(D=(\d+)\)$")[0]
    said = {"GenotypeVAE": 128, "STRING Network": 128, "STRING Spectral": 128}
    off = {d: int(size[d]) for d, n in said.items() if int(size[d]) != n}
    effect = ""
    if ev.level == "folds":
        rows = ev.published.scores
        rows = rows[
            (rows["metric"] == "L2")
            & (rows["predictor"] == "knn")
            & (rows["dataset"] == "essential")
        ]
        other = (
            rows[rows["embedding"] == "GenotypeVAE_(D=128)"].groupby("cell_line")["value"].median()
        )
        change = ev.fig("1").medians()["GenotypeVAE"] - other
        effect = (
            f" For GenotypeVAE it matters little: {by_line(change, '{:+.3f}'.format)} median L2."
        )
    return Finding(
        verdict(not off, len(off) < len(said) / 2),
        ", ".join(f"{d} {n}" for d, n in off.items()) or "all agree",
        f"Of {len(said)} sizes stated in the methods, {len(said) - len(off)} agree with the file names "
        "of the "
        "figures; not so: "
        + listed(f"{d}, {n} dimensions against {said[d]}" for d, n in off.items())
        + "."
        + effect,
    )


@rule("metrics_agree")
def metrics_agree(ev: Evidence) -> Finding:
    """Agreement of L2 with the other metrics, K-562 (Figure S11)."""
    figure = ev.fig("S11")
    rows = figure.scores.pivot_table(index=["display", "fold"], columns="metric", values="value")
    rho = {m: rows["L2"].corr(rows[m], method="spearman") for m in figure.spec.panels}
    points = f"{len(rows)} points" if ev.level == "folds" else f"{len(rows)} medians"
    within = {}
    if ev.level == "folds":
        centred = rows - rows.groupby("fold").transform("mean")
        within = {m: centred["L2"].corr(centred[m], method="spearman") for m in figure.spec.panels}
    strong = all(abs(v) > 0.8 for v in rho.values())
    return Finding(
        HOLDS if strong else QUALIFIED,
        ", ".join(f"{m} {v:.3f}" for m, v in rho.items()),
        f"Spearman correlation with L2 over {points}: "
        f"{', '.join(f'{m} {v:.3f}' for m, v in rho.items())}"
        + (
            f"; after taking out the fold means: {', '.join(f'{m} {v:.3f}' for m, v in within.items())}."
            if within
            else "."
        ),
        folds=", ".join(f"{m} {v:.3f}" for m, v in rho.items()) if ev.level == "folds" else "",
    )
