"""Standardise -> PCA, refitted inside every fold, once for all predictors that share a fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from scipy.linalg import cholesky, qr
from sklearn.model_selection import KFold

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.core.order import least

# below this smaller side the eigendecomposition is exact; above it, subspace iteration is faster
EXACT_SIDE = 700
OVERSAMPLE = 20
COLD_ITERATIONS = 7
WARM_ITERATIONS = 2


def standardise(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Centre and scale columns by the training mean and standard deviation, as `StandardScaler`.

    Constant columns are centred only, and the dtype of the input is kept.
    """
    mean, std = _moments(train)
    # rounding must not turn a constant column into a huge one
    std[std <= 10 * np.finfo(train.dtype).eps * np.maximum(np.abs(mean), 1e-30)] = 1.0
    return [_scaled(x, mean, std, np.empty(x.shape, train.dtype)) for x in (train, *others)]


@njit(nogil=True, cache=True)
def _moments(x):
    mean, square = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for i in range(len(x)):
        for j in range(len(mean)):
            mean[j] += x[i, j]
    mean /= len(x)
    for i in range(len(x)):
        for j in range(len(mean)):
            square[j] += (x[i, j] - mean[j]) ** 2
    return mean, np.sqrt(square / len(x))


@njit(nogil=True, cache=True)
def _scaled(x, mean, std, out):
    for i in range(len(x)):
        for j in range(len(mean)):
            out[i, j] = (x[i, j] - mean[j]) / std[j]
    return out


def principal_axes(
    Z: np.ndarray, n_components: int, *, start: np.ndarray | None = None
) -> np.ndarray:
    """Leading principal axes of centred rows Z (n, d): orthonormal columns (d, q), leading first.

    Exact up to `EXACT_SIDE`; above it by subspace iteration, from a fixed or a warm `start`.
    """
    n, d = Z.shape
    q = min(n_components, n, d)
    if min(n, d) <= EXACT_SIDE:
        small = (Z.T @ Z if d <= n else Z @ Z.T).astype(np.float64)
        values, vectors = (a[..., : -q - 1 : -1] for a in np.linalg.eigh(small))
        if d > n:
            vectors = Z.T.astype(np.float64) @ (vectors / np.sqrt(np.maximum(values, 1e-30)))
        return vectors.astype(Z.dtype)
    width = min(q + OVERSAMPLE, n, d)
    if start is None or start.shape != (d, width):
        V = np.random.default_rng(0).standard_normal((d, width)).astype(Z.dtype)
        iterations = COLD_ITERATIONS
    else:
        V, iterations = start, WARM_ITERATIONS
    for left in range(iterations, 0, -1):
        V = _orthonormal(Z.T @ (Z @ V), 1 if left > 1 else 2)
    scores = Z @ V
    _, rotation = np.linalg.eigh((scores.T @ scores).astype(np.float64))
    return V @ rotation[:, ::-1].astype(Z.dtype)


def _orthonormal(V: np.ndarray, rounds: int) -> np.ndarray:
    """Orthonormal basis by rounds of Cholesky QR (matrix products only), two are exact, or QR."""
    try:
        for _ in range(rounds):
            factor = cholesky((V.T @ V).astype(np.float64), check_finite=False)
            V = V @ np.linalg.inv(factor).astype(V.dtype)
    except np.linalg.LinAlgError:
        return qr(V, mode="economic", check_finite=False)[0]
    return V


@dataclass(frozen=True)
class Protocol:
    """How embeddings are turned into predictions; the defaults are the published ones.

    `n_components`: principal components kept (100; Norman 50), 0: vectors as they are;
    `inner_folds, inner_seed`: of the inner K-fold; `inner_shuffle`: whether it is shuffled, by
    default as the task says; `inner_order`: in which training perturbations enter it: sorted by id
    ("id"), or as they lie in the file ("file"), as the published code does.

    Examples
    --------
    >>> pc.Protocol(n_components=50).n_components
    50
    """

    n_components: int = 100
    inner_folds: int = 5
    inner_seed: int = 42
    inner_shuffle: bool | None = None
    inner_order: str = "id"

    def __post_init__(self):
        check_choice("inner_order", self.inner_order, ("id", "file"))
        if self.n_components < 0 or self.inner_folds < 2:
            raise ParameterError("n_components must be at least 0 and inner_folds at least 2")

    def order(self, ids) -> np.ndarray:
        """Order in which rows are taken."""
        return np.argsort(ids) if self.inner_order == "id" else np.arange(len(ids))


@dataclass(eq=False)
class Space:
    """One training set and the rows to predict; `orthogonal`: lasso and ridge have closed forms."""

    train: np.ndarray
    test: np.ndarray
    orthogonal: bool = True

    def __post_init__(self):
        self._near: dict[int, np.ndarray] = {}

    def neighbours(self, k: int) -> np.ndarray:
        """Return the `k` nearest training rows of each test row; ties keep their order."""
        k = min(k, len(self.train))
        if k not in self._near:
            test, train = self.test.astype(np.float64), self.train.astype(np.float64)
            distance = (train**2).sum(axis=1) - 2 * test @ train.T
            self._near[k] = least(distance, k)
        return self._near[k]


@dataclass
class NestedSpace:
    """Coordinates of an outer fold and of its inner folds; with `reduce` principal components."""

    train: np.ndarray
    test: np.ndarray
    n_components: int = 100
    reduce: bool = True
    inner_folds: int = 5
    inner_seed: int = 42
    inner_shuffle: bool = True

    def __post_init__(self):
        if len(self.train) < self.inner_folds:
            raise InputError(
                f"{len(self.train)} training perturbations have this embedding: too few for "
                f"{self.inner_folds} inner folds; use an embedding that covers more, or fewer folds"
            )

    @cached_property
    def splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Inner (training, validation) row numbers."""
        seed = self.inner_seed if self.inner_shuffle else None
        folds = KFold(self.inner_folds, shuffle=self.inner_shuffle, random_state=seed)
        return list(folds.split(self.train))

    @cached_property
    def _outer(self) -> tuple[Space, np.ndarray | None]:
        return self._space(self.train, self.test, None)

    @property
    def outer(self) -> Space:
        """The outer training set and its test rows."""
        return self._outer[0]

    @cached_property
    def inner(self) -> Sequence[Space]:
        """The inner training sets with their validation rows, in the order of `splits`."""
        start = self._outer[1]
        return [self._space(self.train[a], self.train[b], start)[0] for a, b in self.splits]

    def _space(self, train, test, start):
        if not self.reduce:
            return Space(train, test, False), None
        train, test = standardise(train, test)
        width = self.n_components + OVERSAMPLE
        axes = principal_axes(train, self.n_components, start=start)
        keep = axes[:, : self.n_components]
        warm = axes if axes.shape[1] == width else None
        return Space(train @ keep, test @ keep), warm
