"""The noise ceiling of labels: how well a repeated experiment would predict this one's."""

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.deg.tests import check_test
from perturbcore.data.responses import check_responses
from perturbcore.score.ceiling.ceiling import check_quantiles
from perturbcore.score.ceiling.deg_sampler import LabelSampler, Source
from perturbcore.score.ceiling.fold_scores import MODALITY, PREDICTOR
from perturbcore.score.metrics.deg import deg_metrics, one_hot
from perturbcore.score.metrics.registry import metrics_of
from perturbcore.score.task import task_of

DEG_QUANTILES = (0.005, 0.01, 0.1, 0.2, 0.5, 0.8, 0.9, 0.99, 0.995)
# what deg_labels records, and what it does by default
_RECORDED = {
    "variant": "pooled",
    "test": "welch",
    "alpha": 0.05,
    "min_cells": 30,
    "strict": True,
    "size_factors": "all",
}


def deg_ceiling(
    screen,
    responses,
    *,
    n_trials=20,
    n_outer=3,
    n_inner=3,
    quantiles=DEG_QUANTILES,
    metrics=None,
    seed=5050,
    count_by=None,
    n_jobs=1,
    progress=True,
    **how,
) -> pd.DataFrame:
    """Score labels recomputed from resampled cells against the labels themselves, fold by fold.

    Pooled labels: in each trial the cells of every perturbation, and the control cells of the
    line, are drawn with replacement, batches ignored. Labels per batch: each outer trial draws a
    perturbation's batches with replacement, a batch drawn twice voting twice; in each drawn batch
    each inner trial draws its perturbed and its control cells. Tests and votes are then repeated.

    Parameters
    ----------
    screen : AnnData
        The declared screen that the labels come from, in memory or backed on disk.
    responses : AnnData
        Task "deg" with folds, as of :func:`perturbcore.data.deg.labels.deg_labels`; its
        genes are those tested.
    n_trials : int
        Trials for pooled labels.
    n_outer, n_inner : int
        Trials over batches, and over cells within them, for labels per batch.
    quantiles : sequence of float in [0, 1]
        Of the trials; the nearest trial is taken.
    metrics : sequence of str, optional
        All of task "deg" by default. A label counts as probability 1 of its class.
    seed : int
    count_by : str, optional
        As in :func:`perturbcore.data.deg.labels.deg_labels`.
    n_jobs : int
        Threads; the values do not depend on it.
    progress : bool
    **how
        variant, test, alpha, min_cells, strict, size_factors where they are not those recorded in
        the responses.

    Returns
    -------
    DataFrame
        dataset, task, cell_line, fold, quantile, metric, value, n_test.

    Raises
    ------
    ParameterError
        An option, a metric or a quantile is unknown.
    InputError
        The responses are no labels, have no folds, or name a perturbation or gene that the screen
        cannot give a label for.

    Notes
    -----
    Control cells of a line (pooled) or of a batch are drawn once a trial and shared by the
    perturbations tested against them, which leaves the distribution for each perturbation as it is.

    References
    ----------
    Cole et al. 2026, Methods 4.7.1 (the published trials: 20 pooled, 3 x 3 per batch; q = 0.1).
    """
    check_responses(responses)
    about = responses.uns["perturbcore"]
    if not task_of(responses).classes:
        raise InputError(
            f"the responses are of task {about['task']!r}: labels (task 'deg') are needed"
        )
    unknown = sorted(set(how) - set(_RECORDED))
    if unknown:
        raise ParameterError(f"no option {unknown[0]!r}; there are: {', '.join(_RECORDED)}")
    how = {k: how.get(k, about.get(k, default)) for k, default in _RECORDED.items()}
    check_test(how["test"], how["alpha"])
    quantiles = check_quantiles(quantiles)
    metrics = list(metrics) if metrics is not None else metrics_of("deg")
    wrong = [m for m in metrics if m not in metrics_of("deg")]
    if wrong:
        raise ParameterError(f"no metric {wrong[0]!r} of labels; there are: {metrics_of('deg')}")
    for name, value in (("n_trials", n_trials), ("n_outer", n_outer), ("n_inner", n_inner)):
        if int(value) != value or value < 1:
            raise ParameterError(f"{name}={value!r}: give a whole number of at least 1")
    trials = (n_outer, n_inner) if how["variant"] == "per_batch" else (1, n_trials)
    source = Source(screen, responses.var_names, how, count_by)
    obs = responses.obs
    units = obs[obs["fold"].astype(int) >= 0].groupby(
        ["cell_line", "fold"], observed=True, sort=True
    )
    source.check(obs)
    tables = []
    with tqdm(total=len(obs), desc="noise ceiling of labels", disable=not progress) as bar:
        sampler = None
        for (line, fold), part in units:
            if sampler is None or sampler.line != str(line):
                sampler = LabelSampler(source, str(line), trials, seed)
            truth = np.asarray(responses[part.index].layers["deg"])
            names = part["perturbation"].astype(str)
            samples = np.empty((trials[0] * trials[1], *truth.shape), dtype=np.int8)
            work = Parallel(n_jobs, backend="threading", return_as="generator")
            for i, found in enumerate(work(delayed(sampler.labels)(name) for name in names)):
                samples[:, i] = found
                bar.update()
            scores = pd.DataFrame([deg_metrics(truth, one_hot(s), metrics) for s in samples])
            values = np.quantile(scores[metrics], quantiles, axis=0, method="nearest")
            index = pd.MultiIndex.from_product([quantiles, metrics], names=["quantile", "metric"])
            table = pd.DataFrame({"value": values.ravel()}, index=index).reset_index()
            tables.append(table.assign(cell_line=str(line), fold=int(fold), n_test=len(part)))
    table = pd.concat(tables, ignore_index=True).assign(dataset=str(about["dataset"]), task="deg")
    return table[["dataset", "task", "cell_line", "fold", "quantile", "metric", "value", "n_test"]]


def deg_ceiling_scores(ceiling, quantile=0.1) -> pd.DataFrame:
    """Experimental error of labels as rows of the scores table.

    Parameters
    ----------
    ceiling : DataFrame
        Of :func:`deg_ceiling`.
    quantile : float
        All metrics of labels are better when higher: the published limit is the 0.1 quantile.

    Returns
    -------
    DataFrame
        The columns of :func:`perturbcore.score.ceiling.fold_scores.ceiling_scores`.

    Raises
    ------
    InputError
        The quantile is not in the table.
    """
    here = ceiling[np.isclose(ceiling["quantile"], quantile)]
    if here.empty:
        have = ", ".join(f"{q:g}" for q in sorted(ceiling["quantile"].unique()))
        raise InputError(f"the ceiling table has no quantile {quantile:g} (it has: {have})")
    here = here.assign(embedding="", modality=MODALITY, predictor=PREDICTOR)
    columns = ["dataset", "task", "cell_line", "fold", "embedding", "modality", "predictor"]
    return here[[*columns, "metric", "value", "n_test"]].reset_index(drop=True)
