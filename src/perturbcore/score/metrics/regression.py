"""Metrics of predicted log fold-changes: one value per perturbation, to be averaged afterwards.

A correlation with a constant prediction (or a constant truth) is undefined; it is set to 0, the
value of a prediction that carries no information, so that No Change can be ranked.
"""

import numpy as np
from numba import njit
from scipy.spatial.distance import cdist

from perturbcore.score.metrics.registry import register


def row_ranks(values: np.ndarray) -> np.ndarray:
    """Rank each row (n, g) from 0 in float32, ties sharing ranks."""
    return _shared_ranks(values, np.argsort(values, axis=1))


@njit(cache=True, nogil=True)
def _shared_ranks(values, order):
    n, g = order.shape
    ranks = np.empty((n, g), dtype=np.float32)
    for i in range(n):
        start = 0
        while start < g:
            end, value = start + 1, values[i, order[i, start]]
            while end < g and values[i, order[i, end]] == value:
                end += 1
            for k in range(start, end):
                ranks[i, order[i, k]] = (start + end - 1) / 2
            start = end
    return ranks


def _row_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    top = np.einsum("ij,ij->i", a, b, dtype=np.float64)
    a2 = np.einsum("ij,ij->i", a, a, dtype=np.float64)
    b2 = np.einsum("ij,ij->i", b, b, dtype=np.float64)
    bottom = np.sqrt(a2 * b2)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def _centred(a: np.ndarray) -> np.ndarray:
    centred = a - a.mean(axis=1, keepdims=True, dtype=np.float64).astype(a.dtype)
    # a constant row must be exactly zero, not rounding noise
    centred[np.ptp(a, axis=1) == 0] = 0
    return centred


@register("L2")
def l2(truth, prediction, train_mean=None):
    """Euclidean norm of the error over genes, one value per perturbation (natural-log units)."""
    d = truth - prediction
    return np.sqrt(np.einsum("ij,ij->i", d, d, dtype=np.float64))


@register("MSE")
def mse(truth, prediction, train_mean=None):
    """Mean squared error over genes, one value per perturbation."""
    d = truth - prediction
    return np.einsum("ij,ij->i", d, d, dtype=np.float64) / d.shape[1]


@register("MAE")
def mae(truth, prediction, train_mean=None):
    """Mean absolute error over genes, one value per perturbation."""
    return np.abs(truth - prediction).mean(axis=1, dtype=np.float64)


@register("Pearson")
def pearson(truth, prediction, train_mean=None):
    """Pearson correlation over genes, one value per perturbation; 0 where undefined."""
    return _row_cosine(_centred(truth), _centred(prediction))


@register("Spearman")
def spearman(truth, prediction, train_mean=None):
    """Spearman correlation over genes (ties share ranks), one value per perturbation."""
    return pearson(row_ranks(truth), row_ranks(prediction))


@register("Pearson_delta")
def pearson_delta(truth, prediction, train_mean):
    """Pearson correlation after subtracting the mean training response (g,); 0 where undefined."""
    residual = prediction - train_mean
    # the Train Mean itself must give exactly 0, not the sign of its rounding errors
    scale = np.abs(prediction).max(axis=1, keepdims=True)
    residual[np.abs(residual) <= 1e-6 * scale] = 0
    return pearson(truth - train_mean, residual)


@register("cosine")
def cosine(truth, prediction, train_mean=None):
    """Cosine of the angle between true and predicted response; 0 for a zero vector."""
    return _row_cosine(truth, prediction)


@register("top20_recall")
def top20_recall(truth, prediction, train_mean=None, n=20):
    """Share of the `n` genes of largest absolute effect that are also among the predicted `n`."""
    n = min(n, truth.shape[1])
    top = np.argpartition(-np.abs(truth), n - 1, axis=1)[:, :n]
    size = np.abs(prediction)
    cut = -np.partition(-size, n - 1, axis=1)[:, n - 1 : n]
    above = size > cut
    tied = size == cut
    # ties at the cut share the places that are left, so that the order of genes does not matter
    left = n - above.sum(axis=1, keepdims=True)
    weight = above + tied * (left / tied.sum(axis=1, keepdims=True))
    return np.take_along_axis(weight, top, axis=1).sum(axis=1) / n


@register("discrimination")
def discrimination(truth, prediction, train_mean=None):
    """1 minus the share of other true responses that lie nearer to the prediction."""
    # |p|^2 is the same along a row
    d = np.einsum("ij,ij->i", truth, truth, dtype=np.float64) - 2.0 * (prediction @ truth.T)
    own = np.diag(d)[:, None]
    slack = (1e-6 if truth.dtype == np.float32 else 1e-12) * np.abs(d).max()
    nearer = (d < own - slack).sum(axis=1)
    level = (np.abs(d - own) <= slack).sum(axis=1) - 1
    others = max(len(truth) - 1, 1)
    return 1 - (nearer + 0.5 * level) / others


def places(distance: np.ndarray) -> np.ndarray:
    """Count the others that are nearer than the own one, ties half; rows are predictions."""
    own = np.diag(distance)[:, None]
    return (distance < own).sum(1) + 0.5 * ((distance == own).sum(1) - 1)


@register("discrimination_l1")
def discrimination_l1(truth, prediction, train_mean=None):
    """1 minus the share of true responses nearer to the prediction by L1; ties count half."""
    return 1 - places(cdist(prediction, truth, "cityblock")) / len(truth)
