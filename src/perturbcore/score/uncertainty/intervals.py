"""Intervals and tests of a few numbers: means over folds, paired differences, many p-values."""

from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats

from perturbcore.core.errors import InputError, ParameterError

EXACT_UNITS = 12
FLIPS = 9999


class Interval(NamedTuple):
    """A mean with its confidence interval; the bounds are NaN where they are undefined."""

    mean: float
    low: float
    high: float
    n: int
    sd: float


class Difference(NamedTuple):
    """A mean paired difference with its bootstrap interval and two-sided p-value."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def mean_ci(values, confidence=0.95, *, test_ratio=0.0) -> Interval:
    """Mean and Student-t confidence interval.

    Parameters
    ----------
    values : array, (n,)
        NaNs are left out. One value has a mean and an undefined (NaN) interval.
    confidence : float
    test_ratio : float
        Test size over training size where the values come from folds whose training sets
        overlap: the variance of the mean is then taken as s^2 (1 / n + test_ratio), which widens
        the interval (by 1.5 for 5 folds). 0 is the plain interval.

    Returns
    -------
    Interval

    Raises
    ------
    ParameterError
        If confidence is not between 0 and 1.

    References
    ----------
    Nadeau and Bengio 2003, Machine Learning 52.
    """
    found = t_statistics(
        np.asarray(values, dtype=np.float64).reshape(-1, 1), test_ratio, confidence
    )
    return Interval(
        *(float(found[k][0]) for k in ("mean", "low", "high")),
        int(found["n"][0]),
        float(found["sd"][0]),
    )


def t_statistics(values, test_ratio=0.0, confidence=0.95) -> dict:
    """One-sample t-test of every column against 0, with interval.

    Parameters
    ----------
    values : ndarray, (units, columns)
        NaN where a unit is missing.
    test_ratio, confidence
        See :func:`mean_ci`.

    Returns
    -------
    dict
        mean, low, high, t, p, sd, n; arrays (columns,). Columns with one unit have NaN bounds,
        t and p; columns without any spread have p 1 where the mean is 0, else 0.
    """
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence={confidence!r}: give a number between 0 and 1")
    if test_ratio < 0:
        raise ParameterError(f"test_ratio={test_ratio!r}: give a number of at least 0")
    there = np.isfinite(values)
    n = there.sum(axis=0)
    mean = np.divide(
        np.where(there, values, 0).sum(axis=0), n, out=np.full(n.shape, np.nan), where=n > 0
    )
    squares = np.where(there, values - mean, 0) ** 2
    sd = np.sqrt(np.divide(squares.sum(axis=0), n - 1, out=np.full(n.shape, np.nan), where=n > 1))
    se = sd * np.sqrt(1 / np.maximum(n, 1) + test_ratio)
    freedom = np.maximum(n - 1, 1)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, np.where(np.isnan(se), np.nan, 0.0), mean / se)
    p = np.where(np.isnan(t), np.nan, 2 * stats.t.sf(np.abs(t), freedom))
    return {"mean": mean, "low": mean - half, "high": mean + half, "t": t, "p": p, "sd": sd, "n": n}


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


def holm(p) -> np.ndarray:
    """Holm's step-down adjustment of p-values; NaNs stay NaN and do not count.

    References
    ----------
    Holm 1979, Scandinavian Journal of Statistics 6.
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def paired_bootstrap(a, b, n=2000, seed=0, *, confidence=0.95) -> Difference:
    """Bootstrap of the mean difference a - b over the pairs.

    Parameters
    ----------
    a, b : array, (pairs,)
        A metric of two methods on the same perturbations, in the same order.
    n : int
        Bootstrap samples.
    seed : int
    confidence : float
        Of the percentile interval.

    Returns
    -------
    Difference

    Raises
    ------
    InputError
        If the lengths differ or a value is not finite.

    Notes
    -----
    It says what other perturbations of the same kind would give with these very models: noise of
    training on another fold is not in it.
    """
    a, b = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()
    if len(a) != len(b) or not len(a):
        raise InputError(f"a has {len(a)} values and b {len(b)}; give one pair a perturbation")
    difference = a - b
    if not np.isfinite(difference).all():
        raise InputError("a or b has NaN or infinite values; drop these pairs first")
    rng = np.random.default_rng(seed)
    size = len(difference)
    means = np.empty(n)
    step = max(1, 2**22 // size)
    for start in range(0, n, step):
        stop = min(n, start + step)
        means[start:stop] = difference[rng.integers(size, size=(stop - start, size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    below, above = (means <= 0).sum(), (means >= 0).sum()
    p = min(1.0, 2 * (1 + min(below, above)) / (1 + n))
    return Difference(float(difference.mean()), float(low), float(high), float(p), size)
