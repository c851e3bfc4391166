"""What the chapter says of frozen and fine-tuned representations: tables, sentences, one figure."""

import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.figures.style import colour, legend_of, marker
from perturbcore.report.finetuning.contest import FROZEN, Contest
from perturbcore.report.sentences import listed, signed
from perturbcore.report.summary import primary_metric, ranking_table
from perturbcore.score.metrics.registry import metric as find_metric
from perturbcore.score.uncertainty.differences import gain_table

GAIN_COLUMNS = {
    "data": "Data",
    "embedding": "Representation",
    "predictor": "Use",
    "frozen": "kNN, frozen",
    "value": "Score",
    "gain": "Gain",
    "low": "95 % low",
    "high": "high",
    "p_holm": "p (Holm)",
    "verdict": "Verdict",
    "seconds": "Seconds a fold and line",
}
NETWORK_COLUMNS = {
    "embedding": "Network",
    "learnt": "Learnt from",
    "quality": "How well",
    "seconds": "Seconds, once",
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
    "seconds": "Seconds a fold and line",
}
CONTROLS = ("", "idealized", "random")


def flat(scores: pd.DataFrame) -> pd.DataFrame:
    """Make every use of a representation a method of its own, so that rankings and figures take it.

    Column `embedding` becomes "STRING GNN, fine-tuned", `predictor` "knn" throughout; of random and
    idealized embeddings only kNN is kept.
    """
    control = scores["embedding"].isin(CONTROLS)
    out = scores[~control | (scores["embedding"] == "") | (scores["predictor"] == "knn")].copy()
    free = ~out["embedding"].isin(CONTROLS)
    use = out["predictor"].where(~out["predictor"].isin(FROZEN), "frozen " + out["predictor"])
    out.loc[free, "embedding"] += ", " + use[free].replace({"frozen knn": "frozen kNN"})
    out.loc[free, "predictor"] = "knn"
    return out


def ranking(contest: Contest) -> pd.DataFrame:
    """Rank all methods over the cell lines, with seconds; see `perturbcore.report.summary.ranking_table`."""
    rows = flat(contest.scores)
    table = ranking_table(rows)
    seconds = rows.drop_duplicates("key").groupby("embedding")["seconds"].mean()
    return table.assign(seconds=table["embedding"].map(seconds.drop("", errors="ignore")))


def gains(contest: Contest) -> pd.DataFrame:
    """Compare each use of a representation with kNN on it frozen, over all cell lines.

    Returns
    -------
    pandas.DataFrame
        data, embedding, modality, predictor, frozen (score of kNN), value, gain (positive is better),
        low, high (95 % interval over folds, corrected for overlapping training sets), p_holm (over the
        uses of a representation), adapted (whether the use trains on responses by gradient steps),
        verdict (see `perturbcore.score.uncertainty.differences.verdicts`), seconds (mean of a fold and line).
    """
    scores = contest.scores
    metric = primary_metric(scores)
    seconds = scores.drop_duplicates("key").groupby(["embedding", "predictor"])["seconds"].mean()
    tables = []
    for name, rows in scores[~scores["embedding"].isin(CONTROLS)].groupby("embedding", sort=False):
        if rows["predictor"].nunique() < 2 or not (rows["predictor"] == "knn").any():
            continue
        found = gain_table(rows, metric, reference=(name, "knn"), by=()).rename(
            columns={"reference": "frozen"}
        )
        tables.append(
            found.assign(
                data=contest.title, modality=rows["modality"].iloc[0],
                adapted=~found["predictor"].isin(FROZEN),
                seconds=[seconds[name, p] for p in found["predictor"]],
            )
        )  # fmt: skip
    columns = ["data", "embedding", "modality", "predictor", "frozen", "value", "gain", "low", "high", "p_holm",
               "adapted", "verdict", "seconds"]  # fmt: skip
    return (
        pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    )


def adapted(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `gains` that adapt the representation itself, not only a head on it."""
    return table[table["adapted"].astype(bool) & ~table["predictor"].str.startswith("frozen")]


def answer(contest: Contest, table: pd.DataFrame) -> str:
    """Say what each adaptation gains over kNN on the same representation, and what the best method is."""
    label = find_metric(primary_metric(contest.scores)).label
    said = []
    for row in adapted(table).sort_values("gain", ascending=False).itertuples():
        _, _, _, floor = _against(contest, ("", "train_mean"), (row.embedding, row.predictor))
        floor = {
            "better": "It beats the Train Mean.",
            "worse": "It is worse than the Train Mean.",
        }.get(floor, "It cannot be told apart from the Train Mean.")
        said.append(
            f"**{row.embedding}, {row.predictor}**: {label} {row.value:.3f} against {row.frozen:.3f} for kNN "
            f"on it frozen, a gain of {signed(row.gain)} (95 % interval {signed(row.low)} to "
            f"{signed(row.high)}): {row.verdict}. {floor}"
        )
    said = said or [
        f"On {contest.title}, no representation could be adapted; the frozen ones are compared."
    ]
    best, ties, n = _best(contest)
    rest = f"On {contest.title}, the best of {n} methods is {best['display']} ({label} {best['value']:.3f})"
    rest += (
        f"; {listed(ties)} cannot be told apart from it."
        if ties
        else "; all others are distinguishably worse."
    )
    return "\n\n".join([*said, rest])


def _best(contest: Contest) -> tuple[pd.Series, list, int]:
    real = ranking(contest)
    real = real[real["competes"] & ~real["modality"].str.endswith("control")]
    return real.iloc[0], list(real["display"][1:][real["with_best"][1:]]), len(real)


def surprises(contest: Contest, table: pd.DataFrame) -> str:
    """Set the adaptation of a network beside its head alone, and beside other predictors on it frozen."""
    said = []
    for name, rows in table.groupby("embedding", sort=False):
        own = adapted(rows)
        if not len(own):
            continue
        best = own.loc[own["gain"].idxmax()]
        heads = rows[rows["predictor"].isin(["frozen + linear", "frozen + MLP"])]
        if len(heads):
            head = heads.iloc[0]
            gain, low, high, told = _against(
                contest, (name, head["predictor"]), (name, best["predictor"])
            )
            said.append(
                f"{name}: a head trained on the frozen network ({head['predictor']}) gains "
                f"{signed(head['gain'])} over kNN, {best['predictor']} {signed(best['gain'])}. Adapting the "
                f"network itself is worth {signed(gain)} (95 % interval {signed(low)} to {signed(high)}: "
                f"{told})."
            )
        plain = _plain(rows)
        if plain is not None:
            gain, low, high, told = _against(
                contest, (name, plain["predictor"]), (name, best["predictor"])
            )
            said.append(
                f"{name}: nothing but another predictor on the frozen vectors ({plain['predictor']}) gains "
                f"{signed(plain['gain'])} over kNN. Against that, {best['predictor']} is {signed(gain)} (95 % "
                f"interval {signed(low)} to {signed(high)}: {told}), and takes "
                f"{_times(best['seconds'], plain['seconds'])}."
            )
    return "\n\n".join(said) or f"On {contest.title}, nothing was adapted."


def _plain(rows: pd.DataFrame) -> pd.Series | None:
    """Best other predictor on the frozen vectors, if any was tried."""
    other = rows[rows["predictor"].isin(FROZEN)]
    return other.loc[other["gain"].idxmax()] if len(other) else None


def _against(contest: Contest, first: tuple, second: tuple) -> tuple[float, float, float, str]:
    """Gain of the second (embedding, predictor) over the first, its interval, and the verdict."""
    scores, metric = contest.scores, primary_metric(contest.scores)
    method = pd.MultiIndex.from_frame(scores[["embedding", "predictor"]])
    one = gain_table(scores[method.isin([first, second])], metric, reference=first, by=()).iloc[0]
    return one["gain"], one["low"], one["high"], one["verdict"]


def one_line(contests: list[Contest], tables: list[pd.DataFrame]) -> str:
    """Condense the answer to one sentence."""
    rows = [adapted(t) for t in tables if len(t)]
    count = pd.concat(rows)["verdict"].value_counts() if rows else pd.Series(dtype=int)
    n, up, down = int(count.sum()), int(count.get("better", 0)), int(count.get("worse", 0))
    if not n:
        return f"No network could be fine-tuned in this profile; frozen, {_best(contests[0])[0]['display']} is best."
    told = (
        f"Of {n} fine-tunings, {up} beat kNN on the same representation frozen, {down} are worse, "
        f"{n - up - down} cannot be told apart"
    )
    for contest, table in zip(contests, tables, strict=True):
        own = adapted(table)
        own = (
            own[own["modality"] != "Expression"] if (own["modality"] != "Expression").any() else own
        )
        if not len(own):
            continue
        top = own.loc[own["gain"].idxmax()]
        plain = _plain(table[table["embedding"] == top["embedding"]])
        label = find_metric(primary_metric(contest.scores)).label
        told += f"; the gain of {top['embedding']}, {top['predictor']}, is {signed(top['gain'])} {label}"
        if plain is not None:
            told += f", that of a {plain['predictor']} smoother on the frozen vectors {signed(plain['gain'])}"
        return told + "."
    return told + "."


def gain_figure(tables: list[pd.DataFrame], labels: list[str]) -> Figure:
    """Draw the gain over frozen kNN with its interval, one panel a data set, one row a use, best on top.

    Parameters
    ----------
    tables : list of pandas.DataFrame
        Of `gains`; empty ones are left out, and where all are, the figure says so.
    labels : list of str
        Metric of each.
    """
    drawn = [
        (t.sort_values("gain", ascending=False), m)
        for t, m in zip(tables, labels, strict=True)
        if len(t)
    ]
    if not drawn:
        figure = Figure(figsize=(7.4, 1.0))
        figure.text(0.5, 0.5, "Nothing could be adapted in this profile.", ha="center", va="center")
        return figure
    sizes = [len(t) for t, _ in drawn]
    figure = Figure(figsize=(7.4, 0.32 * sum(sizes) + 1.1 * len(drawn) + 0.2), layout="constrained")
    axes = figure.subplots(len(drawn), squeeze=False, height_ratios=sizes)[:, 0]
    for axis, (rows, label) in zip(axes, drawn, strict=True):
        axis.axvline(0, color=colour("Negative control"), ls="--", lw=1, zorder=0)
        for y, row in enumerate(rows.itertuples()):
            c = colour(row.modality)
            axis.plot(
                [row.low, row.high], [y, y], color=c, lw=2.2, alpha=0.6, solid_capstyle="butt"
            )
            axis.plot(row.gain, y, marker=marker(row.modality), color=c if row.adapted else "white", ms=7,
                      mec=c, mew=1.2)  # fmt: skip
        axis.set_yticks(range(len(rows)), rows["embedding"] + ", " + _use(rows["predictor"]))
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_title(rows["data"].iloc[0], loc="left")
        axis.set_xlabel(f"Gain in {label} over kNN on the same representation (right is better)")
        axis.grid(axis="x", color="#dddddd", lw=0.6)
        axis.tick_params(axis="y", length=0)
    legend_of(figure, pd.concat([t for t, _ in drawn])["modality"])
    return figure


def setting(contests: list[Contest]) -> str:
    """Say what is compared on what, and what could not be, and why."""
    said = []
    for c in contests:
        names = list(
            dict.fromkeys(c.scores.loc[~c.scores["embedding"].isin(CONTROLS), "embedding"])
        )
        lines = c.scores["cell_line"].nunique()
        said.append(
            f"{c.title}: {len(names)} representations ({', '.join(names)}) in {lines} cell "
            f"line{'s' * (lines > 1)}, scored by {find_metric(primary_metric(c.scores)).label}."
        )
        said += c.without
        if c.absent:
            said.append(f"Not at hand for this data set: {', '.join(c.absent)}.")
    return "\n\n".join(said)


def networks(contests: list[Contest]) -> pd.DataFrame:
    """List the pretrained networks once, whatever the data set."""
    return pd.concat([c.networks for c in contests], ignore_index=True).drop_duplicates("embedding")


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Put the gains on several data sets into one table, each best gain first, with a column `beats`."""
    parts = [t.sort_values("gain", ascending=False) for t in tables if len(t)] or tables[:1]
    return pd.concat(parts, ignore_index=True).assign(beats=lambda t: t["verdict"] == "better")


def _use(predictor: pd.Series) -> pd.Series:
    return predictor.where(~predictor.isin(FROZEN), "frozen " + predictor)


def _times(seconds: float, other: float) -> str:
    """Say how much longer or shorter one takes than the other."""
    ratio = seconds / max(other, 1e-6)
    if 0.67 < ratio < 1.5:
        return "about as long"
    return f"{ratio:,.0f} times as long" if ratio >= 10 else f"{ratio:.1f} times as long"
