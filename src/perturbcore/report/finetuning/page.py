"""What the chapter says of frozen and fine-tuned representations: tables, sentences, one figure."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from perturbcore.report.figures.style import colour, legend_of, marker
from perturbcore.report.finetuning.run import FineTuningRun
from perturbcore.report.text import listed, signed, tell

FROZEN = ("knn", "kernel", "lasso", "ridge")  # predictors that leave a representation as it is


def gains(run: FineTuningRun) -> pd.DataFrame:
    """Compare each use of a representation with kNN on it frozen, over all cell lines."""
    table = run.comparison.own_gains()
    trained = ~table["predictor"].isin(FROZEN)
    return table.assign(
        data=run.title,
        trained=trained,
        adapted=trained & ~table["predictor"].astype(str).str.startswith("frozen"),
    )


def answer(run: FineTuningRun) -> str:
    """Say what each adaptation gains over kNN on the same representation, and what is best."""
    c, table, said = run.comparison, gains(run), []
    beside = {"better": "It beats the Train Mean.", "worse": "It is worse than the Train Mean."}
    for row in table[table["adapted"]].itertuples():
        floor = c.between(row.method, c.floor)["verdict"]
        told = beside.get(floor, "It cannot be told apart from the Train Mean.")
        about: dict = dict(label=c.label, gain=_gain_said(row), beside=told)
        said.append(tell("finetuning.adapted", row=row, **about))
    said = said or [tell("finetuning.nothing", title=run.title)]
    ties, rest = c.ties(), "all others are distinguishably worse."
    rest = f"{listed(ties)} cannot be told apart from it." if ties else rest
    about = dict(n=len(c.competitors), best=c.best, label=c.label, value=c.means[c.best])
    said.append(tell("finetuning.best", title=run.title, rest=rest, **about))
    return "\n\n".join(filter(None, [*said, c.mask_said()]))


def _gain_said(row) -> str:
    """Write a gain with its interval and verdict."""
    told = {"better": "better", "worse": "worse"}.get(row.verdict, "not told apart")
    interval = f"95 % interval {signed(row.low)} to {signed(row.high)}"
    return f"{signed(row.gain)} ({interval}): {told}"


def surprises(run: FineTuningRun) -> str:
    """Set the adaptation of a network beside its head alone, and beside other predictors on it."""
    c, said = run.comparison, []
    for name, rows in gains(run).groupby("embedding", sort=False):
        for best in rows[rows["adapted"]].head(1).itertuples():
            for head in rows[rows["trained"] & ~rows["adapted"]].itertuples():
                beyond = _gain_said(c.between(best.method, head.method))
                who = dict(name=name, head=head, best=best)
                said.append(tell("finetuning.head", beyond=beyond, **who))
            for plain in rows[~rows["trained"]].head(1).itertuples():
                beyond = _gain_said(c.between(best.method, plain.method))
                about = dict(beyond=beyond, times=_times(best.seconds, plain.seconds))
                said.append(tell("finetuning.plain", name=name, plain=plain, best=best, **about))
    return "\n\n".join(said) or f"On {run.title}, nothing was adapted."


def one_line(runs: Sequence[FineTuningRun]) -> str:
    """Condense the answer to one sentence."""
    tables = [gains(run) for run in runs]
    adapted = pd.concat(tables).query("adapted")
    if adapted.empty:
        return tell("finetuning.frozen", best=runs[0].comparison.best)
    n, up, down = len(adapted), *((adapted["verdict"] == v).sum() for v in ("better", "worse"))
    run, table = next((r, t) for r, t in zip(runs, tables, strict=True) if t["adapted"].any())
    own = table[table["adapted"]]
    graphs = own[own["modality"] != "Expression"]
    top = (graphs if len(graphs) else own).iloc[0]
    about = dict(rest=n - up - down, top=top, label=run.comparison.label)
    said = tell("finetuning.line", n=n, up=up, down=down, **about)
    plain = table[(table["embedding"] == top["embedding"]) & ~table["trained"]]
    if len(plain):
        said += tell("finetuning.smoother", row=plain.iloc[0])
    return said + "."


def gain_figure(runs: Sequence[FineTuningRun]) -> Figure:
    """Draw the gain over frozen kNN, one panel per data set, one row per use, best on top."""
    drawn = [(run, table) for run in runs if len(table := gains(run))]
    if not drawn:
        figure = Figure(figsize=(7.4, 1.0))
        figure.text(0.5, 0.5, "Nothing could be adapted in this profile.", ha="center", va="center")
        return figure
    sizes = [len(table) for _, table in drawn]
    figure = Figure(figsize=(7.4, 0.32 * sum(sizes) + 1.1 * len(drawn) + 0.2), layout="constrained")
    axes = figure.subplots(len(drawn), squeeze=False, height_ratios=sizes)[:, 0]
    for axis, (run, rows) in zip(axes, drawn, strict=True):
        axis.axvline(0, color=colour("Negative control"), ls="--", lw=1, zorder=0)
        for y, row in enumerate(rows.itertuples()):
            c = colour(row.modality)
            axis.hlines(y, row.low, row.high, color=c, lw=2.2, alpha=0.6)
            inside = c if row.trained else "white"
            axis.plot(row.gain, y, marker=marker(row.modality), color=inside, ms=7, mec=c, mew=1.2)
        axis.set_yticks(range(len(rows)), rows["method"])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_title(run.title, loc="left")
        label = run.comparison.label
        axis.set_xlabel(f"Gain in {label} over kNN on the same representation (right is better)")
        axis.grid(axis="x", color="#dddddd", lw=0.6)
        axis.tick_params(axis="y", length=0)
    legend_of(figure, pd.concat([table for _, table in drawn])["modality"])
    return figure


def setting(runs: Sequence[FineTuningRun]) -> str:
    """Say what is compared on what, and what could not be, and why."""
    said = []
    for run in runs:
        c = run.comparison
        names = list(dict.fromkeys(c.methods.loc[c.competitors, "embedding"]))
        about = dict(n=len(names), names=", ".join(names), label=c.label)
        lines = c.scores["cell_line"].nunique()
        said.append(tell("finetuning.setting", title=run.title, lines=lines, **about))
        said += run.without
        if run.absent:
            said.append(f"Not at hand for this data set: {', '.join(run.absent)}.")
    return "\n\n".join(said)


def networks(runs: Sequence[FineTuningRun]) -> pd.DataFrame:
    """List the pretrained networks once, whatever the data set."""
    return pd.concat([r.networks for r in runs], ignore_index=True).drop_duplicates("embedding")


def joined(runs: Sequence[FineTuningRun]) -> pd.DataFrame:
    """Put the gains on several data sets into one table, with a column `beats`."""
    table = pd.concat([gains(run) for run in runs], ignore_index=True)
    return table.assign(beats=table["verdict"] == "better")


def _times(seconds: float, other: float) -> str:
    """Say how much longer or shorter one takes than the other."""
    ratio = seconds / max(other, 1e-6)
    if 0.67 < ratio < 1.5:
        return "about as long"
    return f"{ratio:,.0f} times as long" if ratio >= 10 else f"{ratio:.1f} times as long"
