"""Distances of bootstrap samples to a point estimate."""

import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.score.metrics.regression import row_ranks

ERRORS = ("L2", "MSE", "MAE")
SIMILARITIES = ("Spearman", "Pearson")
METRICS = ERRORS + SIMILARITIES


def check_metrics(metrics) -> tuple:
    """Return the metrics as a tuple, refusing unknown names."""
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = [m for m in metrics if m not in METRICS]
    if unknown or not metrics:
        raise ParameterError(f"metrics={list(metrics)}: choose from {', '.join(METRICS)}")
    return metrics


def distances(samples, point, metrics=METRICS) -> dict:
    """Distance (n,) by metric of samples (n, genes) to the point estimate, (genes,) or (n, genes).

    L2 is the Euclidean norm of the difference (Cole et al. 2026, Eq. 12), MSE and MAE are means
    over genes, Spearman and Pearson (Eq. 7) correlations across genes, 0 where one vector is
    constant.
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
        out["Spearman"] = _correlation(_ranks(samples), _ranks(point))
    return {m: out[m] for m in metrics}


def _ranks(values) -> np.ndarray:
    return row_ranks(values).astype(np.float64)


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
