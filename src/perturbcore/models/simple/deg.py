"""Predictors of differential-expression labels: probabilities of -1, 0 and 1 for every gene."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numba
import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import best_of
from perturbcore.models.simple.label_logistic import C_GRID
from perturbcore.models.simple.softmax import Softmax
from perturbcore.models.simple.space import NestedSpace
from perturbcore.score.metrics.deg import deg_metrics, one_hot


def class_counts(label: np.ndarray) -> np.ndarray:
    """Labels -1, 0 and 1 of each gene, with one of each added, (3, g).

    References
    ----------
    Cole et al. 2026, Supplemental Methods: baselines are fitted on the training labels and one more
    row of each class, so that all three are always there.
    """
    return np.stack([(label == c).sum(axis=0) for c in (-1, 0, 1)]) + 1


def prior(label: np.ndarray, n: int) -> np.ndarray:
    """Predict the class frequencies of each gene, (3, n, g): the Train Mean of this task.

    Its most probable class, which is what F1 scores, is the most frequent one.
    """
    counts = class_counts(label)
    share = (counts / counts.sum(axis=0)).astype(np.float32)
    return np.repeat(share[:, None], n, axis=1)


def most_frequent(label: np.ndarray, n: int) -> np.ndarray:
    """Predict the most frequent class of each gene (the first on ties), (3, n, g)."""
    return np.repeat(one_hot(class_counts(label).argmax(axis=0)[None] - 1), n, axis=1)


def no_change(label: np.ndarray, n: int) -> np.ndarray:
    """Predict that no gene changes, (3, n, g)."""
    return one_hot(np.zeros((n, label.shape[1]), dtype=np.int8))


class _Tuned:
    """Choose a grid value by mean macro F1 on the inner folds, then predict the test rows."""

    def candidates(self) -> list:
        """List the grid values."""
        raise NotImplementedError

    def predict(self, space: NestedSpace, label: np.ndarray):
        """Tune, refit on all training rows and predict.

        Parameters
        ----------
        space : NestedSpace
        label : (n, g) int8 array in {-1, 0, 1}
            Labels of the training rows of `space`.

        Returns
        -------
        probability : (3, m, g) float32 array
        chosen : str
            The tuned grid value.
        """
        grid = self.candidates()
        chosen = grid[0]
        if len(grid) > 1:
            losses = np.empty((len(space.splits), len(grid)))
            for i, ((a, b), inner) in enumerate(zip(space.splits, space.inner, strict=True)):
                for j, p in enumerate(self._predictions(inner, label[a], grid)):
                    losses[i, j] = -deg_metrics(label[b], p, ["f1_score"])["f1_score"]
            chosen = best_of(losses, grid)
        return next(iter(self._predictions(space.outer, label, [chosen]))), self._named(chosen)


@dataclass
class DEGLogistic(_Tuned):
    """Class-balanced softmax classifier of each gene, see :class:`perturbcore.models.simple.softmax.Softmax`.

    Parameters
    ----------
    grid : sequence of float
        Candidate C; a single one is not tuned (Tahoe as published: 1e5).
    softmax : dict
        Options of the fit: max_iter, tolerance, seed, device, precision, history.

    References
    ----------
    Cole et al. 2026, Supplemental Methods.
    """

    grid: Sequence[float] = C_GRID
    softmax: dict = field(default_factory=dict)
    name: str = "logistic"

    def __post_init__(self):
        self.grid = _positive(self.grid)
        self.model = _softmax(3, self.softmax)

    @property
    def spec(self) -> dict:
        """Grid and options; the device is not part of what is computed."""
        return {"class": "deg_logistic", "grid": self.grid, **_identity(self.model)}

    def candidates(self) -> list:
        """List the candidate C."""
        return list(self.grid)

    def _predictions(self, space, label, grid):
        for C in grid:
            theta = self.model.fit(space.train, label + 1, C)
            yield self.model.probabilities(theta, space.test)

    def _named(self, C):
        return f"{C:g}"


@numba.njit(nogil=True, cache=True)
def _neighbour_counts(label, near, grid, down, up):
    """Fill down[j, p, g] and up[j, p, g]: labels -1 and 1 among the grid[j] nearest rows."""
    g = label.shape[1]
    for p in range(near.shape[0]):
        j = 0
        for i in range(near.shape[1]):
            row = label[near[p, i]]
            for k in range(g):
                down[j, p, k] += row[k] < 0
                up[j, p, k] += row[k] > 0
            if i + 1 == grid[j]:
                j += 1
                if j == len(grid):
                    break
                down[j, p] = down[j - 1, p]
                up[j, p] = up[j - 1, p]


@dataclass
class DEGKNN(_Tuned):
    """Class frequencies among the k nearest perturbations.

    The frequencies are pulled to the gene's own by `prior` labels, and divided by a power of
    them: with balance 0 a rare class is called only where most neighbours have it, with 1 where it
    is more frequent than elsewhere, which is what a class-balanced loss asks for.

    Parameters
    ----------
    grid : sequence of int
        Candidate k.
    balance : sequence of float
        Candidate powers, 0 to 1.
    prior : float
        Weight of the gene's own frequencies, in labels.
    """

    grid: Sequence[int] = (5, 10, 20, 40, 80)
    balance: Sequence[float] = (0.0, 0.5, 1.0)
    prior: float = 3.0
    name: str = "knn"

    def __post_init__(self):
        self.grid = sorted({int(k) for k in self.grid})
        self.balance = [float(b) for b in self.balance]
        if not self.grid or self.grid[0] < 1 or self.prior <= 0:
            raise ParameterError(
                f"k must be at least 1 and prior above 0: {self.grid}, {self.prior}"
            )
        if not self.balance or min(self.balance) < 0 or max(self.balance) > 1:
            raise ParameterError(f"balance must lie between 0 and 1: {self.balance}")

    @property
    def spec(self) -> dict:
        """Grid, balance and prior."""
        parameters = {"grid": self.grid, "balance": self.balance, "prior": self.prior}
        return {"class": "deg_knn", **parameters}

    def candidates(self) -> list:
        """List pairs of k and balance."""
        return list(product(self.grid, self.balance))

    def _predictions(self, space, label, grid):
        usable = [min(k, len(space.train)) for k, _ in grid]
        ks = np.unique(np.asarray(usable, dtype=np.int64))
        label = np.ascontiguousarray(label, dtype=np.int8)
        shape = (len(ks), len(space.test), label.shape[1])
        down, up = (np.zeros(shape, dtype=np.int16) for _ in range(2))
        _neighbour_counts(label, space.neighbours(int(ks[-1])), ks, down, up)
        counts = class_counts(label)
        rate = (counts / counts.sum(axis=0)).astype(np.float32)[:, None]
        for k, (_, balance) in zip(usable, grid, strict=True):
            at = int(np.searchsorted(ks, k))
            found = np.stack([down[at], k - down[at] - up[at], up[at]]).astype(np.float32)
            score = (found + self.prior * rate) / rate**balance
            yield score / score.sum(axis=0)

    def _named(self, chosen):
        return f"{chosen[0]}, balance {chosen[1]:g}"


def _positive(grid) -> list[float]:
    grid = [float(C) for C in grid]
    if not grid or min(grid) <= 0:
        raise ParameterError(f"C must be above 0, not {grid}")
    return grid


def _softmax(n_classes, options) -> Softmax:
    try:
        model = Softmax(n_classes, **options)
    except TypeError as error:
        raise ParameterError(f"softmax: {error}") from error
    model.place  # noqa: B018  a device that is not there is refused before long work
    return model


def _identity(model: Softmax) -> dict:
    return {k: v for k, v in vars(model).items() if k not in ("device", "n_classes")}
