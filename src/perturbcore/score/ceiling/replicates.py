"""Noise ceiling of replicate profiles: wells instead of cells."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.score.ceiling.ceiling import QUANTILES, ceiling_of_cells, check_quantiles
from perturbcore.score.ceiling.cells import Cells
from perturbcore.score.ceiling.distances import METRICS, check_metrics, distances
from perturbcore.score.ceiling.sampler import LineSampler, check_choices


def replicate_ceiling(
    profiles,
    labels,
    controls=None,
    *,
    batches=None,
    cell_line="",
    dataset="",
    control="global",
    n_outer=10,
    n_inner=10,
    quantiles=QUANTILES,
    metrics=METRICS,
    seed=5050,
    leave_one_out=True,
    n_jobs=1,
    progress=False,
    checkpoint=None,
) -> pd.DataFrame:
    """Experimental error of perturbations measured as a few replicate profiles.

    Parameters
    ----------
    profiles : AnnData or array, replicates x genes
        On the scale of the responses (log expression or plate z-scores); nothing is normalised.
    labels : str or sequence of str
        Perturbation of each replicate; the name of an obs column where profiles is an AnnData.
    controls : str or sequence of bool, optional
        Which replicates are controls. Without it profiles are taken as effects already, and
        their plain mean is the response.
    batches : str or sequence, optional
        Plates, which are then resampled in the outer trials. Without it there is one batch and
        all n_outer x n_inner samples are resamples of the replicates.
    cell_line : str or sequence of str
        An obs column, one value for all, or one a replicate.
    dataset : str
    control : {"global", "matched"}
        Whether controls are averaged over all batches or matched within them.
    n_outer, n_inner, quantiles, metrics, seed, n_jobs, progress, checkpoint
        See :func:`perturbcore.score.ceiling.ceiling.noise_ceiling`.
    leave_one_out : bool
        Add each perturbation's mean metric between one replicate and the mean of the others.

    Returns
    -------
    DataFrame
        The ceiling table with one more column, `estimate`: "bootstrap", or "leave_one_out"
        (quantile NaN; left out for perturbations with one replicate). n_cells counts replicates.

    Raises
    ------
    InputError
        If lengths differ, values are not finite or a column is missing.

    Notes
    -----
    With few replicates the bootstrap is too optimistic: n replicates resampled have (n - 1) / n
    of the variance of the mean of n new ones (sqrt(3 / 4) of the L2 error for n = 4). The
    leave-one-out error errs on the other side: it is the error for a single new replicate, whose
    variance is n^2 / (n - 1) times that of the mean of n.

    References
    ----------
    Cole et al. 2026, Methods 4.7.1, Eq. 12.
    """
    check_choices(control=control, batches="all", n_outer=n_outer, n_inner=n_inner)
    metrics, quantiles = check_metrics(metrics), check_quantiles(quantiles)
    obs = profiles.obs if isinstance(profiles, AnnData) else pd.DataFrame()
    X = profiles.X if isinstance(profiles, AnnData) else profiles
    X = X.toarray() if sp.issparse(X) else np.asarray(X)
    if X.ndim != 2 or not np.isfinite(X).all():
        raise InputError(
            "profiles must be a finite matrix, replicates x genes; drop replicates or genes with "
            "missing values"
        )
    n = len(X)
    is_control = _column(obs, controls, n, "controls", False).astype(bool)
    cells = Cells(
        X,
        _column(obs, labels, n, "labels", None),
        _column(obs, batches, n, "batches", ""),
        _column(obs, cell_line, n, "cell_line", ""),
        is_control,
        scale="effects",
        dataset=dataset,
    )
    options = dict(
        control="none" if controls is None else control,
        batches="all",
        n_outer=int(n_outer),
        n_inner=int(n_inner),
        seed=seed,
    )
    table = ceiling_of_cells(
        cells, options, metrics, quantiles, None, n_jobs, progress, checkpoint
    ).assign(estimate="bootstrap")
    if not leave_one_out:
        return table
    return pd.concat([table, _leave_one_out(cells, options, metrics)], ignore_index=True)


def _column(obs, values, n, what, default) -> np.ndarray:
    if values is None:
        return np.full(n, default)
    if isinstance(values, str):
        if values in obs:
            return obs[values].to_numpy()
        if what in ("cell_line", "batches"):
            return np.full(n, values)
        raise InputError(f"{what}={values!r} is not a column; there are: {', '.join(obs.columns)}")
    values = np.asarray(values)
    if values.shape != (n,):
        raise InputError(f"{what} has {values.size} values for {n} profiles; give one for each")
    return values


def _leave_one_out(cells, options, metrics) -> pd.DataFrame:
    rows = []
    for line in cells.lines():
        sampler = LineSampler(cells, line, **options)
        for name, groups in sampler.perturbed.items():
            members = np.concatenate(list(groups.values()))
            if len(members) < 2:
                continue
            own = np.stack([_effect(sampler, {b: [r]}) for b, rs in groups.items() for r in rs])
            rest = np.stack([_effect(sampler, _without(groups, r)) for r in members])
            found = distances(own, rest, metrics)
            about = (cells.dataset, line, name, np.nan)
            rows += [(*about, m, found[m].mean(), len(members), len(groups)) for m in metrics]
    columns = ["dataset", "cell_line", "perturbation", "quantile", "metric", "value"]
    table = pd.DataFrame(rows, columns=[*columns, "n_cells", "n_batches"])
    return table.assign(estimate="leave_one_out")


def _without(groups, row) -> dict:
    left = {batch: rows[rows != row] for batch, rows in groups.items()}
    return {batch: rows for batch, rows in left.items() if len(rows)}


def _effect(sampler, groups) -> np.ndarray:
    means = {batch: sampler.cells.X[rows].mean(axis=0) for batch, rows in groups.items()}
    if sampler.control == "matched":
        means = {b: m - sampler.cells.X[sampler.controls[b]].mean(axis=0) for b, m in means.items()}
    effect = np.mean(list(means.values()), axis=0)
    return effect - sampler.shared_control()[0] if sampler.control == "global" else effect
