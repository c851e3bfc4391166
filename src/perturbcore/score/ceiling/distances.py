"""Distances of bootstrap samples to a point estimate."""

import numpy as np

from perturbcore.core.errors import ParameterError

ERRORS = ("L2", "MSE", "MAE")
SIMILARITIES = ("Spearman", "Pearson")
METRICS = ERRORS + SIMILARITIES


def check_metrics(metrics) -> tuple:
    """Return the metrics as a tuple, refusing unknown names.

    Raises
    ------
    ParameterError
        If a name is not one of L2, MSE, MAE, Spearman, Pearson.
    """
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = [m for m in metrics if m not in METRICS]
    if unknown or not metrics:
        raise ParameterError(f"metrics={list(metrics)}: choose from {', '.join(METRICS)}")
    return metrics


def distances(samples, point, metrics=METRICS) -> dict:
    """Distance of each sample to the point estimate.

    Parameters
    ----------
    samples : ndarray, (n, genes)
    point : ndarray, (genes,) or (n, genes)
    metrics : sequence of str
        L2 is the Euclidean norm of the difference, MSE and MAE are means over genes, Spearman
        and Pearson correlations across genes. A correlation with a constant vector is 0.

    Returns
    -------
    dict of str to ndarray (n,)

    References
    ----------
    Cole et al. 2026, Eq. 12 (L2) and Eq. 7.
    """
    samples = np.atleast_2d(np.asarray(samples, dtype=np.float64))
    point = np.atleast_2d(np.asarray(point, dtype=np.float64))
    out = {}
    if set(metrics) & set(ERRORS):
        error = samples - point
        squares = np.einsum("ij,ij->i", error, error)
        values = {"L2": np.sqrt(squares), "MSE": squares / samples.shape[1]}
        if "MAE" in metrics:
            values["MAE"] = np.abs(error, out=error).mean(axis=1)
        out = {m: values[m] for m in metrics if m in ERRORS}
    if "Pearson" in metrics:
        out["Pearson"] = _correlation(samples, point)
    if "Spearman" in metrics:
        out["Spearman"] = _correlation(row_ranks(samples), row_ranks(point))
    return {m: out[m] for m in metrics}


def row_ranks(values) -> np.ndarray:
    """Ranks within each row, 1 = smallest, ties share their average rank.

    Parameters
    ----------
    values : ndarray, (n, genes)
    """
    values = np.atleast_2d(values)
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    n = values.shape[1]
    position = np.arange(n)
    new = np.ones(values.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(new, position, 0), axis=1)
    last_of_run = np.ones(values.shape, dtype=bool)
    last_of_run[:, :-1] = new[:, 1:]
    last = np.where(last_of_run, position, n)[:, ::-1]
    last = np.minimum.accumulate(last, axis=1)[:, ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks


def _correlation(a, b) -> np.ndarray:
    a, b = _centred(a), _centred(b)
    product = np.einsum("ij,ij->i", a, np.broadcast_to(b, a.shape))
    norm = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)


def _centred(values) -> np.ndarray:
    centred = values - values.mean(axis=1, keepdims=True)
    # The mean of a constant row may round; what is left would pass for variation.
    centred[values.max(axis=1) == values.min(axis=1)] = 0.0
    return centred
