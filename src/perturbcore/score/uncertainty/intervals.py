"""Signs flipped at random; the rest lies in `perturbcore.score.uncertainty`."""

from itertools import product

import numpy as np

from perturbcore.score.uncertainty import Interval, holm, mean_ci, t_statistics  # noqa: F401

EXACT_UNITS = 12
FLIPS = 9999


def sign_flip_p(values, seed=0) -> np.ndarray:
    """Two-sided p-value of the mean of every column when signs of units are exchangeable.

    Parameters
    ----------
    values : ndarray, (units, columns)
        Paired differences; NaN where a unit is missing.
    seed : int

    Returns
    -------
    ndarray, (columns,)
        Exact up to 12 units (5 folds cannot give less than 1/16), else from 9,999 random flips.

    Notes
    -----
    It takes the units as exchangeable and so does not correct for folds that share training data.
    """
    filled = np.where(np.isfinite(values), values, 0.0)
    n_units = len(filled)
    exact = n_units <= EXACT_UNITS
    if exact:
        signs = np.array(list(product((1.0, -1.0), repeat=n_units)))
    else:
        signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(FLIPS, n_units))
        signs = np.vstack([np.ones(n_units), signs])
    p = np.empty(filled.shape[1])
    step = max(1, 2**22 // len(signs))
    for start in range(0, len(p), step):
        part = filled[:, start : start + step]
        observed = np.abs(part.sum(axis=0))
        # Sums that differ by rounding only are the same sum.
        tolerance = 1e-12 * np.abs(part).sum(axis=0)
        p[start : start + step] = (np.abs(signs @ part) >= observed - tolerance).mean(axis=0)
    return np.where(np.isfinite(values).any(axis=0), p, np.nan)
