"""Metrics of partial differential-expression labels, compared only within a gene.

A pair is (perturbation, gene) with a known label. Genes differ in how often they respond, and
labels are known for a chosen few perturbations a gene; comparing scores only among the labelled
test perturbations of one gene takes both out, so that the Train Mean scores exactly 0.5.
"""

import numba
import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.score.metrics.registry import register


@numba.njit(nogil=True, cache=True)
def _rank_sums(order, score, code, label, weight, n_genes):
    """Positives, negatives and rank sum of the positives of each gene; `order` sorts the scores.

    An entry of weight w counts as w equal entries.
    """
    positive, known = np.zeros(n_genes), np.zeros(n_genes)
    rank_sum, ties, tied = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes)
    last = np.full(n_genes, -np.inf)
    for i in order:
        g = code[i]
        if known[g] == 0 or score[i] != last[g]:
            # the positives of the last run of equal scores share its mean rank
            rank_sum[g] += tied[g] * (known[g] - 0.5 * (ties[g] - 1))
            ties[g] = tied[g] = 0
            last[g] = score[i]
        w = weight[i]
        known[g] += w
        ties[g] += w
        tied[g] += w * label[i]
        positive[g] += w * label[i]
    rank_sum += tied * (known - 0.5 * (ties - 1))
    return positive, known - positive, rank_sum


def _concordances(label, score, gene, weights):
    """Yield concordant and possible pairs of each gene for each weighting (n,) of the entries."""
    score = np.asarray(score, dtype=np.float64)
    if np.isnan(score).any():
        raise InputError("a score is NaN: pairs cannot be ranked by it")
    code, genes = pd.factorize(np.asarray(gene), sort=True)
    label, order = np.asarray(label, dtype=np.float64), np.argsort(score)
    for weight in weights:
        positive, negative, ranks = _rank_sums(order, score, code, label, weight, len(genes))
        yield ranks - positive * (positive + 1) / 2, positive * negative


def concordance(label, score, gene) -> tuple[np.ndarray, np.ndarray]:
    """Count concordant and possible (positive, negative) pairs per gene; ties count half.

    `label`, `score`, `gene` are (n,) arrays over labelled pairs; the AUROC of a gene is the ratio.
    """
    return next(_concordances(label, score, gene, [np.ones(len(score))]))


def concordance_of(label, score, gene, row, n: int) -> np.ndarray:
    """Share of the comparisons that each of `n` perturbations takes part in that are right, (n,).

    A comparison is a positive and a negative of one gene; ties count half, and who has none gets
    NaN. Weighted by the numbers of comparisons, the mean is `auroc_within`.
    """
    code, _ = pd.factorize(np.asarray(gene), sort=True)
    label = np.asarray(label, dtype=np.float64)
    score = np.asarray(score, dtype=np.float64)
    order = np.lexsort((score, code))
    first = np.r_[True, np.diff(code[order]) > 0]
    run = np.cumsum(first | np.r_[True, np.diff(score[order]) > 0]) - 1  # equal scores of a gene
    right, possible = np.zeros(len(label)), np.zeros(len(label))
    for sign, other in ((label, 1 - label), (1 - label, label)):
        # a positive is right above a negative, a negative below a positive
        total = np.bincount(code, other)[code[order]]
        before = np.r_[0, np.cumsum(other[order])]
        starts = np.flatnonzero(np.r_[True, np.diff(run) > 0])
        ends = np.r_[starts[1:], len(run)]
        low = before[starts][run] - before[np.flatnonzero(first)][code[order]]
        ties = (before[ends] - before[starts])[run]
        below = low + ties / 2 if sign is label else total - low - ties / 2
        right[order] += sign[order] * below
        possible[order] += sign[order] * total
    with np.errstate(invalid="ignore"):
        return np.bincount(row, right, n) / np.bincount(row, possible, n)


@register("auroc_within")
def auroc_within(label, score, gene, threshold=None):
    """Concordance over pairs of labelled perturbations of the same gene, pooled over genes."""
    concordant, possible = concordance(label, score, gene)
    return float(concordant.sum() / possible.sum()) if possible.sum() else 0.5


@register("auroc_per_gene")
def auroc_per_gene(label, score, gene, threshold=None):
    """AUROC of each gene with both labels, averaged over those genes."""
    return _mean_over_genes(*concordance(label, score, gene))


def _mean_over_genes(concordant, possible) -> float:
    keep = possible > 0
    return float((concordant[keep] / possible[keep]).mean()) if keep.any() else 0.5


def auroc_interval(label, score, gene, row, *, n_draws=200, seed=0) -> tuple[float, float]:
    """Interval (95 %) of `auroc_per_gene` over perturbations, which are drawn with replacement.

    `row` (n,): the perturbation of each pair. Quantiles 0.025 and 0.975 of `n_draws` values.
    """
    names, row = np.unique(row, return_inverse=True)
    rng, n = np.random.default_rng(seed), len(names)
    times = (np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(n_draws))
    weights = (t[row].astype(np.float64) for t in times)
    drawn = [_mean_over_genes(*found) for found in _concordances(label, score, gene, weights)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


@register("ap_within")
def ap_within(label, score, gene, threshold=None):
    """Average precision of each gene with both labels, weighted by its positives.

    Tied scores are one threshold, as in scikit-learn's ``average_precision_score``.
    """
    order = np.lexsort((-score, gene))
    g, s, y = np.asarray(gene)[order], np.asarray(score)[order], np.asarray(label)[order]
    first = np.r_[True, g[1:] != g[:-1]]
    last_of_tie = np.r_[(g[1:] != g[:-1]) | (s[1:] != s[:-1]), True]
    code = np.cumsum(first) - 1
    before = np.flatnonzero(first)[code]
    cumulative = np.cumsum(y)
    hits = cumulative - (cumulative[before] - y[before])
    precision = hits / (np.arange(len(y)) - before + 1)
    # every positive of a tie has the precision at the end of its tie
    end = np.flatnonzero(last_of_tie)[np.r_[0, np.cumsum(last_of_tie)[:-1]]]
    n = np.bincount(code)
    positive = np.bincount(code, weights=y)
    both = ((positive > 0) & (positive < n))[code]
    total = y[both].sum()
    return float((precision[end] * y)[both].sum() / total) if total else 0.0


@register("macro_F1")
def macro_f1(label, score, gene, threshold=0.5):
    """F1 of the positive and of the negative class at `threshold`, averaged; 0 where undefined."""
    label = np.asarray(label, dtype=bool)
    called = np.asarray(score) >= (0.5 if threshold is None else threshold)
    scores = []
    for truth, call in ((label, called), (~label, ~called)):
        bottom = truth.sum() + call.sum()
        scores.append(2 * (truth & call).sum() / bottom if bottom else 0.0)
    return float(np.mean(scores))
