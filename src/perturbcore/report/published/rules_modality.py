"""Rules on kinds of embeddings and their ranks on Essential (Figures 1-3, S2-S4)."""

import pandas as pd

from perturbcore.report.published.evidence import (
    FAILS,
    HOLDS,
    QUALIFIED,
    UNDECIDED,
    Evidence,
    Finding,
    by_line,
    listed,
    needs_tables,
    percent,
    verdict,
)
from perturbcore.report.published.rules import rule
from perturbcore.report.published.rules_ranking import (
    ANNOTATION,
    FM_MODALITIES,
    NETWORKS,
    median_ranks,
    texts,
)


@rule("strongest_types")
def strongest_types(ev: Evidence) -> Finding:
    """Interactome, annotation and text have the best median ranks."""
    ranks = median_ranks(ev)
    groups = {"interactome": NETWORKS, "annotation": ANNOTATION, "text": texts(ev)}
    best = {k: float(ranks[v].min()) for k, v in groups.items()}
    inside = set(sum(groups.values(), []))
    first_other = ranks.drop(inside, errors="ignore")
    ahead = int((ranks < first_other.iloc[0]).sum())
    worst = max(best.values())
    return Finding(
        verdict(
            worst < first_other.iloc[0], sum(b < first_other.iloc[0] for b in best.values()) >= 2
        ),
        ", ".join(f"{k} {v:g}" for k, v in best.items()),
        "Best median rank over 20 folds: "
        + ", ".join(f"{k} {v:g}" for k, v in best.items())
        + f"; the best of any other kind is {first_other.index[0]} at {first_other.iloc[0]:g}, with "
        f"{ahead} embeddings of the three kinds ahead of it.",
        medians=", ".join(f"{k} {v:g}" for k, v in best.items()),
    )


@rule("types_beat_pca")
def types_beat_pca(ev: Evidence) -> Finding:
    """Interactome, annotation and text embeddings against PCA of control cells."""
    names = [*NETWORKS, *ANNOTATION, *texts(ev)]
    won = {d: ev.versus("1", d, "PCA") for d in names}
    sure = [d for d in names if won[d].every_fold]
    rest = [d for d in names if d not in sure]
    lines = sum(v.median_wins == v.lines for v in won.values())
    return Finding(
        verdict(not rest, len(sure) >= len(names) / 2),
        f"{len(sure)} of {len(names)} in every fold",
        f"{len(sure)} of {len(names)} embeddings of the three kinds are better than PCA in every fold "
        f"of every line; not so: {listed(rest)}.",
        medians=f"{lines} of {len(names)} on every line",
        folds="" if ev.level == "medians" else f"{len(sure)} of {len(names)} in all 20",
    )


@rule("interactome_best")
def interactome_best(ev: Evidence) -> Finding:
    """Find the best single embedding of every line."""
    names = ev.embeddings("1")
    best = ev.fig("1").medians()[names].idxmin(axis=1)
    ranks = median_ranks(ev)
    other = ranks.drop(NETWORKS).index[0]
    versus = ev.versus("1", ranks.index[0], other)
    full = bool(best.isin(NETWORKS).all()) and ranks.index[0] in NETWORKS
    means = ""
    if ev.level == "folds":
        means = by_line(ev.fig("1").means()[names].idxmin(axis=1), str)
    return Finding(
        verdict(full and versus.every_fold, full),
        f"{ranks.index[0]}, median rank {ranks.iloc[0]:g}",
        f"Lowest median L2: {by_line(best, str)}. Against the best embedding that is not of a network, "
        f"{other}, {ranks.index[0]} is {versus.folds or versus.medians}; the mean difference is "
        f"{versus.mean_gain:.3f} L2.",
        medians=by_line(best, str),
        means=means,
        folds=versus.folds,
    )


@rule("lasso_similar")
def lasso_similar(ev: Evidence) -> Finding:
    """Agreement of the kNN and the lasso ranking."""
    names = ev.embeddings("1")
    knn, lasso = ev.fig("1").medians()[names], ev.fig("S2").medians()[names]
    rho = knn.T.corrwith(lasso.T, method="spearman")
    gap_knn = ev.gap("1", names).max(axis=1)
    gap_lasso = ev.gap("S2", names).max(axis=1)
    return Finding(
        verdict(bool((rho >= 0.8).all()), bool((rho >= 0.5).all())),
        f"Spearman {rho.min():.2f} to {rho.max():.2f}",
        "Spearman correlation of median L2 under kNN and under lasso: "
        f"{by_line(rho, '{:.2f}'.format)}. The best embedding closes {by_line(gap_knn)} with kNN and "
        f"{by_line(gap_lasso)} with lasso; best by rank with lasso is "
        f"{median_ranks(ev, 'S3').index[0]}.",
        medians=by_line(rho, "{:.2f}".format),
    )


@rule("others_below_interactome")
def others_below_interactome(ev: Evidence) -> Finding:
    """Every DNA, protein and expression embedding against every network embedding."""
    others = ev.embeddings("1", *FM_MODALITIES)
    medians = ev.fig("1").medians()
    lost = [(o, n) for o in others for n in NETWORKS if (medians[o] < medians[n]).any()]
    best = medians[NETWORKS].min(axis=1)
    against_best = bool(medians[others].gt(best, axis=0).all().all())
    pairs = len(others) * len(NETWORKS)
    return Finding(
        verdict(not lost, against_best),
        f"{pairs - len(lost)} of {pairs} pairs on every line",
        f"The best network embedding of each line is better than all {len(others)} DNA, protein and "
        f"expression embeddings: {'yes' if against_best else 'no'}. Pair by pair, "
        f"{len(lost)} of {pairs} go the other way on at least one line"
        + (f" (all with {listed(sorted({n for _, n in lost}))})." if lost else "."),
        medians=f"{pairs - len(lost)} of {pairs} pairs",
    )


@rule("best_of_the_others")
def best_of_the_others(ev: Evidence) -> Finding:
    """Rank the DNA, protein and expression embeddings, and compare the named ones with PCA."""
    ranks = median_ranks(ev)
    rest = ranks[ev.embeddings("1", *FM_MODALITIES)].sort_values()
    named = ["STRING Sequence", "scGPT", "AIDO.Cell 3M", "AIDO.Cell 10M", "AIDO.Cell 100M"]
    top = list(rest.index[: len(named)])
    sure = [d for d in named if ev.versus("1", d, "PCA").every_fold]
    versus = ev.versus("1", named[2], "PCA")
    return Finding(
        verdict(set(top) == set(named) and len(sure) == len(named), set(top) == set(named)),
        f"{len(set(top) & set(named))} of the {len(named)} named are the top {len(named)}",
        f"By median rank the first {len(named)} DNA, protein and expression embeddings are "
        f"{listed(top)}. "
        f"Better than PCA in every fold: {listed(sure)}; the smallest of them, {named[2]}, is "
        f"{versus.folds or versus.medians}.",
        medians=listed(f"{d} {rest[d]:g}" for d in top),
        folds=versus.folds,
    )


@rule("larger_is_better")
def larger_is_better(ev: Evidence) -> Finding:
    """AIDO.Cell 3M, 10M, 100M in order of size."""
    small, middle, large = "AIDO.Cell 3M", "AIDO.Cell 10M", "AIDO.Cell 100M"
    first, second = ev.versus("1", middle, small), ev.versus("1", large, middle)
    deg = [ev.versus("S4", middle, small), ev.versus("S4", large, middle)]
    norman = ev.fig("S1").medians().iloc[0]
    norman_ordered = norman[small] > norman[middle] > norman[large]
    pairs = (first, second)
    full = all(v.median_wins == v.lines and v.every_fold for v in pairs) and norman_ordered
    return Finding(
        verdict(bool(full), all(v.median_wins > v.lines / 2 for v in pairs)),
        f"3M to 10M {first.median_wins} of 4 lines, 10M to 100M {second.median_wins} of 4",
        f"On Essential LFC, 10M against 3M is {first.folds or first.medians}, 100M against 10M "
        f"{second.folds or second.medians}; in DEG {deg[0].medians} and {deg[1].medians}. On Norman "
        f"the medians are {norman[small]:.3f}, {norman[middle]:.3f} and {norman[large]:.3f}, "
        + ("in the same order." if norman_ordered else "not in the order of size."),
        medians=f"{first.medians}; {second.medians}",
        means=f"{first.means}; {second.means}" if first.means else "",
        folds=f"{first.folds}; {second.folds}" if first.folds else "",
    )


@rule("k562_gap")
def k562_gap(ev: Evidence) -> Finding:
    """Gap closed by the best embedding on K-562."""
    names = ev.embeddings("1")
    gap = ev.gap("1", names).loc["K-562"]
    best = gap.idxmax()
    means = ""
    if ev.level == "folds":
        values = ev.gap("1", names, "means").loc["K-562"]
        means = f"{values.idxmax()} {percent(values.max())}"
    return Finding(
        verdict(abs(gap.max() - 0.77) < 0.005),
        f"{percent(gap.max())} ({best})",
        f"On K-562 {best} closes {percent(gap.max(), 1)} of the gap between Train Mean and experimental "
        f"error on medians" + (f", and {means} on means." if means else "."),
        medians=f"{best} {percent(gap.max())}",
        means=means,
    )


@rule("same_trend_everywhere")
def same_trend_everywhere(ev: Evidence) -> Finding:
    """Find the leading modality in every setting that has gene embeddings."""
    settings = {
        "Essential LFC kNN": "1",
        "Essential LFC lasso": "S2",
        "Essential DEG": "S4",
        "Norman LFC kNN": "S1",
    }
    first = {}
    for name, figure in settings.items():
        embeddings = ev.embeddings(figure)
        medians = ev.better(figure, ev.fig(figure).medians()[embeddings])
        ranks = medians.rank(axis=1, ascending=False).mean()
        first[name] = ranks.groupby(pd.Series(ev.modality(figure))[embeddings]).median().idxmin()
    same = [k for k, v in first.items() if v == "Prior knowledge"]
    return Finding(
        verdict(len(same) == len(first), len(same) >= 3),
        f"{len(same)} of {len(first)} settings",
        "Modality with the best median rank of its embeddings: "
        + ", ".join(f"{k} {v}" for k, v in first.items())
        + ".",
        medians=f"{len(same)} of {len(first)}",
    )


@rule("top_ten_prior")
def top_ten_prior(ev: Evidence) -> Finding:
    """Count prior knowledge among the ten best median ranks."""
    ranks = median_ranks(ev)
    modality = pd.Series(ev.modality("2"))
    top = modality[ranks.index[:10]]
    prior = int((top == "Prior knowledge").sum())
    eleventh = ranks.index[10]
    return Finding(
        verdict(prior == 10),
        f"{prior} of the top 10",
        f"The ten best median ranks run from {ranks.iloc[0]:g} to {ranks.iloc[9]:g} and {prior} are of "
        f"prior knowledge; the next is {eleventh} ({modality[eleventh]}) at {ranks.iloc[10]:g}.",
        medians=f"{prior} of 10",
    )


@rule("twenty_models")
def twenty_models(ev: Evidence) -> Finding:
    """Every method of Figure 2 has twenty ranks."""
    if ev.level == "medians":
        return needs_tables()
    counts = ev.fig("2").scores.groupby("display")["value"].size()
    controls = [d for d, m in ev.modality("2").items() if m.endswith("control")]
    return Finding(
        HOLDS if set(counts) == {20} else QUALIFIED,
        f"{counts.min()} to {counts.max()} ranks a method",
        f"Each of the {len(counts)} methods has {counts.min()} ranks (4 lines, 5 folds); the ranks "
        f"include {len(controls)} controls, two of which always lead.",
        folds=f"{counts.min()}",
    )


@rule("cca_clusters")
def cca_clusters(ev: Evidence) -> Finding:
    """Similarity of embeddings, Figure 3."""
    return Finding(
        UNDECIDED,
        "",
        "Figure 3 compares the embeddings themselves; the score tables hold none, so it takes the "
        "embedding files of the authors' data set.",
    )


@rule("compute")
def compute(ev: Evidence) -> Finding:
    """GPU hours are not in the tables."""
    return Finding(UNDECIDED, "", "Neither run times nor GPU hours are in the published tables.")


@rule("random_carries_nothing")
def random_carries_nothing(ev: Evidence) -> Finding:
    """Random embeddings against Train Mean."""
    figures = {
        "Essential LFC": "1",
        "Norman LFC": "S1",
        "Sciplex LFC": "S8",
        "Essential DEG": "S4",
        "Sciplex DEG": "S10",
        "Tahoe DEG": "S7",
    }
    won = {k: ev.versus(f, "Random Embeddings", "Train Mean") for k, f in figures.items()}
    above = [k for k, v in won.items() if v.median_wins == v.lines]
    return Finding(
        verdict(not above, len(above) < len(won)) if len(above) < len(won) else FAILS,
        f"above Train Mean in {len(above)} of {len(won)} settings",
        "Random embeddings score better than Train Mean on "
        + ", ".join(f"{v.median_wins} of {v.lines} lines ({k})" for k, v in won.items())
        + ". In the DEG task Train Mean always predicts the most frequent class, which a "
        "class-weighted classifier can pass in macro F1 without any information.",
        medians=listed(above),
    )
