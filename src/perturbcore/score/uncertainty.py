"""How sure a mean over folds or a difference is: corrected intervals, adjusted p-values."""

import numpy as np
from scipy import stats


def t_statistics(values: np.ndarray, test_ratio: float = 0.0) -> dict:
    """Test columns of (units, columns) against 0, NaN where a unit is missing.

    `test_ratio`: test size over training size where units are folds whose training sets overlap:
    the variance of the mean is then s^2 (1 / n + test_ratio) (Nadeau and Bengio 2003).
    Returns mean, low, high (95 % Student-t interval), t, p, sd and n of each column, NaN where
    undefined.
    """
    there = np.isfinite(values)
    n = there.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, values, 0).sum(axis=0) / n
        squares = (np.where(there, values - mean, 0) ** 2).sum(axis=0)
        sd = np.where(n > 1, np.sqrt(squares / (n - 1)), np.nan)
    se = sd * np.sqrt(1 / np.maximum(n, 1) + test_ratio)
    freedom = np.maximum(n - 1, 1)
    half = stats.t.ppf(0.975, freedom) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, np.where(np.isnan(se), np.nan, 0.0), mean / se)
    p = np.where(np.isnan(t), np.nan, 2 * stats.t.sf(np.abs(t), freedom))
    return {"mean": mean, "low": mean - half, "high": mean + half, "t": t, "p": p, "sd": sd, "n": n}


def resampled_means(values, counts, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """Means of columns over units (rows) drawn with replacement: draws x columns.

    `values`: sum of each unit, 0 where it is missing; `counts`: how many values a sum is of.
    """
    n = len(values)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_boot)
    with np.errstate(invalid="ignore"):
        return (weights @ values) / (weights @ counts)


def holm(p) -> np.ndarray:
    """Holm's step-down adjustment of p-values; NaNs stay NaN and do not count."""
    p = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known])]
    adjusted = np.full(p.shape, np.nan)
    # as statsmodels has it, which collects garbage at each call: up to a second in a large process
    steps = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted
