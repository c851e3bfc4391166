"""Fusions on PerturbQA's own split and metric, beside the published methods."""

import warnings
from collections.abc import Mapping, Sequence

import pandas as pd

from perturbcore.models.fusion.kernel_models import fusions
from perturbcore.report.fusion.scores import FusionScores, fusion_transformers
from perturbcore.report.leaderboard import (
    LINES,
    TASKS,
    WORDS,
    board,
    split_responses,
    standing,
    with_intervals,
)
from perturbcore.score.evaluate import evaluate

OURS = "this book"


def fused(
    study,
    f: FusionScores,
    *,
    k: Sequence[int] = (5, 10, 20, 40, 80),
    inner_folds: int = 3,
    transformers: Mapping[str, Mapping] | None = None,
) -> pd.DataFrame:
    """Score every fusion of the sources of `f` on the authors' split; empty without their labels.

    Fitting and tuning use the training split alone. The test split was scored several times
    while methods changed: see the chapter. Transformers are one model per line, since the
    splits differ between lines.

    Returns tidy scores with a column `wu_task` ("de" or "dir").
    """
    if not f.pairs:
        return pd.DataFrame()
    deep, _ = fusion_transformers(study, f.data, f.sources, transformers or {}, joint=False)
    out = []
    for line in LINES.values():
        for short, task in TASKS.items():
            models = [*fusions(task, f.sources, k=k, inner_folds=inner_folds), *deep]
            with warnings.catch_warnings():
                # their split is made per line; each model sees one line
                warnings.filterwarnings("ignore", message=".*joint models.*")
                scores = evaluate(
                    split_responses(line, short), models, store=study.store,
                    scope=study.scope(f"{line}/{short}/fused"), folds=[0], progress=False,
                    n_jobs=study.n_jobs,
                )  # fmt: skip
            out.append(with_intervals(study.store, scores).assign(wu_task=short))
    study.export()
    return pd.concat(out, ignore_index=True)


def verdict(singles: pd.DataFrame, fused: pd.DataFrame) -> str:
    """Say where the fusions stand against the best single embedding and published method."""
    if not len(fused):
        return (
            "This profile holds no labels of PerturbQA, so nothing is scored on its split here: "
            "`make run CHAPTER=fusion PROFILE=real` does it in minutes."
        )
    said = []
    for task, what in WORDS.items():
        (mine, theirs, ahead), (alone, _, _) = standing(fused, task), standing(singles, task)
        values = [
            f"{x} {mine[x]:.3f} ({alone[x]:.3f} and {theirs[x].max():.2f})" for x in LINES.values()
        ]
        said.append(
            f"On {what} (`{task}`), **{mine['method']}** has the best mean of the fusions, "
            f"{mine['mean']:.3f}; by line, with the best single embedding of ours "
            f"({alone['method']}) and the best published value in brackets: {', '.join(values)}. "
            f"It is ahead of every published method in {len(ahead)} of {len(LINES)} lines."
        )
    return "\n\n".join(said)


def record(fused: pd.DataFrame) -> str:
    """Condense the leaderboard to one clause."""
    if not len(fused):
        return ""
    said = []
    for task in TASKS:
        mine, theirs, _ = standing(fused, task)
        said.append(f"{task} {mine['mean']:.3f} against {theirs['mean'].max():.2f}")
    return f"on PerturbQA's own split {' and '.join(said)} for the best published"


def combined(singles: pd.DataFrame, fused: pd.DataFrame, task: str) -> pd.DataFrame:
    """Board of fusions, the three best single embeddings and the published methods."""
    if not len(fused):
        return board(fused, task)
    table = board(pd.concat([singles, fused], ignore_index=True), task)
    fusion = set(board(fused, task).loc[lambda t: t["origin"] == OURS, "method"])
    fusion = table["method"].isin(fusion)
    single = (table["origin"] == OURS) & ~fusion
    table.loc[fusion, "origin"] = f"fusion ({OURS})"
    table.loc[single, "origin"] = f"single source ({OURS})"
    return table[~single | (single.cumsum() <= 3)].reset_index(drop=True)
