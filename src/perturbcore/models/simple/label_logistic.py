"""Logistic classifiers of partial labels: each gene from the perturbations it is labelled for.

The optimum lies in the span of a gene's labelled perturbations: Newton's method works there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from perturbcore.models.simple.base import Predictor, checked_grid
from perturbcore.models.simple.labels import Smoother
from perturbcore.score import functions  # noqa: F401  registers the task
from perturbcore.score.labels import Labels
from perturbcore.score.task import task_of

C_GRID = (1.0, 1e3, 1e5, 1e7)
MAX_STEPS = 100


@numba.njit(nogil=True, cache=True)
def _objective(F, sign, share, theta, penalty):
    f = F @ theta[:-1] + theta[-1]
    value = 0.5 * penalty * np.sum(theta[:-1] ** 2)
    for i in range(len(f)):
        margin = sign[i] * f[i]
        # log(1 + exp(-margin)) without overflow
        value += share[i] * (max(-margin, 0.0) + np.log1p(np.exp(-abs(margin))))
    return value


@numba.njit(nogil=True, cache=True)
def _newton(F, sign, share, penalty, theta, max_steps):
    """Minimise the penalised loss from `theta`, in place; the last entry is the intercept."""
    n, q = F.shape
    wide = np.ones((n, q + 1))
    wide[:, :q] = F
    value = _objective(F, sign, share, theta, penalty)
    for _ in range(max_steps):
        f = wide @ theta
        p = 1.0 / (1.0 + np.exp(-sign * f))
        slope = -share * sign * (1.0 - p)
        curve = share * p * (1.0 - p)
        gradient = wide.T @ slope
        gradient[:q] += penalty * theta[:q]
        hessian = (wide * curve.reshape(-1, 1)).T @ wide
        for j in range(q + 1):
            hessian[j, j] += penalty if j < q else 1e-12
        step = np.linalg.solve(hessian, gradient)
        decrement = gradient @ step
        if decrement < 1e-12 * max(value, 1e-12):
            break
        size = 1.0
        while size > 1e-10:
            new = _objective(F, sign, share, theta - size * step, penalty)
            if new <= value - 1e-4 * size * decrement:
                break
            size *= 0.5
        else:
            break
        theta -= size * step
        value = new


@numba.njit(nogil=True, cache=True)
def _fit(X, start, rows, label, penalties, W, max_steps):
    """Fill W[j, :, g] for penalty j and gene g; a gene with one known class is left at 0."""
    d = X.shape[1]
    for g in range(len(start) - 1):
        n = start[g + 1] - start[g]
        y = label[start[g] : start[g + 1]]
        up = y.sum()
        if up == 0 or up == n:
            continue
        sign = 2.0 * y - 1.0
        share = np.where(y > 0, 0.5 / up, 0.5 / (n - up))
        own = X[rows[start[g] : start[g + 1]]]
        F = own
        if n < d:
            gram = own @ own.T
            jitter = 1e-10 * np.trace(gram) / n + 1e-30
            for i in range(n):
                gram[i, i] += jitter
            F = np.ascontiguousarray(np.linalg.cholesky(gram))
        theta = np.zeros(F.shape[1] + 1)
        # from the strongest penalty on, each optimum is a start for the next
        for j in range(len(penalties)):
            _newton(F, sign, share, penalties[j], theta, max_steps)
            if n < d:
                W[j, :d, g] = own.T @ np.linalg.solve(F.T.copy(), theta[:-1])
            else:
                W[j, :d, g] = theta[:-1]
            W[j, d, g] = theta[-1]


def fit_genes(X: np.ndarray, known: Labels, grid: Sequence[float]) -> np.ndarray:
    r"""Fit a class-balanced logistic classifier of each gene, to convergence.

    Minimised for each gene is :math:`\sum_i a_i \log(1 + e^{-s_i (x_i \cdot u + b)})
    + \frac{G}{2 C} \lVert u \rVert^2`, the weights :math:`a_i` of each class adding up to one half:
    the objective of `Softmax` with two classes. Returns weights and, last, intercepts for each C,
    (len(grid), d + 1, G); 0 for a gene with fewer than two classes.
    """
    X = np.ascontiguousarray(X, dtype=np.float64)
    row = np.repeat(np.arange(len(X)), np.diff(known.indptr))
    order = np.argsort(known.genes, kind="stable")
    start = np.searchsorted(known.genes[order], np.arange(known.n_genes + 1))
    strongest_first = np.argsort(np.asarray(grid), kind="stable")
    penalties = known.n_genes / np.asarray(grid, dtype=np.float64)[strongest_first]
    W = np.zeros((len(grid), X.shape[1] + 1, known.n_genes))
    _fit(X, start, row[order], known.label[order].astype(np.float64), penalties, W, MAX_STEPS)
    return W[np.argsort(strongest_first)]


@dataclass
class LabelLogistic(Smoother):
    """Class-balanced logistic classifier of each gene from the labels that are known."""

    grid: Sequence[float] = C_GRID
    name: str = "logistic"

    def __post_init__(self):
        self.grid = checked_grid(self.grid, float, "C must be above 0")

    def scores(self, space, known, query, rate, grid):
        """See `Smoother.scores`."""
        test = np.c_[space.test, np.ones(len(space.test))].astype(np.float64)
        out = np.empty((len(grid), len(query.genes)))
        for score, W in zip(out, fit_genes(space.train, known, grid), strict=True):
            score[:] = (test @ W)[query.rows, query.genes]
        return 1.0 / (1.0 + np.exp(-np.clip(out, -500, 500)))


@dataclass
class FunctionLogistic(Predictor):
    """Logistic regression of each function by itself (Hasanaj et al. 2025, Section 3, Appendix B).

    `grid`: candidate C, 1 as published; `balanced`: both classes weigh alike, as their text has it,
    or each perturbation, as their appendix has it. A function with one class in training gets 0.5.
    """

    grid: Sequence[float] = (1.0,)
    balanced: bool = True
    max_iter: int = 500
    name: str = "logistic"
    task = task_of("functions")

    def __post_init__(self):
        self.grid = checked_grid(self.grid, float, "C must be above 0")
        if not self.balanced and self.name == "logistic":
            self.name = "logistic_unweighted"

    def predictions(self, space, Y, grid):
        """Fit all functions for each C."""
        n, width = Y.shape
        there = (Y.min(axis=0) == 0) & (Y.max(axis=0) == 1)
        for C in grid:
            out = np.full((len(space.test), width), 0.5, dtype=np.float32)
            if self.balanced:
                known = Labels.from_dense(Y[:, there] > 0, np.ones((n, there.sum()), dtype=bool))
                # the objective there is this one divided by C n and by the number of functions
                W = fit_genes(space.train, known, [C * n * known.n_genes])[0]
                score = np.c_[space.test, np.ones(len(space.test))] @ W
                out[:, there] = 1 / (1 + np.exp(-np.clip(score, -500, 500)))
            else:
                model = MultiOutputClassifier(LogisticRegression(C=C, max_iter=self.max_iter))
                said = model.fit(space.train, Y[:, there]).predict_proba(space.test)
                out[:, there] = np.stack([p[:, 1] for p in said], axis=1)
            yield out
