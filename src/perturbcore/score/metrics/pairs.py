"""Metrics of partial differential-expression labels, compared only within a gene.

A pair is (perturbation, gene) with a known label. Genes differ in how often they respond, and
labels are known for a chosen few perturbations a gene; comparing scores only among the labelled
test perturbations of one gene takes both out, so that the Train Mean scores exactly 0.5. Scores
that agree to nine decimals are ties.
"""

import numba
import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.score.metrics.registry import register

DECIMALS = 9


def tied(score: np.ndarray) -> np.ndarray:
    """Round scores, so that equal ones are ties: sums of equal numbers differ by their order."""
    return np.round(np.asarray(score, dtype=np.float64), DECIMALS)


@numba.njit(nogil=True, cache=True)
def _count(start, code, label, weight, right, possible):
    """Count the pairs of each gene; a run of equal scores begins at each `start`, then the end."""
    negative = positive = 0.0
    for r in range(len(start) - 1):
        g = code[start[r]]
        if r == 0 or g != code[start[r] - 1]:
            negative = positive = 0.0
        up = down = 0.0
        for i in range(start[r], start[r + 1]):
            up += weight[i] * label[i]
            down += weight[i] * (1.0 - label[i])
        right[g] += up * (negative + down / 2)
        negative, positive = negative + down, positive + up
        possible[g] = positive * negative


class _Ranked:
    """Labelled pairs (n,), sorted by gene and score: who is above whom within a gene."""

    def __init__(self, label, score, gene):
        score = tied(score)
        if np.isnan(score).any():
            raise InputError("a score is NaN: pairs cannot be ranked by it")
        code, genes = pd.factorize(np.asarray(gene), sort=True)
        order = np.argsort(score)
        # small integers are sorted by counting, far faster than by comparing
        small = code.astype(np.uint16) if len(genes) < 2**16 else code
        self.order = order[np.argsort(small[order], kind="stable")]
        self.code, self.n = code[self.order], len(genes)
        self.label = np.asarray(label, dtype=np.float64)[self.order]
        new = np.diff(self.code, prepend=-1) > 0
        run = new | (np.diff(score[self.order], prepend=np.nan) != 0)  # equal scores of a gene
        self.first = np.flatnonzero(new)
        self.start, self.run = np.flatnonzero(run), np.cumsum(run) - 1

    def below(self, weight) -> tuple[np.ndarray, np.ndarray]:
        """Sum weights (n,) over the gene's pairs below each, ties by half, and over all, (n,)."""
        before = np.r_[0, np.cumsum(weight)]
        low, high = before[self.start], before[np.r_[self.start[1:], len(weight)]]
        total = np.bincount(self.code, weight, self.n)[self.code]
        return (low + high)[self.run] / 2 - before[self.first][self.code], total

    def concordance(self, weight) -> tuple[np.ndarray, np.ndarray]:
        """Concordant and possible pairs of each gene; a pair of weight w counts as w equal ones."""
        right, possible = np.zeros((2, self.n))
        start = np.append(self.start, len(self.code))
        _count(start, self.code, self.label, weight, right, possible)
        return right, possible


def concordance(label, score, gene) -> tuple[np.ndarray, np.ndarray]:
    """Count concordant and possible (positive, negative) pairs per gene; ties count half."""
    return _Ranked(label, score, gene).concordance(np.ones(len(score)))


def concordance_of(label, score, gene, row, n: int) -> np.ndarray:
    """Share of right comparisons that each of `n` perturbations takes part in, (n,), or NaN."""
    ranked, row = _Ranked(label, score, gene), np.asarray(row)
    up, row = ranked.label, row[ranked.order]
    # a positive is right above a negative, a negative below a positive
    (low, negatives), (under, positives) = ranked.below(1 - up), ranked.below(up)
    right = np.where(up > 0, low, positives - under)
    possible = np.where(up > 0, negatives, positives)
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
    """Interval (95 %) of `auroc_per_gene` over perturbations, which are drawn with replacement."""
    names, row = np.unique(row, return_inverse=True)
    rng, n = np.random.default_rng(seed), len(names)
    times = (np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(n_draws))
    ranked = _Ranked(label, score, gene)
    row = row[ranked.order]
    drawn = [_mean_over_genes(*ranked.concordance(t[row].astype(np.float64))) for t in times]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


@register("ap_within")
def ap_within(label, score, gene, threshold=None):
    """Average precision of genes with both labels, weighted by positives; ties are as one."""
    score = tied(score)
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
    called = np.asarray(score) >= threshold
    scores = []
    for truth, call in ((label, called), (~label, ~called)):
        bottom = truth.sum() + call.sum()
        scores.append(2 * (truth & call).sum() / bottom if bottom else 0.0)
    return float(np.mean(scores))
