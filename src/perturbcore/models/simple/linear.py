"""Lasso and ridge on principal components, all genes at once.

PCA scores of a training set are orthogonal, so each coefficient is found by itself: ridge divides,
lasso soft-thresholds. Coordinates that are not orthogonal (the idealized embedding on part of its
rows) go through coordinate descent on the Gram matrix, to a stated tolerance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor, checked_grid
from perturbcore.models.simple.space import Space

TOLERANCE = 1e-7
MAX_SWEEPS = 1000


@numba.njit(nogil=True, cache=True)
def _descend(gram, cross, penalty, W, tolerance, max_sweeps):
    """Lasso by cyclic coordinate descent on each column of W; gram = X'X, cross = X'Y."""
    d, g = W.shape
    for t in range(g):
        residual = cross[:, t] - gram @ np.ascontiguousarray(W[:, t])
        for _ in range(max_sweeps):
            largest = 0.0
            size = 0.0
            for j in range(d):
                if gram[j, j] == 0.0:
                    continue
                old = W[j, t]
                rho = residual[j] + gram[j, j] * old
                new = np.sign(rho) * max(abs(rho) - penalty, 0.0) / gram[j, j]
                if new != old:
                    step = new - old
                    for i in range(d):
                        residual[i] -= gram[i, j] * step
                    W[j, t] = new
                    largest = max(largest, abs(step))
                size = max(size, abs(new))
            if largest <= tolerance * max(size, 1e-30):
                break


def _weights(space: Space, Y: np.ndarray, alphas: Sequence[float], kind: str):
    """Yield, for each alpha, the (d, g) coefficients of the centred problem."""
    X = space.train.astype(np.float64)
    X = X - X.mean(axis=0)
    cross = X.T @ Y
    gram = X.T @ X
    n = len(X)
    square = np.diag(gram).copy()
    square[square <= 1e-12 * square.max(initial=1e-30)] = np.inf  # a column without spread
    if kind == "ridge":
        for alpha in alphas:
            if space.orthogonal:
                yield cross / (square + alpha)[:, None]
            else:
                yield np.linalg.solve(gram + alpha * np.eye(len(gram)), cross)
        return
    by_alpha = {}
    W = np.zeros_like(cross)
    for alpha in sorted(set(alphas), reverse=True):  # warm start from the sparser solution
        if space.orthogonal:
            W = np.sign(cross) * np.maximum(np.abs(cross) - n * alpha, 0) / square[:, None]
        else:
            W = W.copy()
            _descend(gram, cross, n * alpha, W, TOLERANCE, MAX_SWEEPS)
        by_alpha[alpha] = W
    yield from (by_alpha[alpha] for alpha in alphas)


@dataclass
class Linear(Predictor):
    """Lasso or ridge regression with alpha tuned on the inner folds (Cole et al. 2026, Supplement).

    `kind`: "lasso" or "ridge", with scikit-learn's objectives ``|y - Xw|^2 / (2n) + alpha |w|_1``
    and ``|y - Xw|^2 + alpha |w|^2``, intercept unpenalised; `grid`: candidate alpha.
    """

    kind: str = "lasso"
    grid: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0)
    name: str = ""

    def __post_init__(self):
        if self.kind not in ("lasso", "ridge"):
            raise ParameterError(f"kind '{self.kind}' is not one of lasso, ridge")
        self.grid = checked_grid(self.grid, float, 0, "alpha must be above 0")
        self.name = self.name or self.kind

    def predictions(self, space, Y, grid):
        """Solve the centred problem for each alpha."""
        mean = Y.mean(axis=0, dtype=np.float64)
        centre = space.train.mean(axis=0, dtype=np.float64)
        test = space.test - centre
        for W in _weights(space, (Y - mean).astype(np.float64), grid, self.kind):
            yield (test @ W + mean).astype(Y.dtype)
