"""What the chapter says of fusions and single sources, beyond what every comparison says."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.figures.style import colour
from perturbcore.report.fusion.scores import FusionScores
from perturbcore.report.paired import PREDICTORS
from perturbcore.report.text import duration, listed, percent, signed

PART_COLUMNS = {
    "method": "Fusion",
    "plain": "One source, kNN",
    "reference": "One source, same predictor",
    "value": "All sources",
    "predictor_gain": "The predictor adds",
    "gain": "Fusion adds",
    "low": "95 % low",
    "high": "high",
    "p_holm": "p (Holm)",
    "verdict": "Verdict",
}
ABLATION_COLUMNS = {
    "source": "Source",
    "alone": "Alone",
    "without": "All but it",
    "all": "All",
    "lost": "Lost without it",
}
VERDICTS = {"tie": "they cannot be told apart", "undecidable": "one fold cannot tell them apart"}


def between(row: pd.Series) -> str:
    """Write a gain with its interval."""
    return f"{signed(row['gain'])} ({signed(row['low'])} to {signed(row['high'])})"


def setting(f: FusionScores) -> str:
    """Say what was fused."""
    names = list(dict.fromkeys(e.name for e in f.sources))
    rows = f.every.units
    lines, folds = (rows.index.get_level_values(n).nunique() for n in ("cell_line", "fold"))
    said = (
        f"{f.data.title}: {len(names)} sources ({', '.join(names)}), {len(f.fusions)} fusions, "
        f"{lines} cell lines, {folds} folds, scored by {f.every.label}."
    )
    return " ".join([said, *f.left_out])


def answer(f: FusionScores, folds_looked_at: Sequence[int] = ()) -> str:
    """Say what is best, what the predictor and what fusion adds, and whether a transformer is worth it.

    `folds_looked_at` are those in which settings were chosen: the main comparisons are repeated
    without them.
    """
    table, best = f.gains, f.gains.iloc[0]
    said = [
        f"**{best['method']}** does best of {len(table)} fusions: {f.every.label} "
        f"{best['value']:.3f} against {best['reference']:.3f} for the best of {len(f.singles)} single "
        f"sources and predictors ({f.best_single}, named after the fact), a gain of "
        f"{signed(best['gain'])} (95 % interval {signed(best['low'])} to {signed(best['high'])}; "
        f"ahead in {best['lines']} lines): {best['verdict']}.",
        parts_said(f),
        simple_or_deep(f),
        without_folds(f, folds_looked_at),
    ]
    worse = table.loc[table["gain"] < 0, "method"]
    if len(worse):
        said.append(f"Worse than the best single source on average: {', '.join(worse)}.")
    return "\n\n".join(text for text in said if text)


def parts_said(f: FusionScores) -> str:
    """Say what the predictor and what fusion adds for the best fusion that can be taken apart."""
    if f.parts.empty:
        return ""
    row = f.parts.iloc[0]
    predictor = f.every.methods.loc[row["against"], "predictor"]
    whole = row["gain"] + row["predictor_gain"]
    share = f" ({percent(row['gain'] / whole)} of the way)" if 0 < row["gain"] < whole else ""
    return (
        f"Predictor or fusion? One source, chosen on training perturbations, scores "
        f"{row['plain']:.3f} by kNN and {row['reference']:.3f} by the predictor of {row['method']} "
        f"({PREDICTORS.get(predictor, predictor)}); all sources score {row['value']:.3f} by it. So "
        f"the predictor adds {signed(row['predictor_gain'])}, and fusion {between(row)}{share}: "
        f"{row['verdict']}."
    )


def simple_or_deep(f: FusionScores) -> str:
    """Compare the best simple fusion with the best transformer; empty where one is missing."""
    deep = f.gains["predictor"] == "transformer"
    if deep.all() or not deep.any():
        return ""
    a, b = f.gains[~deep].iloc[0], f.gains[deep].iloc[0]
    one = f.every.between(a["method"], b["method"])
    told = VERDICTS.get(one["verdict"])
    winner = "the simple fusion" if one["gain"] > 0 else "the transformer"
    return (
        f"Simple or deep? The best simple fusion is {a['method']} ({a['value']:.3f}, "
        f"{duration(a['seconds'])} per fold and line), the best transformer {b['method']} "
        f"({b['value']:.3f}, {duration(b['seconds'])}): a difference of {between(one)}; "
        f"{told or f'{winner} is better'}."
    )


def without_folds(f: FusionScores, folds: Sequence[int]) -> str:
    """Repeat the comparisons of the transformer without some folds; empty where there is none."""
    deep = f.gains["predictor"] == "transformer"
    if not len(folds) or not deep.any():
        return ""
    rest, name = f.without(folds), f.gains.loc[deep, "method"].iloc[0]
    others = [f.best_single, *f.gains.loc[~deep, "method"].iloc[:1]]
    said = [f"{between(rest.between(name, other))} over {other}" for other in others]
    return (
        f"Settings of {name} were chosen with fold {listed(folds)} in view. On the other folds alone "
        f"its gain is {' and '.join(said)}."
    )


def one_line(f: FusionScores, record: str = "") -> str:
    """Condense the chapter to one sentence; `record` is a clause on the leaderboard."""
    best = f.gains.iloc[0]
    said = (
        f"{best['method']}: {f.every.label} {best['value']:.3f} against {best['reference']:.3f} for "
        f"the best single source under any predictor, {best['verdict']}"
    )
    if len(f.parts):
        row = f.parts.iloc[0]
        said += (
            f"; under the predictor of {row['method']} fusion adds {signed(row['gain'])} to one "
            f"source, {row['verdict']}"
        )
    return f"{said}; {record}." if record else f"{said}."


def by_line_text(f: FusionScores) -> pd.DataFrame:
    """Lay `FusionScores.lines` out with one column per line: the score, and the gain with its interval."""
    lines = f.lines
    text = [f"{row['value']:.3f}: {between(row)}" for _, row in lines.iterrows()]
    wide = lines.assign(text=text).pivot(index="method", columns="cell_line", values="text")
    first = lines.groupby("cell_line")["reference"].first().map("{:.3f}".format)
    wide = pd.concat([first.rename(f.best_single).to_frame().T, wide.loc[lines["method"].unique()]])
    return wide.rename_axis(columns=None).reset_index(names="method")


# ------------------------------------------------------------------------------------ sources


def learnt(f: FusionScores) -> pd.DataFrame:
    """Mean weight of each source in each fusion that weighs them; one column per fusion."""
    wide = f.weights.pivot_table(index="source", columns="method", values="weight", aggfunc="mean")
    order = wide.mean(axis=1).sort_values(ascending=False).index
    return wide.loc[order].rename_axis(columns=None).rename_axis("source").reset_index()


def ablation_table(ablation: pd.DataFrame, higher_is_better: bool) -> pd.DataFrame:
    """Score of the summed kernels with each source alone and without it, mean over lines and folds.

    Returns
    -------
    pandas.DataFrame
        source, alone, without, all, lost (how much worse the fusion is without it); the most missed
        first.
    """
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
    mean = curve.groupby("n_sources")["value"].mean()
    best = int((f.every.sign * mean).idxmax())
    most, least = table.iloc[0], table.iloc[-1]
    tail = ": leaving it out helps)." if least["lost"] < 0 else ")."
    return (
        f"On fold {listed(curve.attrs['folds'])}: one source chosen on training perturbations gives "
        f"{f.every.label} {mean.iloc[0]:.3f}, all {mean.index[-1]} give {mean.iloc[-1]:.3f}; the best "
        f"mean is reached with {best}. Over all folds, most missed is {most['source']} "
        f"({signed(-most['lost'])} without it), least {least['source']} ({signed(-least['lost'])}{tail}"
    )


def growth_figure(f: FusionScores, curve: pd.DataFrame) -> Figure:
    """Draw the score against the number of sources, one line per cell line and their mean."""
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axis = figure.subplots()
    look = {"textcoords": "offset points", "fontsize": 8}
    for line, rows in curve.groupby("cell_line"):
        axis.plot(rows["n_sources"], rows["value"], color="#b0b0b0", lw=1)
        end = (rows["n_sources"].iloc[-1], rows["value"].iloc[-1])
        axis.annotate(str(line), end, xytext=(4, 0), va="center", color="#666666", **look)
    mean = curve.groupby("n_sources")["value"].mean()
    axis.plot(mean.index, mean, color=colour("Fusion"), lw=2.2, marker="o", ms=4)
    start = (mean.index[0], mean.iloc[0])
    axis.annotate("mean", start, xytext=(-4, 6), ha="right", color=colour("Fusion"), **look)
    axis.set_xticks(list(mean.index))
    axis.set_xlim(mean.index[0] - 0.6, mean.index[-1] + 0.9)
    axis.set_xlabel("Number of sources, the most useful first")
    axis.set_ylabel(f.every.label)
    axis.grid(color="#e5e5e5", lw=0.6)
    return figure
