"""k nearest neighbours, tuned without ever forming an inner prediction.

The error of an inner prediction needs only inner products of responses: with neighbours
n_1 .. n_k of perturbation p,
``|y_p - mean(y_n)|^2 = G_pp - 2/k sum_i G_pn_i + 1/k^2 sum_ij G_n_in_j``
where ``G = Y Y^T`` is shared by all folds and embeddings of a cell line. So tuning costs k^2
look-ups a perturbation instead of k additions a gene.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor, Targets, best_of, checked_grid
from perturbcore.models.simple.space import NestedSpace


@numba.njit(nogil=True, cache=True)
def _squared_errors(gram, rows, train, validation, near, grid, out):
    """out[p, j] = squared L2 error of validation row p predicted from its grid[j] nearest."""
    index = np.empty(near.shape[1], dtype=np.int64)
    for p in range(near.shape[0]):
        own = rows[validation[p]]
        cross = 0.0
        block = 0.0
        j = 0
        for i in range(near.shape[1]):
            a = rows[train[near[p, i]]]
            index[i] = a
            cross += gram[own, a]
            add = 0.5 * gram[a, a]
            for h in range(i):
                add += gram[a, index[h]]
            block += 2.0 * add
            if i + 1 == grid[j]:
                k = grid[j]
                out[p, j] = max(gram[own, own] - 2.0 * cross / k + block / (k * k), 0.0)
                j += 1
                if j == len(grid):
                    break


@numba.njit(nogil=True, cache=True)
def _mean_rows(Y, near, k):
    """Mean of the first k rows named by near, accumulated in float64, four rows a pass."""
    g = Y.shape[1]
    out = np.empty((near.shape[0], g), dtype=Y.dtype)
    for p in range(near.shape[0]):
        total = np.zeros(g)
        i = 0
        while i + 4 <= k:
            a, b, c, d = Y[near[p, i]], Y[near[p, i + 1]], Y[near[p, i + 2]], Y[near[p, i + 3]]
            for j in range(g):
                total[j] += (np.float64(a[j]) + np.float64(b[j])) + (
                    np.float64(c[j]) + np.float64(d[j])
                )
            i += 4
        while i < k:
            a = Y[near[p, i]]
            for j in range(g):
                total[j] += a[j]
            i += 1
        for j in range(g):
            out[p, j] = total[j] / k
    return out


@dataclass
class KNN(Predictor):
    """Mean response of the k training perturbations with the nearest embedding.

    Parameters
    ----------
    grid : sequence of int
        Candidate k; those above the size of an inner training set are left out.

    References
    ----------
    Cole et al. 2026, Supplemental Methods (kNN with 5-fold inner cross-validation).
    """

    grid: Sequence[int] = (20, 40, 60, 80, 100)
    name: str = "knn"

    def __post_init__(self):
        self.grid = checked_grid(self.grid, int, 0, "k must be at least 1")

    def predict(self, space: NestedSpace, targets: Targets):
        """Choose k by mean L2 on the inner folds, then average the neighbours' responses."""
        smallest = min(len(a) for a, _ in space.splits)
        usable = sorted({k for k in self.grid if k <= smallest})
        if not usable:
            raise ParameterError(
                f"k={self.grid} are all above the {smallest} perturbations of an inner training "
                "set; give smaller k"
            )
        k = usable[0]
        if len(usable) > 1:
            ordered = [v for v in self.grid if v in usable]
            losses = self.inner_losses(space, targets, usable)
            k = best_of(losses[:, [usable.index(v) for v in ordered]], ordered)
        near = targets.rows[space.outer.neighbours(max(usable))]
        prediction = _mean_rows(targets.source, near, k)
        return prediction.astype(targets.source.dtype, copy=False), k

    def inner_losses(self, space: NestedSpace, targets: Targets, grid: Sequence[int]):
        """Mean L2 of each inner fold (rows) and each k of the sorted `grid` (columns)."""
        ks = np.asarray(grid, dtype=np.int64)
        losses = np.empty((len(space.splits), len(ks)))
        for i, ((a, b), inner) in enumerate(zip(space.splits, space.inner, strict=True)):
            squared = np.empty((len(b), len(ks)))
            near = inner.neighbours(int(ks[-1]))
            _squared_errors(targets.gram, targets.rows, a, b, near, ks, squared)
            losses[i] = np.sqrt(squared).mean(axis=0)
        return losses
