"""Predictors of partial differential-expression labels: known labels of near perturbations.

The score of (perturbation, gene) is ``(sum_j w_j y_jg + m b_g) / (sum_j w_j o_jg + m)`` with
weights w, labels y, known-mask o, the gene's smoothed rate b and the weight m (`prior`) of that
rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.linalg import unit
from perturbcore.models.simple.base import Predictor, Targets, checked_grid, neighbour_grid
from perturbcore.models.simple.space import NestedSpace, Space
from perturbcore.score import functions  # noqa: F401  registers the task
from perturbcore.score.labels import Labels, best_threshold
from perturbcore.score.metrics.pairs import auroc_within
from perturbcore.score.task import task_of


@numba.njit(nogil=True, cache=True)
def _nearest(indptr, genes, label, near, grid, q_indptr, q_genes, rate, prior, out):
    """out[j, e] = score of query entry e by the grid[j] nearest rows."""
    for p in range(near.shape[0]):
        known, positive = np.zeros(len(rate)), np.zeros(len(rate))
        seen = 0
        for j in range(len(grid)):
            for row in near[p, seen : grid[j]]:
                for e in range(indptr[row], indptr[row + 1]):
                    known[genes[e]] += 1.0
                    positive[genes[e]] += label[e]
            seen = grid[j]
            for q in range(q_indptr[p], q_indptr[p + 1]):
                g = q_genes[q]
                out[j, q] = (positive[g] + prior * rate[g]) / (known[g] + prior)


@numba.njit(nogil=True, cache=True)
def _weighted(start, rows, label, weight, q_indptr, q_genes, rate, prior, out):
    """out[j, e] = score of query entry e by weight[p, :, j]; labels are sorted by gene."""
    for p in range(weight.shape[0]):
        for q in range(q_indptr[p], q_indptr[p + 1]):
            g = q_genes[q]
            for j in range(weight.shape[2]):
                known = positive = 0.0
                for at in range(start[g], start[g + 1]):
                    known += weight[p, rows[at], j]
                    positive += weight[p, rows[at], j] * label[at]
                out[j, q] = (positive + prior * rate[g]) / (known + prior)


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
    """Score the entries of `query` by powers of a kernel (m, n), weights scaled to sum `total`."""
    kernel = np.asarray(kernel, dtype=np.float64)
    weight = np.stack([raise_to(kernel, p) for p in powers], axis=-1)
    size = weight.sum(axis=1, keepdims=True)
    weight *= np.divide(total, size, out=np.zeros_like(size), where=size > 0)
    by_gene = known.by_gene()
    out = np.empty((len(powers), len(query.genes)))
    _weighted(
        by_gene.indptr, by_gene.indices, by_gene.data, weight, query.indptr, query.genes, rate,
        float(prior), out,
    )  # fmt: skip
    return out


def tuned_on_pairs(truth: Sequence[Labels], scores: Sequence, grid: Sequence) -> tuple:
    """Choose from a grid by AUROC within gene: the choice, labels of all pairs, their scores."""
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
    """Share of positives among the known labels of the k nearest perturbations.

    `grid`: candidate k; `prior`: weight of the gene's own rate, in labels.
    """

    grid: Sequence[int] = (5, 10, 20, 40, 80)
    prior: float = 3.0
    name: str = "knn"

    def __post_init__(self):
        self.grid = neighbour_grid(self.grid, self.prior)

    def scores(self, space, known, query, rate, grid):
        """See `Smoother.scores`."""
        usable = np.minimum(grid, len(space.train))
        out = np.empty((len(grid), len(query.genes)))
        _nearest(
            known.indptr, known.genes, known.label, space.neighbours(usable.max()), usable,
            query.indptr, query.genes, rate, self.prior, out,
        )  # fmt: skip
        return out


@dataclass
class LabelKernel(Smoother):
    """All training perturbations, weighted by a power of the cosine to them.

    `grid`: candidate powers; `total`: sum of the weights of a perturbation; `prior`: weight of the
    gene's own rate, in labels.
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


C_GRID = (1.0, 1e3, 1e5, 1e7)
MAX_STEPS = 100


@numba.njit(nogil=True, cache=True)
def _objective(wide, sign, share, theta, penalty, p):
    """Return the penalised loss at `theta`; p (n,) becomes the probability of each own class."""
    value = 0.5 * penalty * np.sum(theta[:-1] ** 2)
    f = wide @ theta
    for i in range(len(f)):
        margin = sign[i] * f[i]
        # log(1 + exp(-margin)) without overflow
        small = np.exp(-abs(margin))
        value += share[i] * (max(-margin, 0.0) + np.log1p(small))
        p[i] = (1.0 if margin > 0 else small) / (1.0 + small)
    return value


@numba.njit(nogil=True, cache=True)
def _solve(lower, b):
    """Solve lower @ lower.T @ x = b."""
    x = b.copy()
    for i in range(len(x)):
        for j in range(i):
            x[i] -= lower[i, j] * x[j]
        x[i] /= lower[i, i]
    for i in range(len(x) - 1, -1, -1):
        x[i] /= lower[i, i]
        for j in range(i):
            x[j] -= lower[i, j] * x[i]
    return x


@numba.njit(nogil=True, cache=True)
def _newton(wide, sign, share, penalty, theta, max_steps):
    """Minimise the penalised loss from `theta`, in place; the last entry is the intercept."""
    n, q = wide.shape
    p = np.empty(n)
    value = _objective(wide, sign, share, theta, penalty, p)
    lower, last = np.eye(q), 0.0
    for _ in range(max_steps):
        gradient = wide.T @ (-share * sign * (1.0 - p))
        gradient[:-1] += penalty * theta[:-1]
        step = _solve(lower, gradient)
        decrement = gradient @ step
        # the curvature costs most: it is kept while steps shrink tenfold
        if decrement > 0.1 * last:
            hessian = (wide * (share * p * (1.0 - p)).reshape(-1, 1)).T @ wide
            tiny = 1e-14 * np.trace(hessian) + 1e-12
            for j in range(q):
                hessian[j, j] += tiny + (penalty if j < q - 1 else 0.0)
            lower = np.linalg.cholesky(hessian)
            step = _solve(lower, gradient)
            decrement = gradient @ step
        last = decrement
        if decrement < 1e-14 * max(value, 1e-12):
            break
        size = 1.0
        while size > 1e-10:
            new = _objective(wide, sign, share, theta - size * step, penalty, p)
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
        # the optimum lies in the span of the labelled rows: as many dimensions are enough
        if n < d:
            gram = own @ own.T
            jitter = 1e-10 * np.trace(gram) / n + 1e-30
            for i in range(n):
                gram[i, i] += jitter
            F = np.ascontiguousarray(np.linalg.cholesky(gram))
        wide = np.ones((n, F.shape[1] + 1))
        wide[:, :-1] = F
        theta = np.zeros(wide.shape[1])
        # from the strongest penalty on, each optimum is a start for the next
        for j in range(len(penalties)):
            _newton(wide, sign, share, penalties[j], theta, max_steps)
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
    by_gene = known.by_gene()
    strongest_first = np.argsort(np.asarray(grid), kind="stable")
    penalties = known.n_genes / np.asarray(grid, dtype=np.float64)[strongest_first]
    W = np.zeros((len(grid), X.shape[1] + 1, known.n_genes))
    label = by_gene.data.astype(np.float64)
    _fit(X, by_gene.indptr, by_gene.indices, label, penalties, W, MAX_STEPS)
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
