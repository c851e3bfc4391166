"""k nearest neighbours, tuned without ever forming an inner prediction.

With neighbours n_1 .. n_k of perturbation p and ``G = Y Y^T``, shared by all folds and embeddings,
``|y_p - mean(y_n)|^2 = G_pp - 2/k sum_i G_pn_i + 1/k^2 sum_ij G_n_in_j``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor, Targets, neighbour_grid
from perturbcore.models.simple.space import NestedSpace


def _mean_rows(Y: np.ndarray, near: np.ndarray, k: int) -> np.ndarray:
    """Mean of the first k rows named by `near`, accumulated in float64."""
    return np.stack([Y[n].mean(axis=0, dtype=np.float64) for n in near[:, :k]]).astype(Y.dtype)


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
        """Choose k by mean L2 on the inner folds, then average the neighbours' responses."""
        smallest = min(len(a) for a, _ in space.splits)
        usable = [k for k in self.grid if k <= smallest]
        if not usable:
            raise ParameterError(
                f"k={self.grid} are all above the {smallest} perturbations of an inner training "
                "set; give smaller k"
            )
        k = self.tuned(space, targets, usable)
        return _mean_rows(targets.Y, space.outer.neighbours(usable[-1]), k), k

    def predictions(self, space, truth, grid):
        """Average the neighbours' responses for each k."""
        near = space.neighbours(max(grid))
        for k in grid:
            yield _mean_rows(truth, near, min(k, near.shape[1]))

    def losses(self, space: NestedSpace, targets: Targets, grid: Sequence[int]) -> np.ndarray:
        """Mean L2 of each inner fold (rows) and each k of the sorted `grid` (columns)."""
        G, ks, losses = targets.gram, np.asarray(grid), []
        for (a, b), inner in zip(space.splits, space.inner, strict=True):
            own, near = targets.rows[b], targets.rows[a][inner.neighbours(int(ks[-1]))]
            cross = G[own[:, None], near].cumsum(axis=1)
            block = G[near[:, :, None], near[:, None]].cumsum(axis=1).cumsum(axis=2)
            block = np.diagonal(block, axis1=1, axis2=2)
            squared = G[own, own][:, None] - 2 * cross[:, ks - 1] / ks + block[:, ks - 1] / ks**2
            losses.append(np.sqrt(np.maximum(squared, 0)).mean(axis=0))
        return np.array(losses)
