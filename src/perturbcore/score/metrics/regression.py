"""Metrics of predicted log fold-changes: one value per perturbation, to be averaged afterwards.

A correlation with a constant prediction (or a constant truth) is undefined; it is set to 0, the
value of a prediction that carries no information, so that No Change can be ranked.
"""

import numpy as np
from numba import njit
from scipy.spatial.distance import cdist

from perturbcore.core.order import least, row_ranks
from perturbcore.score.metrics.registry import register


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _squares(truth, prediction):
    """Squared error summed over genes, (n,)."""
    out = np.zeros(len(truth))
    for i in range(len(truth)):
        for g in range(truth.shape[1]):
            error = np.float64(truth[i, g] - prediction[i, g])
            out[i] += error * error
    return out


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _cosines(a, b, centred):
    """Cosine of rows, (n,), around their means if `centred`; 0 where one does not vary."""
    out, size = np.zeros(len(a)), a.shape[1]
    for i in range(len(a)):
        x, y = a[i], b[i]
        mean_x, mean_y, differ_x, differ_y = 0.0, 0.0, 0, 0
        for g in range(size if centred else 0):
            mean_x += x[g] / size
            mean_y += y[g] / size
            differ_x |= x[g] != x[0]
            differ_y |= y[g] != y[0]
        xy, xx, yy = 0.0, 0.0, 0.0
        for g in range(size):
            u, v = x[g] - mean_x, y[g] - mean_y
            xy += u * v
            xx += u * u
            yy += v * v
        # rounding must not make a constant row vary
        if xx * yy > 0.0 and (differ_x & differ_y or not centred):
            out[i] = xy / np.sqrt(xx * yy)
    return out


@register("L2")
def l2(truth, prediction, train_mean=None):
    """Euclidean norm of the error over genes, one value per perturbation (natural-log units)."""
    return np.sqrt(_squares(truth, prediction))


@register("MSE")
def mse(truth, prediction, train_mean=None):
    """Mean squared error over genes, one value per perturbation."""
    return _squares(truth, prediction) / truth.shape[1]


@register("MAE")
def mae(truth, prediction, train_mean=None):
    """Mean absolute error over genes, one value per perturbation."""
    return np.abs(truth - prediction).mean(axis=1, dtype=np.float64)


@register("Pearson")
def pearson(truth, prediction, train_mean=None):
    """Pearson correlation over genes, one value per perturbation; 0 where undefined."""
    return _cosines(truth, prediction, True)


@register("Spearman")
def spearman(truth, prediction, train_mean=None):
    """Spearman correlation over genes (ties share ranks), one value per perturbation."""
    return pearson(row_ranks(truth), row_ranks(prediction))


@register("Pearson_delta")
def pearson_delta(truth, prediction, train_mean):
    """Pearson correlation after subtracting the mean training response (g,); 0 where undefined."""
    residual = prediction - train_mean
    # the Train Mean itself must give exactly 0, not the sign of its rounding errors
    residual[np.abs(residual) <= 1e-6 * np.abs(prediction).max(axis=1, keepdims=True)] = 0
    return pearson(truth - train_mean, residual)


@register("cosine")
def cosine(truth, prediction, train_mean=None):
    """Cosine of the angle between true and predicted response; 0 for a zero vector."""
    return _cosines(truth, prediction, False)


@register("top20_recall")
def top20_recall(truth, prediction, train_mean=None, n=20):
    """Share of the `n` genes of largest absolute effect that are also among the predicted `n`."""
    n = min(n, truth.shape[1])
    size = np.abs(prediction)
    asked = np.take_along_axis(size, least(-np.abs(truth), n), axis=1)
    found = np.take_along_axis(size, least(-size, n), axis=1)
    cut = found[:, -1:]
    # ties at the cut share the places that are left, so that the order of genes does not matter
    share = (found == cut).sum(axis=1) / (size == cut).sum(axis=1)
    return ((asked > cut).sum(axis=1) + share * (asked == cut).sum(axis=1)) / n


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
