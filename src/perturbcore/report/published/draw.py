"""Published figures in the book's look, and their place on a page."""

import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from perturbcore.data.published.tables import Published
from perturbcore.report.published.figures import FigureData, figure_data
from perturbcore.report.published.sentences import describe, figure_table

AXIS = {
    "L2": "L2 error (lower is better)",
    "f1_score": "Macro F1 (higher is better)",
    "discrimination_score_l1": "Discrimination (higher is better)",
    "overlap_at_N": "Overlap of DE genes (higher is better)",
    "mae": "Mean absolute error (lower is better)",
}


def draw(data: FigureData) -> Figure:
    """Draw one published figure.

    Parameters
    ----------
    data : FigureData
        As `figure_data` returns.

    Returns
    -------
    matplotlib.figure.Figure
        Points are folds; where only medians are at hand, one point a method and line.
    """
    from perturbcore.report import figures

    spec = data.spec
    if spec.kind == "rank":
        ranks = data.scores.rename(columns={"value": "rank"})
        return figures.rank_plot(ranks, order=data.order, label="Rank of L2 (1 is best)")
    if spec.kind == "scatter":
        return figures.metric_scatter(data.scores, "L2", list(spec.panels))
    if spec.kind == "bars":
        return _held_out(data)
    panels = [p for p in spec.panels if p in set(data.scores["cell_line"])]
    return figures.box_by_method(
        data.scores,
        spec.metric,
        lower_is_better=spec.lower_is_better,
        label=AXIS[spec.metric],
        order=data.order,
        panels=panels,
        lines=data.lines,
        columns=min(2, len(panels)),
    )


def _held_out(data: FigureData) -> Figure:
    """Draw the mean over held-out lines with a point a line, one panel a metric."""
    from perturbcore.report.figures.style import colour, marker

    modality = data.scores.drop_duplicates("display").set_index("display")["modality"]
    order = data.order[::-1]
    figure = Figure(figsize=(8.2, 0.36 * len(order) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(data.spec.panels), sharey=True, squeeze=False)[0]
    for axis, metric in zip(axes, data.spec.panels, strict=True):
        table = data.medians(metric)
        for y, method in enumerate(order):
            values, c = table[method].to_numpy(), colour(modality[method])
            axis.barh(y, values.mean(), height=0.6, color=c, alpha=0.3, edgecolor=c, lw=0.8)
            axis.plot(values, np.full(len(values), y), ls="", marker=marker(modality[method]), ms=4,
                      color=c, mec="white", mew=0.4)  # fmt: skip
            axis.annotate(f"{values.mean():.3f}", (values.max(), y), xytext=(5, 0), fontsize=7,
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
    points = {
        "folds": "Points are folds.",
        "medians": "Points are published medians over folds; the folds are not at hand.",
    }[data.level]
    if spec.kind == "bars":
        return f"{label} Bars are means over held-out cell lines, points the lines."
    if spec.kind == "scatter":
        return f"{label} {points}"
    if spec.kind == "rank":
        n = "20 folds" if data.level == "folds" else "the published median only"
        return f"{label} Ranks of L2 within a fold, controls included ({n})."
    if spec.dataset == "tahoe":
        points += " Values are averaged over 45 cell lines within a fold."
    best = (
        "fusion"
        if spec.section == "fusion"
        else "method that is neither positive control nor fusion"
    )
    return (
        f"{label} {points} Dashed lines: medians of Train Mean, of the experimental error and of the "
        "best "
        f"{best}."
    )


def page(data: FigureData, chapter: str, name: str) -> str:
    """Write a figure as MyST: the sentence, the figure with caption and alt text, the table.

    Parameters
    ----------
    data : FigureData
        What is drawn.
    chapter : str
        Name of the chapter, whose folders hold `<name>.svg` and `<name>.csv`.
    name : str
        Stem of both files; the figure has the label `fig-<chapter>-<name>`, with hyphens only.

    Returns
    -------
    str
        For a cell with the metadata ``mystnb={"markdown_format": "myst"}``.
    """
    sentence = describe(data)
    table = figure_table(data)
    numbers = markdown_table(table)
    return "\n".join(
        [
            plain(sentence),
            "",
            f":::{{figure}} figures/{chapter}/{name}.svg",
            f":name: fig-{chapter}-{name}".replace("_", "-"),
            f":alt: {caption(data)} {sentence}",
            "",
            caption(data),
            ":::",
            "",
            f"::::{{dropdown}} The numbers of Figure {data.figure}",
            numbers,
            "",
            f"[Download as CSV](tables/{chapter}/{name}.csv)",
            "::::",
            "",
        ]
    )


def present(chapter, published: Published, *figures: str) -> None:
    """Draw figures on the page of a running chapter, each with its sentence and its table.

    Parameters
    ----------
    chapter : perturbcore.book.inside.OpenChapter
        Where files go.
    published : Published
        The published scores.
    *figures : str
        Such as "1", "S4".
    """
    from IPython.display import Markdown, display

    for figure in figures:
        data = figure_data(figure, published)
        name = f"cole2026-{figure.lower()}"
        chapter.save_figure(draw(data), name)
        chapter.save_table(figure_table(data), name)
        display(Markdown(page(data, chapter.name, name)))


def plain(text: str) -> str:
    """Escape what Markdown would take for markup."""
    return re.sub(r"([\\_*|<>\[\]`$])", r"\\\1", text)


def markdown_table(table: pd.DataFrame) -> str:
    """Write a table in Markdown, numbers with three decimals."""
    cells = table.map(lambda v: f"{v:.3f}" if isinstance(v, float) else plain(str(v)))
    cells = cells.replace("nan", "")
    rows = [list(table.columns), ["---"] * table.shape[1], *cells.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
