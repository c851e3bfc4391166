"""Models of cells by likelihood and by number of training cells, after Bendidi et al. 2024."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from perturbcore.data.published.tables import facts
from perturbcore.embeddings.cells import IDEALIZED, LOG_PCA, PROCESSING, SHUFFLED
from perturbcore.report.cell_tasks import CellRun, run_cells
from perturbcore.report.figures import curves
from perturbcore.report.figures.methods import grouped_intervals
from perturbcore.report.paired import judged
from perturbcore.report.text import listed, tell
from perturbcore.score.metrics.cell_tasks import RELATIONS
from perturbcore.score.metrics.registry import metric

LOGS, ASKED = " on logs", (*RELATIONS, "knn_top5", "linear_top5")


def run_trained(
    study, name: str, models: Sequence[str], shares: Sequence[int], **options
) -> tuple[CellRun, pd.DataFrame]:
    """Score `models` of cells, and the first one and a PCA on `shares` (%) of the training cells.

    Vectors are centred on the controls of each batch, so that nothing is chosen; `options`: of
    `perturbcore.report.cell_tasks.run_cells`. Returns the run, and gains judged together, `what`:
    "likelihood", "logs", "floor", "cells".
    """
    few = [f"{name}, {share} % of cells" for name in (models[0], LOG_PCA) for share in shares]
    how: Any = dict(transfer_from={}, processing=PROCESSING[1:2], asked=ASKED)
    run = run_cells(study, name, embeddings=[*models, *few], **how, **options)
    there = [name for name in models if name in run.names]
    counts = [name for name in there if not name.endswith(LOGS)]
    several = [name for name in (models[0], LOG_PCA) if name in run.names]
    pairs = {
        "likelihood": list(combinations(counts, 2)),
        "logs": [(name, name.removesuffix(LOGS)) for name in there if name not in counts],
        "floor": [(name, SHUFFLED) for name in there],
        "cells": [(name, f"{name}, {min(shares)} % of cells") for name in several],
    }
    parts = [run.gains(of).assign(what=what) for what, of in pairs.items() if of]
    return run, judged(pd.concat(parts, ignore_index=True))


def by_cells(run: CellRun) -> pd.DataFrame:
    """Scores with the embedding's `model` and the number of `cells` that it learnt from."""
    cells = run.scores.groupby("embedding")["n_train"].mean().round().astype(int)
    table = run.table[run.table["embedding"] != IDEALIZED]
    model = table["embedding"].str.replace(r", \d+ % of cells", "", regex=True)
    return table.assign(model=model, cells=table["embedding"].map(cells))


def likelihood_figure(run: CellRun, models: Sequence[str]) -> Figure:
    """Draw the scores of models of cells on all training cells, task by task."""
    shown = run.table[run.table["embedding"].isin([*models, LOG_PCA, SHUFFLED])]
    return grouped_intervals(shown, row="task", series="embedding", floor=SHUFFLED)


def amount_figure(run: CellRun) -> Figure:
    """Draw the scores of what was trained on several numbers of cells, and the floor."""
    table = by_cells(run)
    several = table[table.groupby("model")["cells"].transform("nunique") > 1]
    floor = table[table["embedding"] == SHUFFLED].drop(columns="cells")
    floor = floor.merge(several[["cells"]].drop_duplicates(), how="cross")
    return curves(
        pd.concat([several, floor]), "cells", "value", "model", low="low", high="high",
        panel="task", xlabel="Training cells", ylabel="Score",
    )  # fmt: skip


def _told(gains: pd.DataFrame, *, pairs: bool = True) -> dict:
    """Count gains, and list those that are decided, with the names of the `pairs` or without."""
    found = gains[gains["verdict"].isin(["better", "worse"])]
    named = [
        f"{r.embedding} {r.verdict} than {r.method} in {r.task}"
        if pairs
        else f"{r.task} ({r.verdict})"
        for r in found.itertuples()
    ]
    return {"n": len(gains), "decided": len(found), "named": f": {listed(named)}" if named else "",
            "better": int((found["verdict"] == "better").sum())}  # fmt: skip


def likelihoods_said(run: CellRun, gains: pd.DataFrame) -> str:
    """Say whether the likelihood matters, counts or logs, and what beats shuffled vectors."""
    said = [tell("cell_tasks.trained", title=run.data.title, splits=run.scores["fold"].nunique())]
    for what in ("likelihood", "logs", "floor"):
        if len(part := gains[gains["what"] == what]):
            said.append(tell(f"cell_tasks.{what}", **_told(part, pairs=what == "likelihood")))
    return " ".join(said)


def amount_said(run: CellRun, gains: pd.DataFrame) -> str:
    """Say whether more training cells help, model by model."""
    cells, said = by_cells(run).groupby("embedding")["cells"].first(), []
    for (model, few), part in gains[gains["what"] == "cells"].groupby(["embedding", "method"]):
        about = dict(model=model, most=cells[model], least=cells[few], gain=part["gain"].mean())
        said.append(tell("cell_tasks.amount", **about, **_told(part, pairs=False)))
    return " ".join(said)


def published_recall(run: CellRun, model: str) -> pd.DataFrame:
    """Recall of known pairs as printed for scVI and a PCA, centred, beside that of a run."""
    rows = facts("bendidi2024_tables3_10").query("postprocessing == 'centering'")
    rows = rows[rows["metric"].isin(RELATIONS) & rows["model"].isin(["scVI", "PCA"])]
    wide = rows.assign(name=rows["model"] + " as printed, " + rows["dataset"])
    own = run.table[run.table["embedding"].isin([model, LOG_PCA, SHUFFLED])]
    own = own[own["metric"].isin(RELATIONS)].pivot(
        index="metric", columns="embedding", values="value"
    )
    wide = wide.pivot_table("mean", "metric", "name").join(own.add_suffix(", here"), how="outer")
    return wide.assign(Task=[metric(m).label for m in wide.index]).set_index("Task").reset_index()
