"""Fusions on PerturbQA's own split and metric, beside the published methods."""

import warnings

import numpy as np
import pandas as pd

from perturbcore.models.fusion.competitors import competitors
from perturbcore.report.fusion.contest import fusion_transformers
from perturbcore.report.leaderboard import LINES, METRIC, TASKS, board, split_responses
from perturbcore.score.joint import evaluate_joint


def fused(
    study,
    dataset: str,
    *,
    k=(5, 10, 20, 40, 80),
    inner_folds: int = 3,
    transformers: dict | None = None,
    sources=None,
) -> pd.DataFrame:
    """Score every fusion on the authors' split; empty where the profile lacks the labels.

    All choices are made on inner folds of the training split; the test split is predicted once.

    Parameters
    ----------
    study : Study
    dataset : str
        Whose embeddings are fused.
    k : sequence of int
        Candidates of the nearest-neighbour fusions.
    inner_folds : int
    transformers : dict of dict
        As `perturbcore.report.fusion.contest.contest`; one model a line, since the authors' splits differ between
        lines.
    sources : Contest, optional
        Whose data and sources are used.

    Returns
    -------
    pandas.DataFrame
        Tidy scores with a column `wu_task` ("de" or "dir").
    """
    data = study.dataset(dataset)
    if data.task != "deg_pairs":
        return pd.DataFrame()
    embeddings = sources.sources if sources is not None else study.embeddings(dataset)
    deep, _ = fusion_transformers(study, data, embeddings, transformers or {}, joint=False)
    out = []
    for line in LINES.values():
        for short, task in TASKS.items():
            models = [*competitors(task, embeddings, k=k, inner_folds=inner_folds), *deep]
            with warnings.catch_warnings():
                # their split is made a line; each model sees one line
                warnings.filterwarnings("ignore", message=".*joint models.*")
                scores = evaluate_joint(
                    split_responses(line, short), models, store=study.store,
                    scope=study.scope(f"{line}/{short}/fused"), folds=[0], progress=False,
                )  # fmt: skip
            out.append(scores.assign(wu_task=short))
    study.export()
    return pd.concat(out, ignore_index=True)


def verdict(singles: pd.DataFrame, fusions: pd.DataFrame) -> str:
    """Say where the fusions stand against the best single embedding and the best published method."""
    if not len(fusions):
        return (
            "This profile holds no labels of PerturbQA, so nothing is scored on its split here: "
            "`make run CHAPTER=fusion PROFILE=real` does it in minutes."
        )
    words = {"de": "whether a gene responds", "dir": "in which direction it responds"}
    said = []
    for task, what in words.items():
        mine = board(fusions, task)
        mine = mine[mine["origin"] == "this book"].iloc[0]
        alone = board(singles, task)
        alone = alone[alone["origin"] == "this book"].iloc[0]
        theirs = board(fusions.iloc[:0], task)
        lines = list(LINES.values())
        ahead = [x for x in lines if round(mine[x], 2) > theirs[x].max()]
        values = ", ".join(
            f"{x} {mine[x]:.3f} ({alone[x]:.3f} and {theirs[x].max():.2f})" for x in lines
        )
        said.append(
            f"On {what} (`{task}`), **{mine['method']}** has the best mean of the fusions, {mine['mean']:.3f}; "
            f"by line, with the best single embedding of ours ({alone['method']}) and the best published "
            f"value in brackets: {values}. It is ahead of every published method in {len(ahead)} of "
            f"{len(lines)} lines."
        )
    return "\n\n".join(said)


def record(fusions: pd.DataFrame) -> str:
    """Condense the leaderboard to one clause."""
    if not len(fusions):
        return ""
    said = []
    for task in TASKS:
        mine = board(fusions, task)
        theirs = board(fusions.iloc[:0], task).iloc[0]
        best = mine[mine["origin"] == "this book"].iloc[0]
        said.append(f"{task} {best['mean']:.3f} against {theirs['mean']:.2f}")
    return f"on PerturbQA's own split {' and '.join(said)} for the best published"


def combined(singles: pd.DataFrame, fusions: pd.DataFrame, task: str) -> pd.DataFrame:
    """Board of fusions, the three best single embeddings and the published methods."""
    if not len(fusions):
        return board(fusions, task)
    both = pd.concat([singles, fusions], ignore_index=True)
    table = board(both, task)
    rows = both[(both["wu_task"] == task) & (both["metric"] == METRIC)]
    fusion = set((rows["embedding"] + ", " + rows["predictor"])[rows["modality"] == "Fusion"])
    table["origin"] = np.where(
        table["method"].isin(fusion),
        "fusion (this book)",
        table["origin"].str.replace("this book", "single source (this book)"),
    )
    single = table["origin"].str.startswith("single")
    return table[~single | (single.cumsum() <= 3)].reset_index(drop=True)
