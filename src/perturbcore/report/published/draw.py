"""Published figures in the book's look, and their place on a page."""

import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.data.published.tables import POSITIVE, PRIMARY, Published, facts
from perturbcore.report import figures, pages
from perturbcore.report.figures.style import colour, marker
from perturbcore.report.published.figures import FIGURES, FigureData, at_hand, figure_data
from perturbcore.report.text import HEADINGS, listed, percent, tell

AXIS = HEADINGS["axes of published figures"]
METRIC_NAMES = HEADINGS["published metrics"]


def draw(data: FigureData) -> Figure:
    """Draw one published figure."""
    spec = data.spec
    if spec.kind == "rank":
        ranks = data.scores.rename(columns={"value": "rank"})
        return figures.rank_plot(ranks, order=data.order[::-1], label="Rank of L2 (1 is best)")
    if spec.kind == "scatter":
        return figures.metric_scatter(data.scores, "L2", list(spec.panels))
    if spec.kind == "bars":
        return _held_out(data)
    panels = [p for p in spec.panels if p in set(data.scores["cell_line"])]
    look = dict(label=AXIS[spec.metric], order=data.order[::-1], panels=panels)
    return figures.box_by_method(data.scores, spec.metric, fusion=spec.section == "fusion", **look)


def _held_out(data: FigureData) -> Figure:
    """Draw the mean over held-out lines with a point per line, one panel per metric."""
    order = data.order[::-1]
    figure = Figure(figsize=(8.2, 0.36 * len(order) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(data.spec.panels), sharey=True, squeeze=False)[0]
    for axis, metric in zip(axes, data.spec.panels, strict=True):
        table = data.medians(metric)
        for y, method in enumerate(order):
            values, c = table[method].to_numpy(), colour(data.modality[method])
            axis.barh(y, values.mean(), height=0.6, color=c, alpha=0.3, edgecolor=c, lw=0.8)
            axis.plot(values, np.full(len(values), y), ls="", ms=4, color=c, mec="white", mew=0.4,
                      marker=marker(data.modality[method]))  # fmt: skip
            axis.annotate(f"{values.mean():.3f}", (values.max(), y), xytext=(5, 0), fontsize=8.5,
                          textcoords="offset points", va="center")  # fmt: skip
        axis.set_xlim(0, 1.25 * float(table.to_numpy().max()))
        axis.set_xlabel(AXIS[metric], fontsize=8)
        axis.set_yticks(range(len(order)), order)
        axis.tick_params(axis="y", length=0)
    return figure


def caption(data: FigureData) -> str:
    """Say what is drawn: title, points, boxes, reference lines."""
    spec = data.spec
    label = f"Cole et al. 2026, Figure {data.figure}: {spec.title}."
    if spec.kind == "bars":
        return f"{label} {tell('published.bars')}"
    if spec.kind == "rank":
        n = "20 folds" if data.level == "folds" else "the published median only"
        return f"{label} {tell('published.ranks', n=n)}"
    points = "Points are folds." if data.level == "folds" else tell("published.medians")
    if spec.kind == "scatter":
        return f"{label} {points}"
    if spec.dataset == "tahoe":
        points += f" {tell('published.tahoe')}"
    best = "fusion" if spec.section == "fusion" else "method that is neither control nor fusion"
    return f"{label} {points} {tell('published.lines', best=best)}"


def _describe_box(data: FigureData) -> str:
    """Give the best single method of each line, and how far it and the fusions go."""
    medians, lower = data.medians(), data.spec.lower_is_better
    modality = data.modality[medians.columns]
    single = medians.columns[~modality.str.endswith("control") & (modality != "Fusion")]
    signed = data.better(medians)
    best, value = signed[single].idxmax(axis=1), signed[single].max(axis=1)
    floor, limit = signed["Train Mean"], signed["Experimental Error"]
    ahead = signed[single].gt(floor, axis=0).sum(axis=1)
    share = ((value - floor) / (limit - floor)).where(limit > floor)
    parts = []
    for i, line in enumerate(medians.index):
        inside = tell("published.no_gap")
        if pd.notna(share[line]):
            of = "" if i else " of the gap from Train Mean to experimental error"
            inside = f"{percent(share[line])}{of}"
        if len(single) > 1:
            side = "" if i else f" {'below' if lower else 'above'} Train Mean"
            inside += f"; {ahead[line]} of {len(single)}{side}"
        where = f"{line} " if len(medians) > 1 else ""
        parts.append(f"{where}{best[line]} {abs(value[line]):.3f} ({inside})")
    name = METRIC_NAMES.get(data.spec.metric, data.spec.metric)
    text = (
        f"{'Lowest' if lower else 'Highest'} median {name} of a single method: {', '.join(parts)}"
    )
    for fusion in medians.columns[modality == "Fusion"]:
        closed = (signed[fusion] - floor) / (limit - floor)
        lines = [(f"{line} " if len(closed) > 1 else "") + percent(v) for line, v in closed.items()]
        text += ("; " if "closes" in text else ". ") + f"{fusion} closes {', '.join(lines)}"
    return text + "."


def _describe_ranks(data: FigureData) -> str:
    ranks = data.scores.groupby("display")["value"].median()
    ranks = ranks[data.modality[ranks.index] != POSITIVE].sort_values()
    prior = int((data.modality[ranks.index[:10]] == "Prior knowledge").sum())
    first = listed(f"{d} ({ranks[d]:g})" for d in ranks.index[:3])
    return tell("published.best_ranks", first=first, prior=prior)


def _describe_scatter(data: FigureData) -> str:
    rows = data.scores.pivot_table(index=["display", "fold"], columns="metric", values="value")
    rho = rows.corr("spearman")["L2"]
    kind = "points" if data.level == "folds" else "medians"
    each = ", ".join(f"{m} {rho[m]:.3f}" for m in data.spec.panels)
    return tell("published.scatter", n=len(rows), kind=kind, each=each)


def _describe_bars(data: FigureData) -> str:
    parts = []
    for metric in data.spec.panels:
        mean = data.medians(metric).mean()
        best = mean.idxmin() if metric == "mae" else mean.idxmax()
        state = f"{mean[best]:.3f}, STATE {mean['STATE']:.3f}"
        parts.append(f"{METRIC_NAMES[metric]} {best} ({state})")
    n = len(data.medians(data.spec.panels[0]))
    return tell("published.best_bars", n=n, each="; ".join(parts))


def describe(data: FigureData) -> str:
    """Say in one computed sentence what a published figure shows."""
    kinds = {"box": _describe_box, "rank": _describe_ranks, "scatter": _describe_scatter}
    return kinds.get(data.spec.kind, _describe_bars)(data)


def not_drawn(published: Published) -> pd.DataFrame:
    """Figures that cannot be redrawn from these scores: figure, title, missing."""
    missing = [(n, s) for n, s in FIGURES.items() if not at_hand(n, published)]
    rows = [(f"Figure {n}", s.title, s.missing) for n, s in missing]
    return pd.DataFrame(rows, columns=["figure", "title", "missing"])


def figure_table(data: FigureData) -> pd.DataFrame:
    """Numbers behind a figure: medians over folds (bars: means), one row per method."""
    if data.spec.kind == "rank":
        values = data.scores.groupby("display")["value"].median().to_frame("median rank")
        values = values.reindex(data.order[::-1])
    elif data.spec.kind in ("bars", "scatter"):
        metrics = data.spec.panels if data.spec.kind == "bars" else ("L2", *data.spec.panels)
        values = pd.DataFrame({m: data.medians(m).mean() for m in metrics})
    else:
        values = data.medians().T
    out = values.rename_axis("method").rename_axis(columns=None).reset_index()
    out.insert(1, "modality", list(data.modality[values.index]))
    return out


def bendidi_table(number: int) -> pd.DataFrame:
    """Table 2 of Bendidi et al. 2024, one column per model, or one of its Tables 3 to 10."""
    if number == 2:
        rows, columns = facts("bendidi2024_table2"), "model"
        index = ["dataset", "task_name", "metric"]
    else:
        rows = facts("bendidi2024_tables3_10").query("table == @number")
        percents = rows["metric"].where(rows["unit"] != "percent", rows["metric"] + " (%)")
        value = rows["mean"].map("{:.3f}".format) + " ± " + rows["sd"].map("{:.3f}".format)
        rows = rows.assign(value=value, metric=percents)
        index, columns = ["dataset", "model", "postprocessing"], "metric"
    wide = rows.pivot_table("value", index, columns, aggfunc="first", sort=False)
    return wide.rename_axis(columns=None).reset_index()


def csendes_table() -> pd.DataFrame:
    """Pearson delta of Csendes et al. 2025: one row per model and source, data sets as columns."""
    rows = facts("csendes2025").query("metric == 'pearson_delta' and subgroup == 'all'")
    index = ["source", "model", "feature"]
    wide = rows.pivot_table("value", index, "dataset", aggfunc="first", sort=False)
    return wide.rename_axis(columns=None).reset_index()


def every_model(published: Published) -> pd.DataFrame:
    """Give the gain of every published model over the floor, in per cent of it.

    Returns data (with its task), predictor, display, modality, and value and gain: medians over
    folds, averaged over cell lines. The floor of classes is the most frequent one.
    """
    rows = published.scores
    rows = rows[(rows["metric"] == rows["task"].map(PRIMARY)) & rows["modality"].notna()]
    rows = rows[(rows["perturbation_set"] == "full") & (rows["cell_line"] != "4 lines")]
    place, name = ["dataset", "task", "cell_line"], ["predictor", "display", "modality"]
    found = rows.groupby([*place, *name], sort=False)["value"].median().reset_index()
    floor = (
        found[found["predictor"].isin(["train_mean", "most_frequent"])]
        .groupby(place)["value"]
        .first()
    )
    at = floor.reindex(pd.MultiIndex.from_frame(found[place])).to_numpy()
    found["gain"] = np.where(found["task"] == "lfc", -100, 100) * (found["value"] / at - 1)
    found["data"] = found["dataset"].str.capitalize() + ", " + found["task"].str.upper()
    found = found[~found["modality"].str.endswith("control")]
    means = found.groupby(["data", *name], sort=False)[["value", "gain"]].mean()
    return means.dropna().reset_index()


def page(data: FigureData, chapter: str, name: str) -> str:
    """Write a figure as MyST: the sentence, the figure with caption and alt text, the table."""
    sentence, about = describe(data), dict(chapter=chapter, name=name, figure=data.figure)
    about |= dict(label=f"fig-{chapter}-{name}".replace("_", "-"), caption=caption(data))
    table = markdown_table(figure_table(data))
    return tell("published.page", plain=plain(sentence), sentence=sentence, table=table, **about)


def present(chapter, published: Published, *names: str) -> None:
    """Draw figures ("1", "S4") on the page of a chapter; without those not at hand."""
    for figure in names:
        if at_hand(figure, published):
            data = figure_data(figure, published)
            name = f"cole2026-{figure.lower()}"
            chapter.save_figure(draw(data), name)
            chapter.save_table(figure_table(data), name)
            pages.say(page(data, chapter.name, name))


def plain(text: str) -> str:
    """Escape what Markdown would take for markup."""
    return re.sub(r"([\\_*|<>\[\]`$])", r"\\\1", text)


def markdown_table(table: pd.DataFrame) -> str:
    """Write a table in Markdown, numbers with three decimals."""
    cells = table.map(lambda v: f"{v:.3f}" if isinstance(v, float) else plain(str(v)))
    cells = cells.replace("nan", "")
    rows = [list(table.columns), ["---"] * table.shape[1], *cells.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
