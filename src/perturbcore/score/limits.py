"""Experimental error of a data set, by what it holds, and as units of the scores table."""

from typing import Any, cast

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError
from perturbcore.data.effects import MIN_CELLS
from perturbcore.data.sets.base import Dataset
from perturbcore.score.ceiling.ceiling import noise_ceiling
from perturbcore.score.ceiling.deg import deg_ceiling
from perturbcore.score.ceiling.halves import noise_floor, repeated_experiment
from perturbcore.score.ceiling.label_floor import label_noise_floor
from perturbcore.score.evaluate import stamp
from perturbcore.score.metrics.registry import metric as registered
from perturbcore.score.model import POSITIVE
from perturbcore.score.store import UnitResult
from perturbcore.score.task import task_of

N_SPLITS = 10  # random halves of a screen
PREDICTORS = {
    "bootstrap": "experimental_error",
    "repeated": "repeated_experiment",
    "noise_floor": "noise_floor",
}


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
    """Estimate three ceilings from the cells or the replicate wells of a data set.

    The published experimental error ("bootstrap"); a repeated experiment, from disjoint halves; the
    noise floor: what the true effects would score against what was measured. `options`: those that
    the data set was loaded with. Returns one row per estimate, quantile, metric, and perturbation
    (log fold-changes) or fold (labels).
    """
    trials: dict[str, Any] = dict(n_outer=n_outer, n_inner=n_inner, n_jobs=n_jobs)
    responses: Any = data.responses
    if task_of(data.task).classes:
        if data.screen is None:
            raise InputError(f"data set '{data.name}' has no cells to call labels from again")
        table = deg_ceiling(data.screen, responses, n_trials=n_trials, progress=False, **trials)
        other = label_noise_floor(data.screen, responses)
        return pd.concat([table.assign(estimate="bootstrap"), other], ignore_index=True)
    source, which, least = repeats(data, options)
    which |= dict(
        batches=options.get("batches", "all"),
        perturbations=sorted(responses.obs["perturbation"].astype(str).unique()),
    )
    table = noise_ceiling(source, checkpoint=checkpoint, progress=False, **which, **trials)
    # resampling one cell gives that cell again: no noise at all
    table["value"] = table["value"].where(table["n_cells"] >= least)
    floor = noise_floor(source, n_splits=N_SPLITS, min_cells=least, **which)
    each = {"bootstrap": table, "repeated": repeated_experiment(floor), "noise_floor": floor}
    return pd.concat(each, names=["estimate"]).reset_index(level=0).assign(dataset=data.name)


def repeats(data: Dataset, options: dict) -> tuple[AnnData, dict[str, Any], int]:
    """Cells or replicate wells of a data set, what they are, and fewest that make an effect."""
    wells, responses = data.replicates is not None, cast(AnnData, data.responses)
    control = responses.uns["perturbcore"].get("control", options.get("control", "global"))
    source = data.replicates if wells else data.screen
    return source, {"control": control, "wells": wells}, 2 if wells else MIN_CELLS


def ceiling_scores(
    ceiling: pd.DataFrame, responses: AnnData, quantile: float = 0.9
) -> pd.DataFrame:
    """Experimental error of each (cell line, fold): mean over the fold's test perturbations.

    `quantile`: of errors; of metrics that are better when higher, 1 - `quantile`.

    Returns dataset, task, cell_line, fold, embedding (""), modality, predictor, metric, value,
    n_test. Cole et al. 2026, Methods 4.7.1 (errors at q = 0.9, scores at q = 0.1).
    """
    if "fold" not in responses.obs:
        raise InputError("the responses have no obs column 'fold'; add folds first")
    if "estimate" not in ceiling:
        ceiling = ceiling.assign(estimate="bootstrap")
    tables = []
    for (estimate, metric), part in ceiling.groupby(["estimate", "metric"], sort=False):
        here = part
        if estimate == "bootstrap":
            q = 1 - quantile if registered(metric).higher_is_better else quantile
            here = part[np.isclose(part["quantile"], q)]
            if here.empty:
                have = ", ".join(f"{h:g}" for h in sorted(part["quantile"].unique()))
                raise InputError(
                    f"the ceiling table has no quantile {q:g} of {metric} (it has: {have}); "
                    "compute it with quantiles=[...]"
                )
        means = here if "fold" in ceiling else _fold_means(here, responses.obs, metric)
        tables.append(means.assign(metric=metric, predictor=PREDICTORS[estimate]))
    about = responses.uns.get("perturbcore", {})
    table = pd.concat(tables, ignore_index=True).assign(
        dataset=about.get("dataset", ""), task=about.get("task", ""), embedding="",
        modality=POSITIVE,
    )  # fmt: skip
    columns = ["dataset", "task", "cell_line", "fold", "embedding", "modality", "predictor"]
    return table[[*columns, "metric", "value", "n_test"]]


def _fold_means(rows: pd.DataFrame, obs: pd.DataFrame, metric: str) -> pd.DataFrame:
    keys = ["cell_line", "perturbation"]
    text = dict.fromkeys(keys, str)
    units = obs[[*keys, "fold"]].astype({**text, "fold": int})
    rows = rows[[*keys, "value"]].astype(text)
    joined = units.merge(rows, how="left", on=keys, validate="1:1", indicator=True)
    lost = joined[joined["_merge"] == "left_only"]
    if len(lost):
        named = ", ".join((lost["cell_line"] + "|" + lost["perturbation"]).head(3))
        raise InputError(
            f"{len(lost)} response(s) have no {metric} in the ceiling table, such as {named}; "
            "compute the ceiling on the screen the responses come from"
        )
    means = joined.groupby(["cell_line", "fold"])["value"].agg(value="mean", n_test="size")
    return means.reset_index()


def limit_units(
    ceiling: pd.DataFrame, responses: AnnData, seed: int, dataset: str
) -> list[UnitResult]:
    """Return one unit per cell line and fold of each ceiling, see `ceiling_scores`.

    Rows of no fold (-1), which are only learned from, count as training rows.
    """
    task, obs = task_of(responses), responses.obs
    line, fold = obs["cell_line"].astype(str).to_numpy(), obs["fold"].to_numpy(dtype=int)
    rows = ceiling_scores(ceiling, responses[fold >= 0]).assign(seed=seed, dataset=dataset)
    identity = ["dataset", "predictor", "cell_line", "fold", "seed"]
    shared = [*identity, "task", "embedding", "modality", "n_test"]
    results = []
    for values, part in rows.groupby(shared, observed=True):
        metrics = dict(zip(part["metric"], part["value"].astype(float), strict=True))
        about = dict(zip(shared, values, strict=True))
        n_test, here = int(about["n_test"]), line == about["cell_line"]
        learned = task.learned(obs, here & (fold == int(about["fold"])))
        n_train = int((learned & (here | task.across)).sum())
        about |= {"fold": int(about["fold"]), "seed": seed, "n_test": n_test, "n_train": n_train}
        about |= {"coverage": 1.0, "chosen": "", "seconds": 0.0, **stamp()}
        key = digest("ceiling", {k: about[k] for k in identity}, metrics)
        results.append(UnitResult(key, about, metrics))
    return results
