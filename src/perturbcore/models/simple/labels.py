"""Predictors of partial differential-expression labels: known labels of near perturbations.

The score of (perturbation, gene) is ``(sum_j w_j y_jg + m b_g) / (sum_j w_j o_jg + m)`` with
weights w, labels y, known-mask o, the gene's smoothed rate b and the weight m (`prior`) of that
rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor, Targets, best_of, checked_grid, neighbour_grid
from perturbcore.models.simple.space import NestedSpace, Space, unit
from perturbcore.score.labels import Labels, best_threshold
from perturbcore.score.metrics.pairs import auroc_within
from perturbcore.score.task import task_of


@numba.njit(nogil=True, cache=True)
def _knn_scores(indptr, genes, label, near, grid, q_indptr, q_genes, rate, prior, out):
    """out[j, e] = score of query entry e from the grid[j] nearest rows."""
    known = np.zeros(len(rate))
    positive = np.zeros(len(rate))
    for p in range(near.shape[0]):
        known[:] = 0.0
        positive[:] = 0.0
        j = 0
        for i in range(near.shape[1]):
            row = near[p, i]
            for e in range(indptr[row], indptr[row + 1]):
                known[genes[e]] += 1.0
                positive[genes[e]] += label[e]
            if i + 1 == grid[j]:
                for e in range(q_indptr[p], q_indptr[p + 1]):
                    g = q_genes[e]
                    out[j, e] = (positive[g] + prior * rate[g]) / (known[g] + prior)
                j += 1
                if j == len(grid):
                    break


@numba.njit(nogil=True, cache=True)
def _by_gene(indptr, genes, n_genes):
    """Sort the entries by gene: where each gene begins, then row and entry number of each."""
    begin = np.zeros(n_genes + 1, dtype=np.int64)
    for g in genes:
        begin[g + 1] += 1
    begin = np.cumsum(begin)
    at = begin[:-1].copy()
    rows = np.empty(len(genes), dtype=np.int64)
    entries = np.empty(len(genes), dtype=np.int64)
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            g = genes[e]
            rows[at[g]] = row
            entries[at[g]] = e
            at[g] += 1
    return begin, rows, entries


@numba.njit(nogil=True, cache=True)
def _kernel_scores(indptr, genes, label, weight, q_indptr, q_genes, rate, prior, out):
    """out[j, e] = score of entry e with weights weight[p, :, j].

    Labels are sparse: only the rows that know a query entry's own gene are visited.
    """
    n_powers = weight.shape[2]
    begin, rows, entries = _by_gene(indptr, genes, len(rate))
    known, positive = np.empty(n_powers), np.empty(n_powers)
    for p in range(weight.shape[0]):
        for q in range(q_indptr[p], q_indptr[p + 1]):
            g = q_genes[q]
            known[:] = 0.0
            positive[:] = 0.0
            for at in range(begin[g], begin[g + 1]):
                row, y = rows[at], label[entries[at]]
                for j in range(n_powers):
                    known[j] += weight[p, row, j]
                    positive[j] += weight[p, row, j] * y
            for j in range(n_powers):
                out[j, q] = (positive[j] + prior * rate[g]) / (known[j] + prior)


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
    out = np.empty((len(powers), len(query.genes)))
    _kernel_scores(
        known.indptr, known.genes, known.label, weight, query.indptr, query.genes, rate,
        float(prior), out,
    )  # fmt: skip
    return out


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
        losses, inner_scores, inner_labels = [], [], []
        for (a, b), inner in zip(space.splits, space.inner, strict=True):
            train, validation = known[a], known[b]
            found = self.scores(inner, train, validation, train.rates(), self.grid)
            losses.append([-auroc_within(validation.label, s, validation.genes) for s in found])
            inner_scores.append(found)
            inner_labels.append(validation.label)
        chosen = best_of(np.array(losses), self.grid)
        at = list(self.grid).index(chosen)
        pooled = np.concatenate([s[at] for s in inner_scores])
        threshold = best_threshold(np.concatenate(inner_labels), pooled)
        # a gene without any known training label gets the overall rate
        values = np.tile(rate, (len(space.test), 1))
        every = Labels.every_pair(len(values), len(genes))
        found = self.scores(space.outer, known, every, rate[genes], [chosen])[0]
        values[:, genes] = found.reshape(len(values), -1)
        return values, chosen, threshold


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
        ks = np.unique(np.asarray(usable, dtype=np.int64))
        out = np.empty((len(ks), len(query.genes)))
        near = space.neighbours(int(ks[-1]))
        _knn_scores(
            known.indptr, known.genes, known.label, near, ks, query.indptr, query.genes, rate,
            float(self.prior), out,
        )  # fmt: skip
        return out[np.searchsorted(ks, usable)]


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
        self.grid = checked_grid(self.grid, float, 0, "powers must be above 0")
        if self.prior <= 0 or self.total <= 0:
            raise ParameterError("total and prior must be above 0")

    def scores(self, space, known, query, rate, grid):
        """See `Smoother.scores`."""
        weights = dict(total=self.total, prior=self.prior, rate=rate)
        return kernel_scores(known, query, cosine_kernel(space), grid, **weights)
