"""What the chapter on reproduction shows: the data it read, and its scores beside a reference."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from perturbcore.core.errors import InputError
from perturbcore.data.authors.layout import HOW_TO_GET, LAYOUTS, data_root, present
from perturbcore.data.authors.read import read_authors_responses
from perturbcore.data.published.tables import load_published
from perturbcore.report import figures
from perturbcore.report.reproduction import benchmark
from perturbcore.report.text import tell

SEEDS = (5050, 5051)  # of the experimental error: the published one, and another


class Files(NamedTuple):
    """Where the authors' data are, and what a page must say of them."""

    root: Path
    simulated: bool
    sentence: str


def find_data(datasets, root: str = "") -> Files:
    """Find the authors' data in `root`, else in ``PERTURBCORE_PAPER_DATA``, else in data/paper."""
    place = data_root(root or None)
    there = [d for d in present(place)[0] if d in datasets]
    if not there:
        raise InputError(f"{place}: none of the authors' data are there; {HOW_TO_GET}")
    read = (read_authors_responses(d, root=place) for d in there)
    simulated = any(r.uns["perturbcore"]["simulated"] for r in read)
    kind = "simulated files in their layout" if simulated else "authors' preprocessed data"
    return Files(place, simulated, f"Read from the {kind}: {', '.join(there)}.")


def choices() -> pd.DataFrame:
    """Where paper and published code differ or leave open, and the parameter that decides here."""
    return pd.read_csv(resources.files("perturbcore.report.reproduction") / "choices.csv")


def left_out(done: benchmark.Benchmark) -> str:
    """List what was left out, in a sentence and a closed list."""
    if not done.notes:
        return "Nothing of the layout is missing."
    lines = "\n".join(f"- {note}" for note in done.notes)
    return tell("reproduction.left_out", n=len(done.notes), lines=lines)


def spread_said(files: Files, cell_lines=(), **draws) -> str:
    """Say how far two seeds of the experimental error differ, where there are raw cells."""
    line = (*cell_lines, *LAYOUTS["essential"].lines)[0]
    how = dict(cell_line=line, progress=False, **draws)
    try:
        two = [benchmark.error_of_raw("essential", files.root, seed=seed, **how) for seed in SEEDS]
    except InputError as error:
        return f"No raw cells: {error}."
    one, other = (t[t["quantile"] == 0.9].set_index("pert_id")["L2"] for t in two)
    each, level = (other / one - 1).abs(), abs(other.mean() / one.mean() - 1)
    about = dict(n=len(one), line=line, mean=each.mean(), most=each.max(), level=level)
    return tell("reproduction.seeds", **about)


def answer(files: Files, table: pd.DataFrame, other: Mapping) -> str:
    """Give the chapter's one-paragraph answer, computed; `table` and `other`: of `compare`."""
    if files.simulated:
        return tell("reproduction.simulated")
    return benchmark.verdict(table, other)


def published_figure(same: pd.DataFrame) -> Figure:
    """Draw L2 here against the published value; `same`: rows of `compare` of both."""
    rows = same[same["metric"] == "L2"]
    x, what = rows["published"], f"L2, published ({load_published().level})"
    y, labels = rows["reproduced"], rows["dataset"]
    return figures.named_points(x, y, list(labels), xlabel=what, ylabel="L2, here", equal=True)


def scores_for_figure(done: benchmark.Benchmark, dataset: str) -> pd.DataFrame:
    """Scores of a data set (kNN) under the names of the published figures, for a box plot."""
    rows = benchmark.published_names(done.scores)
    rows = rows[(rows["dataset"] == dataset) & (rows["fold"] >= 0)]
    return rows[(rows["predictor"] == "knn") | (rows["embedding"] == "")]
