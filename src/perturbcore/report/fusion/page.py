"""What the chapter says of fusions and single sources, beyond what every comparison says."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.comparison import Comparison
from perturbcore.report.figures import curves
from perturbcore.report.fusion.scores import FusionScores
from perturbcore.report.text import HEADINGS, MISSING, TEXTS, gain_said, listed, plural, tell

TITLES = HEADINGS["predictors of fusion"]


def setting(f: FusionScores) -> str:
    """Say what was fused."""
    names, rows = list(dict.fromkeys(e.name for e in f.sources)), f.every.units.index
    sizes = {"lines": rows.unique("cell_line").size, "folds": rows.unique("fold").size}
    sizes |= {"n": len(names), "fusions": len(f.fusions), "names": ", ".join(names)}
    return " ".join([tell("fusion.setting", f=f, **sizes), *f.left_out])


def cells_text(f: FusionScores) -> pd.DataFrame:
    """Lay the main table out: predictors x sources, each score with its interval over folds."""
    table = f.every.ranking().set_index("method")
    text = {m: f"{r['value']:.3f} ({r['low']:.3f} to {r['high']:.3f})" for m, r in table.iterrows()}
    wide = f.cells.map(lambda m: text.get(m, MISSING)).rename(index=TITLES)
    return wide.rename_axis("Predictor").reset_index()


def effect(what: str, row: pd.Series) -> str:
    """Say what a predictor or fusion adds, whichever way the numbers fall."""
    gain, verdict = gain_said(row), row["verdict"]
    if verdict == "tie" and row["low"] <= 0 <= row["high"]:
        return f"{what} adds nothing that can be told from zero: {gain}"
    if verdict in ("better", "worse"):
        return f"{what} {'adds' if verdict == 'better' else 'costs:'} {gain}"
    why = "a tie once adjusted for many comparisons" if verdict == "tie" else "undecidable"
    return f"{what} changes the score by {gain}, {why}"


def _parts(f: FusionScores) -> tuple[str, dict[str, pd.Series]]:
    """Predictor of the best fusion that was compared, and rows of `FusionScores.parts` by what."""
    kind = f.cells.index[0]
    rows = f.parts[f.parts["kind"] == kind].set_index("what")
    return TITLES.get(kind, kind), {what: row for what, row in rows.iterrows()}


def parts_said(f: FusionScores) -> str:
    """Say apart what the predictor adds to one source, and what fusion adds to it."""
    kind, rows = _parts(f)
    own, other = rows["fusion"], rows["fusion, any predictor"]
    said = []
    if "predictor" in rows:
        row = rows["predictor"]
        told = effect("the predictor", row)
        said.append(tell("fusion.predictor", row=row, kind=kind, effect=told))
    effects = dict(effect=effect("fusion", own), any_effect=effect("fusion", other))
    last = [tell("fusion.fusion", kind=kind, own=own, other=other, **effects)]
    for name in f.sets:
        if (row := rows.get(f"over {name}")) is not None:
            told = effect("having all sources", row)
            last.append(tell("fusion.beyond", name=name.lower(), row=row, effect=told))
    return "\n\n".join([*said, " ".join(last)])


def answer(f: FusionScores, folds_looked_at: Sequence[int] = ()) -> str:
    """Say what predictor and fusion add, what is best, and whether a transformer is worth it.

    `folds_looked_at` are those in which settings were chosen: the main comparisons are repeated
    without them.
    """
    table, best = f.gains, f.gains.iloc[0]
    worse = listed(table.loc[table["gain"] < 0, "method"])
    said = [
        parts_said(f),
        tell("fusion.best", best=best, n=len(table), label=f.every.label),
        simple_or_deep(f),
        without_folds(f, folds_looked_at),
        "" if worse == "none" else f"Worse than the best single source on average: {worse}.",
        f.every.mask_said(),
    ]
    return "\n\n".join(text for text in said if text)


def simple_or_deep(f: FusionScores) -> str:
    """Compare the best simple fusion with the best transformer; empty where one is missing."""
    deep = f.gains["predictor"] == "transformer"
    if deep.all() or not deep.any():
        return ""
    a, b = f.gains[~deep].iloc[0], f.gains[deep].iloc[0]
    one = f.every.between(a["method"], b["method"])
    told = f"the {'simple fusion' if one['gain'] > 0 else 'transformer'} is better"
    told = TEXTS["fusion"].get(one["verdict"], told)
    return tell("fusion.simple", a=a, b=b, one=one, told=told)


def without_folds(f: FusionScores, folds: Sequence[int]) -> str:
    """Repeat the comparisons of the transformer without some folds; empty where there is none."""
    deep = f.gains["predictor"] == "transformer"
    if not len(folds) or not deep.any():
        return ""
    rows, name = f.every.scores, f.gains.loc[deep, "method"].iloc[0]
    rest = Comparison(rows[~rows["fold"].isin(folds)])
    others = [f.best_single, *f.gains.loc[~deep, "method"].iloc[:1]]
    said = " and ".join(f"{gain_said(rest.between(name, other))} over {other}" for other in others)
    return tell("fusion.folds", name=name, folds=list(folds), said=said)


def one_line(f: FusionScores, record: str = "") -> str:
    """Condense the chapter to one sentence; `record` is a clause on the leaderboard."""
    kind, rows = _parts(f)
    own, other, one = rows["fusion"], rows["fusion, any predictor"], rows.get("predictor")
    first = "" if one is None else f"with one source, {effect('the predictor', one)} against kNN; "
    last = f"; {record}" if record else ""
    beside = f", and {effect('fusion', other)}, against the best one under any predictor"
    if (own[["gain", "reference"]] == other[["gain", "reference"]]).all():
        beside = ", which is the best under any predictor too"
    top, better = f.gains.iloc[0], int((f.gains["verdict"] == "better").sum())
    return tell(
        "fusion.line", kind=kind, label=f.every.label, own=own, first=first, beside=beside,
        effect=effect("fusion", own), n=len(f.gains), better=better or "none", top=top, last=last,
        verb=plural(better or 1, "is", "are"),
    )  # fmt: skip


def by_line_text(lines: pd.DataFrame, gains: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Lay the gains of each line out, one column per line: the score, and its gain."""
    lines = lines.assign(text=[f"{r['value']:.3f}: {gain_said(r)}" for _, r in lines.iterrows()])
    wide = lines.pivot(index="method", columns="cell_line", values="text").loc[gains["method"]]
    first = lines.groupby("cell_line")["reference"].first().map("{:.3f}".format)
    wide = pd.concat([first.rename(reference).to_frame().T, wide])
    return wide.rename_axis(columns=None).reset_index(names="method")


def learnt(f: FusionScores) -> pd.DataFrame:
    """Mean weight of each source in each fusion that weighs them; one column per fusion."""
    wide = f.weights.pivot_table(index="source", columns="method", values="weight", aggfunc="mean")
    order = wide.mean(axis=1).sort_values(ascending=False).index
    return wide.loc[order].rename_axis(columns=None).rename_axis("source").reset_index()


def ablation_table(ablation: pd.DataFrame, higher_is_better: bool) -> pd.DataFrame:
    """Score of the summed kernels with each source alone and without it, the most missed first."""
    mean = ablation.groupby(["kind", "source"])["value"].mean()
    table = pd.DataFrame({"alone": mean["alone"], "without": mean["without"]}).rename_axis("source")
    table["all"] = float(mean["all", ""])
    table["lost"] = (table["all"] - table["without"]) * (1 if higher_is_better else -1)
    return table.reset_index().sort_values("lost", ascending=False, ignore_index=True)


def growth(ablation: pd.DataFrame) -> pd.DataFrame:
    """Score against the number of sources, added greedily: mean over the folds of each line."""
    rows = ablation[ablation["kind"] == "greedy"]
    out = rows.groupby(["cell_line", "n_sources"], as_index=False)["value"].mean()
    out.attrs["folds"] = sorted(int(fold) for fold in rows["fold"].unique())
    return out


def growth_said(f: FusionScores, curve: pd.DataFrame, table: pd.DataFrame) -> str:
    """Say how the score grows with sources, and which one is missed most."""
    most, least, said = table.iloc[0], table.iloc[-1], ""
    if len(curve):
        mean = curve.groupby("n_sources")["value"].mean()
        best = int((f.every.sign * mean).idxmax())
        about = dict(folds=curve.attrs["folds"], label=f.every.label, n=mean.index[-1], best=best)
        said = tell("fusion.growth", first=mean.iloc[0], last=mean.iloc[-1], **about) + " "
    tail = ": leaving it out helps)" if least["lost"] < 0 else ")"
    lost = dict(most_lost=-most["lost"], least_lost=-least["lost"])
    return said + tell("fusion.missed", most=most, least=least, tail=tail, **lost)


def growth_figure(curve: pd.DataFrame, label: str) -> Figure:
    """Draw the score against the number of sources, one line per cell line and their mean."""
    mean = curve.groupby("n_sources", as_index=False)["value"].mean().assign(cell_line="mean")
    return curves(
        pd.concat([mean, curve]).assign(panel=""), "n_sources", "value", "cell_line", panel="panel",
        xlabel="Number of sources, the most useful first", ylabel=label, log=False,
    )  # fmt: skip
