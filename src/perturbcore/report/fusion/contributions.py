"""What the chapter says of single sources within a fusion: weights, ablation, growth."""

import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.figures.style import colour
from perturbcore.report.fusion.contest import Contest
from perturbcore.report.sentences import signed
from perturbcore.score.metrics.registry import metric as find_metric

ABLATION_COLUMNS = {
    "source": "Source",
    "alone": "Alone",
    "without": "All but it",
    "all": "All",
    "lost": "Lost without it",
}


def learnt(contest: Contest) -> pd.DataFrame:
    """Mean weight of each source in each fusion that weighs them; one column a fusion."""
    wide = contest.weights.pivot_table(
        index="source", columns="method", values="weight", aggfunc="mean"
    )
    if not len(wide):
        return pd.DataFrame(columns=["source"])
    return (
        wide.loc[wide.mean(axis=1).sort_values(ascending=False).index]
        .rename_axis(columns=None)
        .reset_index()
    )


def ablation_table(ablation: pd.DataFrame) -> pd.DataFrame:
    """Score of the summed kernels with each source alone and without it, mean over lines and folds.

    Returns
    -------
    pandas.DataFrame
        source, alone, without, lost (how much worse the fusion is without it), in the order of `lost`.
    """
    mean = ablation[ablation["kind"] != "greedy"].groupby(["kind", "source"])["value"].mean()
    every = float(mean.loc[("all", "")])
    table = pd.DataFrame({"alone": mean.loc["alone"], "without": mean.loc["without"]}).rename_axis(
        "source"
    )
    return table.assign(all=every).reset_index()


def lost(table: pd.DataFrame, higher_is_better: bool) -> pd.DataFrame:
    """Add how much worse the fusion is without each source; the most missed first."""
    sign = 1.0 if higher_is_better else -1.0
    out = table.assign(lost=sign * (table["all"] - table["without"]))
    return out.sort_values("lost", ascending=False, ignore_index=True)


def growth(ablation: pd.DataFrame) -> pd.DataFrame:
    """Score against the number of sources, added greedily: mean over lines and folds, and which came first."""
    rows = ablation[ablation["kind"] == "greedy"]
    out = rows.groupby(["cell_line", "n_sources"], as_index=False)["value"].mean()
    out.attrs["folds"] = sorted(int(f) for f in rows["fold"].unique())
    return out


def growth_said(curve: pd.DataFrame, table: pd.DataFrame, metric: str) -> str:
    """Say how the score grows with sources, and which one is missed most."""
    m = find_metric(metric)
    mean = curve.groupby("n_sources")["value"].mean()
    best = int(mean.idxmax() if m.higher_is_better else mean.idxmin())
    most, least = table.iloc[0], table.iloc[-1]
    folds = curve.attrs.get("folds", [])
    where = f"On fold {', '.join(str(f) for f in folds)}: one" if folds else "One"
    said = (
        f"{where} source chosen on training perturbations gives {m.label} {mean.iloc[0]:.3f}, all "
        f"{mean.index[-1]} give {mean.iloc[-1]:.3f}; the best mean is reached with {best}. Over all folds, most "
        f"missed is {most['source']} ({signed(-most['lost'])} without it)"
    )
    tail = f", least {least['source']} ({signed(-least['lost'])}"
    return said + tail + (": leaving it out helps)." if least["lost"] < 0 else ").")


def growth_figure(curve: pd.DataFrame, label: str) -> Figure:
    """Draw the score against the number of sources, one line a cell line and their mean."""
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axis = figure.subplots()
    for line, rows in curve.groupby("cell_line"):
        axis.plot(rows["n_sources"], rows["value"], color="#b0b0b0", lw=1)
        axis.annotate(str(line), (rows["n_sources"].iloc[-1], rows["value"].iloc[-1]), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=7.5, color="#666666")  # fmt: skip
    mean = curve.groupby("n_sources")["value"].mean()
    axis.plot(mean.index, mean, color=colour("Fusion"), lw=2.2, marker="o", ms=4)
    axis.annotate("mean", (mean.index[0], mean.iloc[0]), xytext=(-4, 6), textcoords="offset points",
                  ha="right", fontsize=8, color=colour("Fusion"))  # fmt: skip
    axis.set_xticks(list(mean.index))
    axis.set_xlim(mean.index[0] - 0.6, mean.index[-1] + 0.9)
    axis.set_xlabel("Number of sources, the most useful first")
    axis.set_ylabel(label)
    axis.grid(color="#e5e5e5", lw=0.6)
    return figure
