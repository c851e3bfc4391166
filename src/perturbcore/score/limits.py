"""Experimental error of a data set, by what it holds, and as units of the scores table."""

from typing import Any

import pandas as pd

from perturbcore.core.digest import digest
from perturbcore.data.sets.base import Dataset
from perturbcore.score.ceiling.ceiling import noise_ceiling, replicate_ceiling
from perturbcore.score.ceiling.deg import deg_ceiling, deg_ceiling_scores
from perturbcore.score.ceiling.fold_scores import ceiling_scores
from perturbcore.score.ceiling.halves import noise_floor
from perturbcore.score.evaluate import stamp
from perturbcore.score.store import UnitResult
from perturbcore.score.task import task_of

# random halves of a screen; cells below which an effect is not estimable
N_SPLITS, MIN_CELLS = 10, 10


def experimental_error(
    data: Dataset,
    *,
    n_outer: int,
    n_inner: int,
    n_trials: int,
    options: dict,
    n_jobs: int = 1,
    checkpoint=None,
) -> pd.DataFrame:
    """Estimate ceilings from the cells or the replicate wells of a data set.

    The published experimental error, and for log fold-changes the noise floor: what the true
    effects would score against the measured ones, from disjoint halves.

    `data`: with a screen, or with replicates; `options`: options that the data set was loaded
    with: the variant of the effect, where its responses do not say it; `n_jobs`: threads.

    Returns one row per estimate ("bootstrap", "noise_floor"), perturbation, quantile and metric
    (log fold-changes), or per fold, quantile and metric (labels).
    """
    trials: dict[str, Any] = dict(n_outer=n_outer, n_inner=n_inner, n_jobs=n_jobs)
    responses: Any = data.responses
    if task_of(data.task).classes:
        return deg_ceiling(data.screen, responses, n_trials=n_trials, progress=False, **trials)
    control = responses.uns["perturbcore"].get("control", options.get("control", "global"))
    if data.replicates is not None:
        table = replicate_ceiling(
            data.replicates, control=control, dataset=data.name, checkpoint=checkpoint, **trials
        )
    else:
        table = noise_ceiling(
            data.screen,
            control=control,
            batches=options.get("batches", "all"),
            perturbations=sorted(responses.obs["perturbation"].astype(str).unique()),
            checkpoint=checkpoint,
            **trials,
        )
    floor = noise_floor(
        data.screen if data.replicates is None else data.replicates,
        sorted(responses.obs["perturbation"].astype(str).unique()),
        n_splits=N_SPLITS,
        control=control,
        batches=options.get("batches", "all"),
        min_cells=MIN_CELLS if data.replicates is None else 2,
        progress=False,
    )
    both = {"bootstrap": table, "noise_floor": floor}
    return pd.concat(both, names=["estimate"]).reset_index(level=0).assign(dataset=data.name)


def limit_units(
    ceiling: pd.DataFrame, responses, seed: int = 0, dataset: str | None = None
) -> list[UnitResult]:
    """Return one unit per cell line and fold of each ceiling: experimental error, noise floor.

    `responses`: with folds; `seed`: recorded with the units; `dataset`: name of the data set in
    the scores, see `perturbcore.models.simple.evaluate_embeddings`.
    """
    rows = deg_ceiling_scores(ceiling) if "fold" in ceiling else ceiling_scores(ceiling, responses)
    line_size = responses.obs["cell_line"].astype(str).value_counts()
    results = []
    for (_, line, fold), part in rows.groupby(["predictor", "cell_line", "fold"], observed=True):
        metrics = dict(zip(part["metric"], part["value"].astype(float), strict=True))
        first = part.iloc[0]
        about = {
            "dataset": dataset or str(first["dataset"]),
            **{c: str(first[c]) for c in ("task", "embedding", "modality", "predictor")},
            "cell_line": str(line),
            "fold": int(fold),
            "seed": seed,
            "n_train": int(line_size[str(line)] - first["n_test"]),
            "n_test": int(first["n_test"]),
            "coverage": 1.0,
            "chosen": "",
            "seconds": 0.0,
            **stamp(),
        }
        key = digest(
            "ceiling",
            {k: about[k] for k in ("dataset", "predictor", "cell_line", "fold", "seed")},
            metrics,
        )
        results.append(UnitResult(key, about, metrics))
    return results
