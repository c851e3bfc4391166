"""k nearest neighbours, tuned without ever forming an inner prediction.

With neighbours n_1 .. n_k of perturbation p and ``G = Y Y^T``, shared by all folds and embeddings,
``|y_p - mean(y_n)|^2 = G_pp - 2/k sum_i G_pn_i + 1/k^2 sum_ij G_n_in_j``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor, Targets, neighbour_grid
from perturbcore.models.simple.space import NestedSpace

BLOCK = 512


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _squared_errors(gram, rows, train, validation, near, grid, out):
    """out[p, j] = squared L2 error of validation row p predicted from its grid[j] nearest."""
    index = np.empty(near.shape[1], dtype=np.int64)
    for p in range(near.shape[0]):
        own = rows[validation[p]]
        cross, block, j = 0.0, 0.0, 0
        for i in range(min(grid[-1], near.shape[1])):
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


@numba.njit(nogil=True, cache=True)
def _running_means(Y, near, ks, out):
    """out[j, p] = mean of the ks[j] rows of Y that near[p] names first, summed in float64."""
    for start in range(0, Y.shape[1], BLOCK):  # so few columns of all rows stay in the cache
        at = slice(start, min(start + BLOCK, Y.shape[1]))
        total = np.empty(at.stop - start)
        for p in range(near.shape[0]):
            total[:] = 0.0
            i = 0
            for j, k in enumerate(ks):
                while i < k - 3:  # four rows in each pass over the sum
                    a, b = Y[near[p, i], at], Y[near[p, i + 1], at]
                    c, d = Y[near[p, i + 2], at], Y[near[p, i + 3], at]
                    for g in range(len(total)):
                        total[g] = total[g] + a[g] + b[g] + c[g] + d[g]
                    i += 4
                while i < k:
                    a = Y[near[p, i], at]
                    for g in range(len(total)):
                        total[g] += a[g]
                    i += 1
                for g in range(len(total)):
                    out[j, p, start + g] = total[g] / k


def _means(Y: np.ndarray, near: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Mean of the nearest rows for each k of the sorted `ks`, (len(ks), len(near), ...)."""
    flat = np.ascontiguousarray(Y).reshape(len(Y), -1)
    out = np.empty((len(ks), len(near), flat.shape[1]), Y.dtype)
    _running_means(flat, near, np.minimum(ks, near.shape[1]), out)
    return out.reshape(len(ks), len(near), *Y.shape[1:])


@dataclass
class KNN(Predictor):
    """Mean response of the k training perturbations with the nearest embedding.

    `grid`: candidate k; those above the size of an inner training set are left out.
    """

    grid: Sequence[int] = (20, 40, 60, 80, 100)
    name: str = "knn"

    def __post_init__(self):
        self.grid = neighbour_grid(self.grid)

    def predict(self, space: NestedSpace, targets: Targets):
        """Choose k by the task's loss on the inner folds, then average the responses."""
        smallest = min(len(a) for a, _ in space.splits)
        usable = [k for k in self.grid if k <= smallest]
        if not usable:
            raise ParameterError(
                f"k={self.grid} are all above the {smallest} perturbations of an inner training "
                "set; give smaller k"
            )
        k = self.tuned(space, targets, usable)
        return _means(targets.Y, space.outer.neighbours(usable[-1]), [k])[0], k

    def predictions(self, space, truth, grid):
        """Average the neighbours' responses for each k."""
        return iter(_means(truth, space.neighbours(max(grid)), grid))

    def losses(self, space: NestedSpace, targets: Targets, grid: Sequence[int]) -> np.ndarray:
        """Loss of each inner fold (rows) and each k of the sorted `grid` (columns).

        Mean L2 comes from inner products; any other loss needs the predictions.
        """
        if not self.task.euclidean:
            return super().losses(space, targets, grid)
        ks = np.asarray(grid, dtype=np.int64)
        losses = np.empty((len(space.splits), len(ks)))
        for i, ((a, b), inner) in enumerate(zip(space.splits, space.inner, strict=True)):
            squared = np.empty((len(b), len(ks)))
            near = inner.neighbours(int(ks[-1]))
            _squared_errors(targets.gram, targets.rows, a, b, near, ks, squared)
            losses[i] = np.sqrt(squared).mean(axis=0)
        return losses
