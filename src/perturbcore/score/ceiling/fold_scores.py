"""The noise ceiling as rows of the scores table."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.score.ceiling.distances import SIMILARITIES

PREDICTOR, NOISE_FLOOR = "experimental_error", "noise_floor"
MODALITY = "Positive control"


def ceiling_scores(ceiling, responses, quantile=0.9, metrics=None) -> pd.DataFrame:
    """Experimental error of each (cell line, fold): mean over the fold's test perturbations.

    Parameters
    ----------
    ceiling : DataFrame
        Table of :func:`perturbcore.score.ceiling.ceiling.noise_ceiling`.
    responses : AnnData
        obs cell_line, perturbation, fold; uns["perturbcore"] dataset and task.
    quantile : float
        Of errors; of similarities (Spearman, Pearson), where higher is better, the opposite
        quantile 1 - `quantile` is taken.
    metrics : sequence of str, optional
        Those of the ceiling table if not given.

    Returns
    -------
    DataFrame
        dataset, task, cell_line, fold, embedding (""), modality, predictor
        ("experimental_error"), metric, value, n_test.

    Raises
    ------
    InputError
        If a perturbation of a fold, or the quantile, is not in the ceiling table.

    Notes
    -----
    It is an upper quantile of resampling noise: good predictions may lie beyond it. The noise floor
    (predictor "noise_floor", where the table has it) is a mean; perturbations of which it is not
    estimable are left out of it.

    References
    ----------
    Cole et al. 2026, Methods 4.7.1 (errors at q = 0.9, scores at q = 0.1).
    """
    if "estimate" in ceiling:
        floor = ceiling[ceiling["estimate"] == "noise_floor"].assign(quantile=quantile)
        ceiling = ceiling[ceiling["estimate"] == "bootstrap"].drop(columns="estimate")
        both = [ceiling_scores(ceiling, responses, quantile, metrics)]
        if len(floor):
            floor = ceiling_scores(floor.drop(columns="estimate"), responses, quantile)
            both.append(floor.assign(predictor=NOISE_FLOOR))
        return pd.concat(both, ignore_index=True)
    metrics = list(ceiling["metric"].unique()) if metrics is None else list(metrics)
    if "fold" not in responses.obs:
        raise InputError("the responses have no obs column 'fold'; add folds first")
    about = responses.uns.get("perturbcore", {})
    units = pd.DataFrame(
        {
            "cell_line": responses.obs["cell_line"].astype(str).to_numpy(),
            "perturbation": responses.obs["perturbation"].astype(str).to_numpy(),
            "fold": responses.obs["fold"].astype(int).to_numpy(),
        }
    )
    tables = []
    for metric in metrics:
        q = 1 - quantile if metric in SIMILARITIES else quantile
        here = ceiling[(ceiling["metric"] == metric) & np.isclose(ceiling["quantile"], q)]
        if here.empty:
            have = sorted(ceiling.loc[ceiling["metric"] == metric, "quantile"].unique())
            raise InputError(
                f"the ceiling table has no quantile {q:g} of {metric} (it has: "
                f"{', '.join(f'{h:g}' for h in have) or 'none'}); compute it with "
                "noise_ceiling(quantiles=...)"
            )
        here = here[["cell_line", "perturbation", "value"]].astype(
            {"cell_line": str, "perturbation": str}
        )
        keys = ["cell_line", "perturbation"]
        joined = units.merge(here, how="left", on=keys, validate="1:1", indicator=True)
        lost = joined[joined["_merge"] == "left_only"]
        if len(lost):
            named = [f"{r.cell_line}|{r.perturbation}" for r in lost.head(3).itertuples()]
            raise InputError(
                f"{len(lost)} response(s) have no {metric} in the ceiling table, such as "
                f"{', '.join(named)}; compute the ceiling on the screen the responses come from"
            )
        means = joined.groupby(["cell_line", "fold"])["value"].agg(value="mean", n_test="size")
        tables.append(means.reset_index().assign(metric=metric))
    table = pd.concat(tables, ignore_index=True).assign(
        dataset=about.get("dataset", ""),
        task=about.get("task", ""),
        embedding="",
        modality=MODALITY,
        predictor=PREDICTOR,
    )
    columns = ["dataset", "task", "cell_line", "fold", "embedding", "modality", "predictor"]
    return table[[*columns, "metric", "value", "n_test"]]
