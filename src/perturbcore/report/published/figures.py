"""Which rows, in which order, with which reference lines, each figure of Cole et al. 2026 shows.

Only the choice is made here; `figures.yml` says what a figure shows, and `draw` draws it.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd

from perturbcore.core.errors import ParameterError, check_choice
from perturbcore.core.files import read_yaml
from perturbcore.data.published.tables import (
    LINES,
    METRICS,
    NEGATIVE,
    POSITIVE,
    Published,
    methods_of,
    without_line,
)

ALL_TAHOE = "mean of 45 lines"
# models of Figure S14 with two published runs each, and what these are called in the tables
RUNS = {"Latent Diffusion": "Diffusion", "Schrödinger Bridge": "Schrodinger"}


@dataclass(frozen=True)
class FigureSpec:
    """What one published figure shows."""

    kind: str
    title: str
    dataset: str = "essential"
    task: str = "lfc"
    section: str = ""
    head: str = "knn"
    panels: tuple[str, ...] = ()
    metric: str = "L2"
    perturbation_set: str = "full"
    missing: str = ""

    @property
    def rank_metric(self) -> str:
        """Name of the metric of a rank plot: kNN and lasso rows are ranked separately."""
        return f"rank_{self.metric}_{self.head}"

    @property
    def lower_is_better(self) -> bool:
        """Whether smaller values of the metric are better."""
        return self.metric in ("L2", "MSE", "MAE", "mae")


FIGURES = {
    number: FigureSpec(**{"panels": LINES.get(entry.get("dataset", "essential"), ())} | entry)
    for number, entry in read_yaml(Path(__file__).with_name("figures.yml")).items()
}


@dataclass(frozen=True)
class FigureData:
    """The data behind one published figure, ready to draw.

    For rank plots the `value` of a score is the rank (metric "rank_L2_knn" or "rank_L2_lasso"; 1
    is best).
    """

    figure: str
    spec: FigureSpec
    scores: pd.DataFrame  # the rows drawn; display and modality are those of the figure
    order: list[str]  # display names from top to bottom
    level: str  # whether points are "folds" or published "medians"

    @property
    def modality(self) -> pd.Series:
        """Modality of every method, in the order of the figure."""
        return self.scores.drop_duplicates("display").set_index("display")["modality"][self.order]

    def select(self, *wanted: str) -> list[str]:
        """Methods of the figure: names, patterns ("GenePT*"), "modality: DNA", or "single"."""
        out = []
        for one in wanted:
            if one == "single":
                other = (NEGATIVE, POSITIVE, "Fusion", "Advanced")
                out += list(self.modality.index[~self.modality.isin(other)])
            elif one.startswith("modality: "):
                out += list(self.modality.index[self.modality == one.removeprefix("modality: ")])
            elif "*" in one:
                out += [d for d in self.order if fnmatchcase(d, one)]
            else:
                out.append(one)
        return out

    def better(self, values: Any) -> Any:
        """Sign a Series or DataFrame so that larger is better."""
        return -values if self.spec.lower_is_better else values

    def medians(self, metric: str | None = None) -> pd.DataFrame:
        """Median over folds: cell lines x methods, in the order of the figure."""
        return self._pivot("median", metric)

    def means(self, metric: str | None = None) -> pd.DataFrame | None:
        """Mean over folds, or None where only medians are at hand."""
        return None if self.level == "medians" else self._pivot("mean", metric)

    def folds(self, metric: str | None = None) -> pd.DataFrame | None:
        """(cell line, fold) x methods on the lines drawn; None where only medians are at hand."""
        if self.level == "medians":
            return None
        rows = self._rows(metric)
        drawn = rows["cell_line"].isin(self.spec.panels)
        rows = rows[drawn] if drawn.any() else rows
        wide = rows.pivot(index=["cell_line", "fold"], columns="display", values="value")
        return wide[[d for d in self.order if d in wide]]

    def _rows(self, metric: str | None) -> pd.DataFrame:
        metric = metric or (self.spec.rank_metric if self.spec.kind == "rank" else self.spec.metric)
        return self.scores[self.scores["metric"] == metric]

    def _pivot(self, how: str, metric: str | None) -> pd.DataFrame:
        wide = self._rows(metric).groupby(["cell_line", "display"])["value"].agg(how).unstack()
        rows = [p for p in self.spec.panels if p in wide.index] or list(wide.index)
        return wide.loc[rows, [d for d in self.order if d in wide]]


def _one_run_per_line(scores: pd.DataFrame) -> pd.DataFrame:
    """Give the runs that Figure S14 shows for each line the row names of the figure."""
    line, method = scores["cell_line"], scores["method"]
    run = line.map(lambda x: "V1" if x in ("K-562", "hTERT-RPE1") else "R2")
    first = (line == "K-562") & (scores["fold"] == 1)
    bridge = ((method == "Schrodinger_V1") & first) | ((method == "Schrodinger_R2") & ~first)
    out = scores.copy()
    out.loc[method == "Diffusion_" + run, "method"] = "Latent Diffusion"
    out.loc[bridge, "method"] = "Schrödinger Bridge"
    return out


def _select(published: Published, spec: FigureSpec) -> pd.DataFrame:
    scores = published.scores
    keys = ["dataset", "task", "perturbation_set"]
    rows = scores[(scores[keys] == [getattr(spec, key) for key in keys]).all(axis=1)]
    if spec.section == "advanced_methods" and published.level == "folds":
        rows = _one_run_per_line(rows)
    if spec.task == "cross_context":
        return rows
    methods = methods_of(spec.section, head=spec.head)
    methods["key"] = [without_line(m, "K-562") for m in methods["method"]]
    names = rows[["method", "cell_line"]].drop_duplicates()
    names["key"] = [without_line(m, c) for m, c in names.itertuples(index=False)]
    names = names.merge(methods[["key", "display", "modality", "order"]], on="key")
    rows = rows.drop(columns=["display", "modality"]).merge(names, on=["method", "cell_line"])
    if spec.dataset == "tahoe" and published.level == "folds":
        keys = [c for c in rows.columns if c not in ("cell_line", "value")]
        rows = rows.groupby(keys, as_index=False, dropna=False)["value"].mean()
        rows["cell_line"] = ALL_TAHOE
    return rows


def at_hand(figure: str, published: Published) -> bool:
    """Whether a figure can be drawn from these scores; S5 and S6 need tables of their own."""
    spec, scores = FIGURES[figure], published.scores
    if not spec.missing:
        return True
    there = (scores["dataset"] == spec.dataset) & (scores["task"] == spec.task)
    return bool(spec.section) and bool(there.any())


def figure_data(figure: str, published: Published) -> FigureData:
    """Choose the rows of one figure of Cole et al. 2026 ("1" to "5", "S1" to "S14")."""
    spec = FIGURES[check_choice("figure", figure, FIGURES)]
    if not at_hand(figure, published):
        raise ParameterError(f"Figure {figure}: {spec.missing}")
    rows = _select(published, spec)
    if spec.kind == "bars":
        order = list(dict.fromkeys(rows["display"]))
        return FigureData(figure, spec, rows, order, published.level)
    order = list(rows.sort_values("order")["display"].drop_duplicates())
    if spec.kind == "box":
        rows = rows[rows["metric"] == spec.metric]
    elif spec.kind == "rank":
        medians = published.level == "medians"
        rows = rows[rows["metric"] == (spec.rank_metric if medians else spec.metric)].copy()
        if not medians:
            rows["value"] = rows.groupby(["cell_line", "fold"])["value"].rank()
        rows["metric"] = spec.rank_metric
        medians = rows.groupby("display")["value"].median()
        order = list(medians.sort_values(ascending=False, kind="stable").index)
    elif spec.kind == "scatter":
        controls = rows["modality"].isin((POSITIVE, NEGATIVE))
        rows = rows[
            (rows["cell_line"] == "K-562") & ~controls & rows["metric"].isin(METRICS["lfc"])
        ]
        order = [d for d in order if d in set(rows["display"])]
    rows = rows.drop(columns=["key", "order"]).reset_index(drop=True)
    return FigureData(figure, spec, rows, order, published.level)
