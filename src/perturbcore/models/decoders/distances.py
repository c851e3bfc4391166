"""How far two samples of cells are apart as distributions: exact, weighted, block by block.

Every measure takes weights, so that cells generated in equal numbers per batch can stand for a
sample with another composition of batches. Energy distance and MMD are corrected for their bias:
samples of one distribution are on average at distance 0, whatever their sizes, and single values
may be negative.
"""

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.score.metrics.registry import register

BLOCK = 2048
PAIRS_FOR_BANDWIDTH = 1000


@register(
    "energy",
    "cells",
    label="Energy distance (latent)",
    higher_is_better=False,
    bounds=(-np.inf, np.inf),
    formula=r"2 E|X - Y| - E|X - X'| - E|Y - Y'|",
    reference="Szekely and Rizzo 2013",
)
def energy_distance(x, y, wx=None, wy=None, *, block: int = BLOCK) -> float:
    r"""Energy distance :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|`.

    Parameters
    ----------
    x, y : (n, d), (m, d) arrays
        Cells in the same coordinates.
    wx, wy : (n,), (m,) arrays, optional
        Weights, brought to sum 1; equal by default.
    block : int
        Cells compared at a time: memory is block squared.

    Returns
    -------
    float
        In units of the coordinates; NaN where a sample has fewer than two cells.

    Raises
    ------
    InputError
        The samples have different coordinates, or a value is not finite.

    References
    ----------
    Szekely and Rizzo 2013, Journal of Statistical Planning and Inference 143; used for single cells
    by Peidli et al. 2024, Nature Methods 21.
    """
    return -_discrepancy(x, y, wx, wy, lambda d: d, block)


def mmd(x, y, bandwidth: float, wx=None, wy=None, *, block: int = BLOCK) -> float:
    r"""Squared maximum mean discrepancy with the kernel :math:`\exp(-|x-y|^2 / 2\sigma^2)`.

    Between 0 and 2 but for noise. `bandwidth` is :math:`\sigma` (see `median_distance`), the rest
    is as in `energy_distance`.

    References
    ----------
    Gretton et al. 2012, Journal of Machine Learning Research 13, Eq. 3.
    """
    if not bandwidth > 0:
        raise ParameterError(f"bandwidth={bandwidth}: give a positive number (median_distance)")
    return _discrepancy(x, y, wx, wy, lambda d: np.exp(-0.5 * (d / bandwidth) ** 2), block)


def median_distance(x, limit: int = PAIRS_FOR_BANDWIDTH) -> float:
    """Median of the distances between cells, the usual bandwidth of a Gaussian kernel.

    Of more cells than `limit`, evenly spaced rows are taken. 1 where all cells are equal, so that
    it always serves as a bandwidth (Gretton et al. 2012, section 8).
    """
    x = np.asarray(x, dtype=np.float64)
    if len(x) > limit:
        x = x[np.linspace(0, len(x) - 1, limit).astype(int)]
    d = euclidean_distances(x - x.mean(axis=0))
    middle = float(np.median(d[np.triu_indices(len(x), 1)])) if len(x) > 1 else 0.0
    return middle if middle > 0 else 1.0


def variance_ratio(x, y, wx=None, wy=None) -> np.ndarray:
    """Variance of each gene among the cells `x` over that among the cells `y`, (g,).

    1 where the spread is right, below 1 where cells are too alike; NaN where a gene does not vary
    in `y`, or a sample has fewer than two cells. Weights as in `energy_distance`.
    """
    x, y, wx, wy = _samples(x, y, wx, wy)
    out = np.full(x.shape[1], np.nan)
    if min(len(x), len(y)) < 2:
        return out
    top, bottom = _variance(x, wx), _variance(y, wy)
    # a constant column must not become a variance by rounding
    varies = np.ptp(y, axis=0) > 0
    return np.divide(top, bottom, out=out, where=varies & (bottom > 0))


def batch_weights(batch, target) -> np.ndarray:
    """Weights (n,) that give cells of some batches (n,) the composition of batches `target` (m,).

    They sum to 1; cells of batches that the target lacks get 0. Equal weights where the two share
    no batch.
    """
    batch, target = np.asarray(batch).astype(str), np.asarray(target).astype(str)
    names, code, count = np.unique(batch, return_inverse=True, return_counts=True)
    wanted = np.array([(target == name).mean() for name in names])
    weight = (wanted / count)[code]
    total = weight.sum()
    return weight / total if total > 0 else np.full(len(batch), 1 / len(batch))


def _samples(x, y, wx, wy):
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(f"samples of shape {x.shape} and {y.shape}: both need the same columns")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("a sample of cells has NaN or infinity: drop these cells")
    # the distance of two points does not depend on the origin; its rounding error does
    centre = y.mean(axis=0) if len(y) else 0.0
    return x - centre, y - centre, _weights(wx, len(x)), _weights(wy, len(y))


def _weights(w, n: int) -> np.ndarray:
    if w is None:
        return np.full(n, 1 / max(n, 1))
    w = np.asarray(w, dtype=np.float64)
    if w.shape != (n,) or (w < 0).any() or not w.sum() > 0:
        raise InputError(
            f"weights of shape {w.shape} for {n} cells: one number of at least 0 per cell is due"
        )
    return w / w.sum()


def _discrepancy(x, y, wx, wy, function, block: int) -> float:
    """Mean of a function of the distance within x, plus that within y, less twice that between."""
    x, y, wx, wy = _samples(x, y, wx, wy)
    if min(len(x), len(y)) < 2:
        return float("nan")
    within = _mean(x, x, wx, wx, function, block) + _mean(y, y, wy, wy, function, block)
    return within - 2 * _mean(x, y, wx, wy, function, block)


def _mean(x, y, wx, wy, function, block: int) -> float:
    """Weighted mean over pairs; within one sample (`x` is `y`) over pairs of different cells."""
    total, same = 0.0, x is y
    for i in range(0, len(x), block):
        for j in range(i if same else 0, len(y), block):
            d = euclidean_distances(x[i : i + block], y[j : j + block])
            if same and i == j:
                np.fill_diagonal(d, 0.0)
            part = float(wx[i : i + block] @ function(d) @ wy[j : j + block])
            total += 2 * part if same and i < j else part
    if not same:
        return total
    alone = float((wx**2).sum())
    itself = float(function(np.zeros(1))[0])
    return (total - alone * itself) / (1 - alone) if alone < 1 else float("nan")


def _variance(x, w) -> np.ndarray:
    mean = w @ x
    alone = float((w**2).sum())
    spread = w @ (x - mean) ** 2
    return spread / (1 - alone) if alone < 1 else np.full(x.shape[1], np.nan)
