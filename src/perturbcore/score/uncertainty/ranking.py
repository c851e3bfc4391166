"""Ranks of methods and how sure they are."""

import numpy as np
import pandas as pd
from scipy import stats

from perturbcore.core.errors import ParameterError
from perturbcore.score.uncertainty.units import CEILING, direction, groups_of, nan_mean


def ranks(scores, metric, *, higher_is_better=None, exclude=CEILING) -> pd.DataFrame:
    """Rank of every method within each (cell line, fold); 1 is best, ties share their average.

    Parameters
    ----------
    scores : DataFrame
        The tidy scores table; seeds are averaged first.
    metric : str
    higher_is_better : bool, optional
        As registered in perturbcore.score.metrics if not given.
    exclude : sequence of str
        Embeddings or predictors to leave out.

    Returns
    -------
    DataFrame
        dataset, task, cell_line, fold, embedding, predictor, (modality,) value, rank, n_methods.
        Methods without a (finite) score in a unit have no row there, and `n_methods` says how
        many were ranked.

    References
    ----------
    Cole et al. 2026, Fig. 2.
    """
    higher = direction(metric, higher_is_better)
    tables = []
    for group in groups_of(scores, metric, exclude=exclude):
        rank = _rank_rows(group.values, higher)
        unit, method = np.nonzero(np.isfinite(rank))
        table = pd.DataFrame(group.keys, index=range(len(unit)))
        for part, rows in ((group.index, unit), (group.methods, method)):
            for column in part.columns:
                table[column] = part[column].to_numpy()[rows]
        table["value"], table["rank"] = group.values[unit, method], rank[unit, method]
        table["n_methods"] = np.isfinite(rank).sum(axis=1)[unit]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def rank_table(
    scores,
    metric,
    *,
    by=(),
    higher_is_better=None,
    confidence=0.95,
    n_boot=2000,
    resample="units",
    exclude=CEILING,
    seed=0,
) -> pd.DataFrame:
    """Median and mean rank of every method with a bootstrap interval of the mean rank.

    Parameters
    ----------
    scores, metric, higher_is_better, exclude
        See :func:`ranks`.
    by : sequence of str
        One ranking for each value of these columns; ``()`` is one over all cell lines.
    confidence : float
        Of the percentile interval.
    n_boot : int
    resample : {"units", "lines"}
        What is drawn with replacement: (cell line, fold) units, or cell lines and then folds
        within them (wider; what new cell lines would say).
    seed : int

    Returns
    -------
    DataFrame
        dataset, task, `by`, embedding, predictor, (modality,) median_rank, mean_rank, low, high,
        first_share (share of bootstrap samples in which the method has the best mean rank, ties
        shared), n_units; best median first, ties by mean.

    Raises
    ------
    ParameterError
        If `resample` is unknown.

    Notes
    -----
    Folds share training data, so that intervals over units are somewhat too narrow.
    """
    higher = direction(metric, higher_is_better)
    if resample not in ("units", "lines"):
        raise ParameterError(f"resample={resample!r}: choose 'units' or 'lines'")
    tables = []
    for group in groups_of(scores, metric, by=by, exclude=exclude):
        rank = _rank_rows(group.values, higher)
        weights = _weights(group.index["cell_line"], resample, n_boot, seed)
        there = np.isfinite(rank)
        count = weights @ there
        total = weights @ np.where(there, rank, 0.0)
        means = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
        edges = [(1 - confidence) / 2, (1 + confidence) / 2]
        low, high = np.full((2, means.shape[1]), np.nan)
        known = np.isfinite(means).any(axis=0)
        low[known], high[known] = np.nanquantile(means[:, known], edges, axis=0)
        top = np.isclose(means, np.nanmin(means, axis=1, keepdims=True), rtol=0, atol=1e-9)
        table = pd.DataFrame(group.keys, index=range(len(group.methods)))
        table[list(group.methods.columns)] = group.methods.to_numpy()
        median = np.full(rank.shape[1], np.nan)
        ranked = there.any(axis=0)
        median[ranked] = np.nanmedian(rank[:, ranked], axis=0)
        table["median_rank"], table["mean_rank"] = median, nan_mean(rank)
        table["low"], table["high"] = low, high
        table["first_share"] = (top / top.sum(axis=1, keepdims=True)).mean(axis=0)
        table["n_units"] = there.sum(axis=0)
        tables.append(table.sort_values(["median_rank", "mean_rank"], kind="stable"))
    return pd.concat(tables, ignore_index=True)


def friedman(scores, metric, *, by=(), higher_is_better=None, exclude=CEILING, alpha=0.05):
    """Friedman's test that all methods rank alike, and Nemenyi's critical difference.

    Parameters
    ----------
    scores, metric, by, higher_is_better, exclude
        See :func:`rank_table`.
    alpha : float
        Of the critical difference of mean ranks.

    Returns
    -------
    DataFrame
        dataset, task, `by`, statistic, p, critical_difference, n_units, n_methods; over units in
        which every method has a score (NaN where there are fewer than 2, or 3 methods).

    References
    ----------
    Demsar 2006, Journal of Machine Learning Research 7.
    """
    higher = direction(metric, higher_is_better)
    rows = []
    for group in groups_of(scores, metric, by=by, exclude=exclude):
        values = group.values[np.isfinite(group.values).all(axis=1)]
        n, k = values.shape
        statistic = p = critical = np.nan
        if n >= 2 and k >= 3:
            statistic, p = stats.friedmanchisquare(*_rank_rows(values, higher).T)
            q = stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2)
            critical = q * np.sqrt(k * (k + 1) / (6 * n))
        rows.append({**group.keys, "statistic": statistic, "p": p})
        rows[-1].update(critical_difference=critical, n_units=n, n_methods=k)
    return pd.DataFrame(rows)


def _rank_rows(values, higher) -> np.ndarray:
    return stats.rankdata(-values if higher else values, axis=1, nan_policy="omit")


def _weights(lines, resample, n_boot, seed) -> np.ndarray:
    """How often each unit is drawn in each bootstrap sample, (n_boot, units)."""
    rng = np.random.default_rng(seed)
    n = len(lines)
    if resample == "units":
        return rng.multinomial(n, np.full(n, 1 / n), size=n_boot).astype(np.float64)
    codes, names = pd.factorize(lines)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_boot)
    weights = np.zeros((n_boot, n))
    for line in range(len(names)):
        members = np.flatnonzero(codes == line)
        size = len(members)
        weights[:, members] = rng.multinomial(size * drawn[:, line], np.full(size, 1 / size))
    return weights
