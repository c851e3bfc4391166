"""k nearest neighbours, tuned without ever forming an inner prediction.

The error of an inner prediction needs only inner products of responses: with neighbours
n_1 .. n_k of perturbation p, ``|y_p - mean(y_n)|^2 = G_pp - 2/k sum_i G_pn_i + 1/k^2 sum_ij G_n_in_j``
where ``G = Y Y^T`` is shared by all folds and embeddings of a cell line. So tuning costs k^2
look-ups a perturbation instead of k additions a gene.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from perturbcore.errors import ParameterError
from perturbcore.predictors.base import Targets, best_of
from perturbcore.predictors.space import NestedSpace


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
    out = np.zeros((near.shape[0], Y.shape[1]), dtype=np.float32)
    for p in range(near.shape[0]):
        total = np.zeros(Y.shape[1], dtype=np.float64)
        for i in range(k):
            y = Y[near[p, i]]
            for g in range(Y.shape[1]):
                total[g] += y[g]
        for g in range(Y.shape[1]):
            out[p, g] = total[g] / k
    return out


@dataclass
class KNN:
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
        self.grid = [int(k) for k in self.grid]
        if not self.grid or min(self.grid) < 1:
            raise ParameterError(f"k must be at least 1, not {self.grid}")

    @property
    def spec(self) -> dict:
        """The grid."""
        return {"class": "knn", "grid": self.grid}

    def predict(self, space: NestedSpace, targets: Targets):
        """Choose k by mean L2 on the inner folds, then average the neighbours' responses."""
        smallest = min(len(a) for a, _ in space.splits)
        usable = sorted({k for k in self.grid if k <= smallest})
        if not usable:
            raise ParameterError(
                f"k={self.grid} are all above the {smallest} perturbations of an inner training set; "
                "give smaller k"
            )
        k = usable[0]
        if len(usable) > 1:
            ordered = [v for v in self.grid if v in usable]
            losses = self.inner_losses(space, targets, usable)
            k = best_of(losses[:, [usable.index(v) for v in ordered]], ordered)
        Y = np.ascontiguousarray(targets.Y)
        return _mean_rows(Y, space.outer.neighbours(max(usable)), k).astype(Y.dtype), k

    def inner_losses(self, space: NestedSpace, targets: Targets, grid: Sequence[int]):
        """Mean L2 of each inner fold (rows) and each k of the sorted `grid` (columns)."""
        grid = np.asarray(grid, dtype=np.int64)
        losses = np.empty((len(space.splits), len(grid)))
        for i, ((a, b), inner) in enumerate(zip(space.splits, space.inner, strict=True)):
            squared = np.empty((len(b), len(grid)))
            near = inner.neighbours(int(grid[-1]))
            _squared_errors(targets.gram, targets.rows, a, b, near, grid, squared)
            losses[i] = np.sqrt(squared).mean(axis=0)
        return losses
