"""What the chapter says of fusions and single sources: tables and sentences."""

from dataclasses import replace

import pandas as pd

from perturbcore.report.fusion.contest import NOT_SOURCES, Contest
from perturbcore.report.sentences import signed
from perturbcore.report.summary import ranking_table
from perturbcore.score.metrics.registry import metric as find_metric
from perturbcore.score.uncertainty.differences import gain_table

GAIN_COLUMNS = {
    "method": "Fusion",
    "value": "Score",
    "gain": "Gain over the best single source",
    "low": "95 % low",
    "high": "high",
    "p_holm": "p (Holm)",
    "lines": "Lines ahead",
    "verdict": "Verdict",
    "seconds": "Seconds a fold and line",
}
RANK_COLUMNS = {
    "display": "Method",
    "modality": "Modality",
    "value": "Score",
    "low": "95 % low",
    "high": "high",
    "gap_closed": "Gap closed",
    "behind": "Behind best",
    "p_from_best": "p (Holm)",
}
SIMPLE = ("knn", "average", "stack", "kernel", "ridge", "mixed")
TOP_SINGLES = 4


def name_of(single: tuple[str, str]) -> str:
    """Name of a single source and its predictor, as the tables have it."""
    return f"{single[0]}, {single[1]}"


def gains(contest: Contest) -> pd.DataFrame:
    """Compare each fusion with the best single source, over all cell lines; best first.

    Returns
    -------
    pandas.DataFrame
        method, predictor, value, reference (score of the best single source), gain (positive is better),
        low, high (95 % interval over folds, corrected for overlapping training sets), p_holm, lines (how
        many cell lines it is ahead in, of how many), verdict, seconds (mean of a fold and line).
    """
    metric = contest.metric
    sign = 1.0 if find_metric(metric).higher_is_better else -1.0
    best = name_of(contest.best_single)
    scores = contest.scores
    fused = contest.fused.drop_duplicates("embedding").set_index("embedding")
    rows = scores[scores["embedding"].isin([best, *fused.index])]
    found = gain_table(rows, metric, reference=(best, "knn"), by=())
    one = rows[rows["metric"] == metric]
    by_line = one.pivot_table(index="cell_line", columns="embedding", values="value")
    ahead = (sign * by_line.sub(by_line[best], axis=0) > 0).sum()
    seconds = contest.fused.drop_duplicates("key").groupby("embedding")["seconds"].mean()
    table = found.rename(columns={"embedding": "method"}).assign(
        predictor=fused.loc[found["embedding"], "predictor"].to_numpy(),
        lines=[f"{ahead[m]} of {len(by_line)}" for m in found["embedding"]],
        seconds=seconds.loc[found["embedding"]].to_numpy(),
    )
    columns = ["method", "predictor", "value", "reference", "gain", "low", "high", "p_holm", "lines", "verdict",
               "seconds"]  # fmt: skip
    return table[columns].sort_values("gain", ascending=False, ignore_index=True)


def ranking(contest: Contest) -> pd.DataFrame:
    """Rank fusions, the best single sources, floors and ceilings; see `perturbcore.report.summary.ranking_table`."""
    return ranking_table(shown(contest))


def shown(contest: Contest, n: int = TOP_SINGLES) -> pd.DataFrame:
    """Scores of the main metric: all fusions, the `n` best single sources, floors and ceilings."""
    metric = contest.metric
    rows = contest.scores[contest.scores["metric"] == metric]
    fused = set(contest.fused["embedding"])
    single = rows[~rows["modality"].isin(NOT_SOURCES) & ~rows["embedding"].isin(fused)]
    order = (
        single.groupby("embedding")["value"]
        .mean()
        .sort_values(ascending=not find_metric(metric).higher_is_better)
    )
    return rows[~rows["embedding"].isin(order.index[n:])]


def by_line(contest: Contest, table: pd.DataFrame) -> pd.DataFrame:
    """Compare each fusion with the best single source in every line, in the order of `table`.

    Returns
    -------
    pandas.DataFrame
        method, cell_line, value, reference, gain (positive is better), low, high (95 % interval over the
        folds of the line, corrected for overlapping training sets, not for the number of fusions).
    """
    best = name_of(contest.best_single)
    rows = contest.scores[contest.scores["embedding"].isin([best, *table["method"]])]
    found = gain_table(rows, contest.metric, reference=(best, "knn"), by=("cell_line",))
    out = found.rename(columns={"embedding": "method"})
    out = out[["method", "cell_line", "value", "reference", "gain", "low", "high"]]
    place = {name: i for i, name in enumerate(table["method"])}
    return out.sort_values(
        ["method", "cell_line"], key=lambda c: c.map(place).fillna(c), ignore_index=True
    )


def by_line_text(lines: pd.DataFrame, best: str) -> pd.DataFrame:
    """Lay `by_line` out with one column a line: the score, and the gain with its interval."""
    text = [
        f"{r.value:.3f}: {signed(r.gain)} ({signed(r.low)} to {signed(r.high)})"
        for r in lines.itertuples()
    ]
    wide = lines.assign(text=text).pivot(index="method", columns="cell_line", values="text")
    first = lines.groupby("cell_line")["reference"].first().map("{:.3f}".format).rename(best)
    wide = pd.concat([first.to_frame().T, wide.loc[lines["method"].unique()]])
    return wide.rename_axis(columns=None).reset_index(names="method")


def setting(contest: Contest) -> str:
    """Say what was fused."""
    names = list(dict.fromkeys(e.name for e in contest.sources))
    n = contest.fused.drop_duplicates("embedding")
    fold = contest.fused["fold"].nunique()
    said = (
        f"{contest.data.title}: {len(names)} sources ({', '.join(names)}), {len(n)} fusions, "
        f"{contest.fused['cell_line'].nunique()} cell lines, {fold} folds, scored by "
        f"{find_metric(contest.metric).label}."
    )
    return " ".join([said, *contest.without])


def answer(contest: Contest, table: pd.DataFrame, folds_looked_at=()) -> str:
    """Say what is best, by how much, and whether the transformer is worth it.

    `folds_looked_at` are those in which settings were chosen: see `without_folds`.
    """
    metric = find_metric(contest.metric)
    n = contest.singles[~contest.singles["modality"].isin(NOT_SOURCES)]
    n = n[["embedding", "predictor"]].drop_duplicates().shape[0]
    alone = f"the best of {n} single sources and predictors ({name_of(contest.best_single)}, named after the fact)"
    simple, deep = (
        table[table["predictor"].isin(SIMPLE)],
        table[table["predictor"] == "transformer"],
    )
    said = []
    best = table.iloc[0]
    said.append(
        f"**{best['method']}** does best of {len(table)} fusions: {metric.label} {best['value']:.3f} against "
        f"{best['reference']:.3f} for {alone}, a gain of {signed(best['gain'])} (95 % interval "
        f"{signed(best['low'])} to {signed(best['high'])}; ahead in {best['lines']} lines): {best['verdict']}."
    )
    if len(simple) and len(deep):
        a, b = simple.iloc[0], deep.iloc[0]
        one = between(contest, a["method"], b["method"])
        told = one["distinguishable"]
        if told and one["gain"] < 0:
            verdict = "the transformer is better"
        elif told:
            verdict = "the simple fusion is better"
        else:
            verdict = "they cannot be told apart"
        said.append(
            f"Simple or deep? The best simple fusion is {a['method']} ({a['value']:.3f}, {a['seconds']:.1f} s a "
            f"fold and line), the best transformer {b['method']} ({b['value']:.3f}, {b['seconds']:.1f} s): a "
            f"difference of {signed(one['gain'])} ({signed(one['low'])} to {signed(one['high'])}); {verdict}."
        )
    said += [text for text in [without_folds(contest, table, folds_looked_at)] if text]
    worse = table.loc[table["gain"] < 0, "method"]
    if len(worse):
        said.append(f"Worse than the best single source on average: {', '.join(worse)}.")
    return "\n\n".join(said)


def without_folds(contest: Contest, table: pd.DataFrame, folds) -> str:
    """Repeat the two main comparisons without the folds in which settings were chosen; empty if none were."""
    deep = table.loc[table["predictor"] == "transformer", "method"]
    simple = table.loc[table["predictor"].isin(SIMPLE), "method"]
    if not len(folds) or not len(deep):
        return ""
    some = "fold " + ", ".join(str(f) for f in folds)
    rest = replace(
        contest,
        singles=contest.singles[~contest.singles["fold"].isin(folds)],
        fused=contest.fused[~contest.fused["fold"].isin(folds)],
    )
    said = []
    for other in [name_of(contest.best_single), *simple.iloc[:1]]:
        one = between(rest, deep.iloc[0], other)
        said.append(
            f"{signed(one['gain'])} ({signed(one['low'])} to {signed(one['high'])}) over {other}"
        )
    return (
        f"Settings of {deep.iloc[0]} were chosen with {some} in view. On the other folds alone its gain is "
        f"{' and '.join(said)}."
    )


def between(contest: Contest, a: str, b: str) -> pd.Series:
    """Return how much better `a` is than `b` over all cell lines: a row of `uncertainty.gain_table`."""
    rows = contest.scores[contest.scores["embedding"].isin([a, b])]
    return gain_table(rows, contest.metric, reference=(b, "knn"), by=()).iloc[0]


def one_line(contest: Contest, table: pd.DataFrame, record: str = "") -> str:
    """Condense the chapter to one sentence."""
    best = table.iloc[0]
    said = (
        f"{best['method']}: {find_metric(contest.metric).label} {best['value']:.3f} against "
        f"{best['reference']:.3f} for the best single source, {best['verdict']}"
    )
    return f"{said}; {record}." if record else f"{said}."
