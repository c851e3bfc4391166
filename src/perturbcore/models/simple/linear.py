"""Lasso and ridge on principal components, all genes at once.

On orthogonal coordinates, as PCA scores are, both have closed forms; on others (the idealized
embedding) lasso goes through coordinate descent on the Gram matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from perturbcore.core.errors import check_choice
from perturbcore.models.simple.base import Predictor, checked_grid
from perturbcore.models.simple.space import Space

STILL = 1e-7  # share of the largest weight
MAX_SWEEPS = 1000
PATIENCE = 25  # sweeps before the equations of the weights in use are solved


@numba.njit(nogil=True, cache=True)
def _gap(cross, square, penalty, w, residual):
    """Duality gap of weights w (d,); residual = X'(y - X w), square = y'y."""
    fitted = np.sum(w * cross)
    scale = min(1.0, penalty / max(np.abs(residual).max(), 1e-300))
    primal = 0.5 * (square - fitted - np.sum(w * residual)) * (1.0 + scale**2)
    return primal + penalty * np.abs(w).sum() - scale * (square - fitted)


@numba.njit(nogil=True, cache=True)
def _solve(gram, cross, penalty, w, residual):
    """Solve for the weights in use, without those whose sign would change; say if all is solved."""
    for _ in range(len(w)):
        used = np.flatnonzero(w)
        own = gram[used][:, used] + 1e-14 * gram.max() * np.eye(len(used))
        new = np.linalg.solve(own, cross[used] - penalty * np.sign(w[used]))
        ratio = np.where(new * w[used] < 0.0, w[used] / (w[used] - new), 2.0)
        if len(used) == 0 or ratio.min() > 1.0:
            w[used] = new
            break
        new = w[used] + ratio.min() * (new - w[used])
        new[ratio == ratio.min()] = 0.0
        w[used] = new
    residual[:] = cross - gram @ w
    return np.abs(residual).max() <= penalty * (1.0 + 1e-8)


@numba.njit(nogil=True, cache=True)
def _descend(gram, cross, squares, penalty, W, tolerance, max_sweeps):
    """Lasso by cyclic coordinate descent on each column of W; gram = X'X, cross = X'Y.

    `squares` (g,) are y'y of each column; without a tolerance, the weights must stand still.
    """
    d, g = W.shape
    still = tolerance if tolerance > 0.0 else STILL
    for t in range(g):
        w, c = np.ascontiguousarray(W[:, t]), np.ascontiguousarray(cross[:, t])
        residual = c - gram @ w
        for sweep in range(1, max_sweeps + 1):
            largest = 0.0
            size = 0.0
            for j in range(d):
                if gram[j, j] == 0.0:
                    continue
                old = w[j]
                rho = residual[j] + gram[j, j] * old
                new = np.sign(rho) * max(abs(rho) - penalty, 0.0) / gram[j, j]
                if new != old:
                    step = new - old
                    for i in range(d):
                        residual[i] -= gram[i, j] * step
                    w[j] = new
                    largest = max(largest, abs(step))
                size = max(size, abs(new))
            if largest <= still * max(size, 1e-30):
                allowed = tolerance * squares[t]
                if tolerance == 0.0 or _gap(c, squares[t], penalty, w, residual) <= allowed:
                    break
            if sweep % PATIENCE == 0 and _solve(gram, c, penalty, w, residual):
                break
        W[:, t] = w


def _weights(space: Space, Y: np.ndarray, alphas: Sequence[float], kind: str, tolerance: float):
    """Yield, for each alpha, the (d, g) coefficients of the centred problem."""
    X = space.train - space.train.mean(axis=0, dtype=np.float64)
    cross = X.T.astype(Y.dtype, copy=False) @ Y
    gram = X.T @ X
    n = len(X)
    square = np.diag(gram).astype(Y.dtype)
    square[square <= 1e-12 * square.max(initial=1e-30)] = np.inf  # a column without spread
    by_alpha = {}
    if not space.orthogonal:
        cross = cross.astype(np.float64, copy=False)
        W, squares = np.zeros_like(cross), (Y**2).sum(axis=0)
    for alpha in sorted(set(alphas), reverse=True):  # warm start from the sparser solution
        if space.orthogonal and kind == "ridge":
            W = cross / (square + Y.dtype.type(alpha))[:, None]
        elif space.orthogonal:
            W = (cross - np.clip(cross, -n * alpha, n * alpha)) / square[:, None]
        elif kind == "ridge":
            W = np.linalg.solve(gram + alpha * np.eye(len(gram)), cross)
        else:
            W = W.copy()
            _descend(gram, cross, squares, n * alpha, W, tolerance, MAX_SWEEPS)
        by_alpha[alpha] = W
    yield from (by_alpha[alpha] for alpha in alphas)


@dataclass
class Linear(Predictor):
    """Lasso or ridge with scikit-learn's objectives (Cole et al. 2026, Supplement).

    `grid`: candidate alpha; `tolerance`: lasso on coordinates that are not orthogonal stops at a
    duality gap of this share of ``|y|^2`` (scikit-learn's 1e-4 as published); 0: weights stand
    still.
    """

    kind: str = "lasso"
    grid: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0)
    name: str = ""
    tolerance: float = 0.0

    def __post_init__(self):
        check_choice("kind", self.kind, ("lasso", "ridge"))
        self.grid = checked_grid(self.grid, float, "alpha must be above 0")
        self.name = self.name or self.kind

    def predictions(self, space, Y, grid):
        """Solve the centred problem for each alpha."""
        # products of responses x genes in the precision of the responses
        mean = Y.mean(axis=0, dtype=np.float64).astype(Y.dtype)
        test = (space.test - space.train.mean(axis=0, dtype=np.float64)).astype(Y.dtype)
        for W in _weights(space, Y - mean, grid, self.kind, self.tolerance):
            used = W.any(axis=1)  # lasso leaves out most components
            yield test[:, used] @ W[used].astype(Y.dtype, copy=False) + mean
