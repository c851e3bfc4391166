"""Predictors of partial differential-expression labels: known labels of near perturbations.

The score of (perturbation, gene) is ``(sum_j w_j y_jg + m b_g) / (sum_j w_j o_jg + m)`` with
weights w, labels y, known-mask o, the gene's smoothed rate b and the weight m (`prior`) of that
rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import scipy.sparse as sp

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor, Targets, checked_grid, neighbour_grid
from perturbcore.models.simple.space import NestedSpace, Space, unit
from perturbcore.score.labels import Labels, best_threshold
from perturbcore.score.metrics.pairs import auroc_within
from perturbcore.score.task import task_of


@numba.njit(nogil=True, cache=True)
def _weighted(start, rows, label, weight, q_indptr, q_genes, rate, prior, out):
    """out[j, e] = score of query entry e by weight[p, :, j]; labels are sorted by gene."""
    n_weights = weight.shape[2]
    known, positive = np.empty(n_weights), np.empty(n_weights)
    for p in range(weight.shape[0]):
        for q in range(q_indptr[p], q_indptr[p + 1]):
            g = q_genes[q]
            known[:] = 0.0
            positive[:] = 0.0
            for at in range(start[g], start[g + 1]):
                for j in range(n_weights):
                    known[j] += weight[p, rows[at], j]
                    positive[j] += weight[p, rows[at], j] * label[at]
            for j in range(n_weights):
                out[j, q] = (positive[j] + prior * rate[g]) / (known[j] + prior)


def weighted_scores(known: Labels, query: Labels, weight, *, prior: float, rate) -> np.ndarray:
    """Score the entries of `query` by weights (m, n, k) of the rows of `known`, (k, n_entries)."""
    shape = (len(known), known.n_genes)
    by_gene = sp.csr_matrix((known.label, known.genes, known.indptr), shape).tocsc()
    out = np.empty((weight.shape[2], len(query.genes)))
    _weighted(
        by_gene.indptr, by_gene.indices, by_gene.data, np.ascontiguousarray(weight), query.indptr,
        query.genes, rate, float(prior), out,
    )  # fmt: skip
    return out


def cosine_kernel(space: Space) -> np.ndarray:
    """Cosine of each test row with each training row, negative parts cut, (m, n)."""
    test, train = (unit(x.astype(np.float64)) for x in (space.test, space.train))
    return np.maximum(test @ train.T, 0)


def raise_to(kernel: np.ndarray, power: float) -> np.ndarray:
    """Raise each entry to a power; a whole one by a few products, much faster than pow()."""
    if power != int(power) or power < 1:
        return kernel**power
    out, square, left = np.ones((), dtype=kernel.dtype), kernel, int(power)
    while left:
        if left % 2:
            out = out * square
        left //= 2
        square = square * square if left else square
    return out


def kernel_scores(
    known: Labels, query: Labels, kernel, powers, *, total, prior, rate
) -> np.ndarray:
    """Score the entries of `query` by a kernel (m, n) raised to each power, (n_powers, n_entries).

    The weights of a row are scaled to sum `total`; a row without positive weight gets the rates.
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    weight = np.stack([raise_to(kernel, p) for p in powers], axis=-1)
    size = weight.sum(axis=1, keepdims=True)
    weight *= np.divide(total, size, out=np.zeros_like(size), where=size > 0)
    return weighted_scores(known, query, weight, prior=prior, rate=rate)


def tuned_on_pairs(truth: Sequence[Labels], scores: Sequence, grid: Sequence) -> tuple:
    """Choose from a grid by AUROC within gene; `scores` (n_grid, n_pairs) of each inner fold.

    Returned with the choice are the labels of all pairs, and their scores under it.
    """
    losses = [
        [-auroc_within(q.label, s, q.genes) for s in part]
        for q, part in zip(truth, scores, strict=True)
    ]
    at = int(np.argmin(np.mean(losses, axis=0)))
    label = np.concatenate([q.label for q in truth])
    return grid[at], (label, np.concatenate([part[at] for part in scores]))


class Smoother(Predictor):
    """Choose a candidate by AUROC within gene on the inner folds, then score every pair."""

    task = task_of("deg_pairs")
    prior: float

    def scores(self, space: Space, known: Labels, query: Labels, rate, grid) -> np.ndarray:
        """Score the entries of `query`, test rows of `space`, (len(grid), n_entries)."""
        raise NotImplementedError

    def predict(self, space: NestedSpace, targets: Targets):
        """Return scores (m, g) of all pairs, the chosen candidate, and the threshold of best F1."""
        rate = targets.source.rates()
        genes, source = targets.source.used()
        known = source[targets.rows]
        scores = [
            self.scores(inner, known[a], known[b], known[a].rates(), self.grid)
            for (a, b), inner in zip(space.splits, space.inner, strict=True)
        ]
        chosen, pooled = tuned_on_pairs([known[b] for _, b in space.splits], scores, self.grid)
        # a gene without any known training label gets the overall rate
        values = np.tile(rate, (len(space.test), 1))
        every = Labels.every_pair(len(values), len(genes))
        found = self.scores(space.outer, known, every, rate[genes], [chosen])[0]
        values[:, genes] = found.reshape(len(values), -1)
        return values, chosen, best_threshold(*pooled)


@dataclass
class LabelKNN(Smoother):
    """Share of positives among the known labels of the k nearest perturbations."""

    grid: Sequence[int] = (5, 10, 20, 40, 80)
    prior: float = 3.0
    name: str = "knn"

    def __post_init__(self):
        self.grid = neighbour_grid(self.grid, self.prior)

    def scores(self, space, known, query, rate, grid):
        """See `Smoother.scores`."""
        usable = [min(k, len(space.train)) for k in grid]
        near = space.neighbours(max(usable))
        rank = np.full((len(near), len(space.train)), len(space.train))
        np.put_along_axis(rank, near, np.arange(near.shape[1])[None], axis=1)
        weight = (rank[:, :, None] < usable).astype(np.float64)
        return weighted_scores(known, query, weight, prior=self.prior, rate=rate)


@dataclass
class LabelKernel(Smoother):
    """All training perturbations, weighted by a power of the cosine to them.

    `grid`: candidate powers; `total`: sum of the weights of a perturbation.
    """

    grid: Sequence[float] = (1.0, 2.0, 4.0)
    total: float = 60.0
    prior: float = 3.0
    name: str = "kernel"

    def __post_init__(self):
        self.grid = checked_grid(self.grid, float, "powers must be above 0")
        if self.prior <= 0 or self.total <= 0:
            raise ParameterError("total and prior must be above 0")

    def scores(self, space, known, query, rate, grid):
        """See `Smoother.scores`."""
        weights = dict(total=self.total, prior=self.prior, rate=rate)
        return kernel_scores(known, query, cosine_kernel(space), grid, **weights)
