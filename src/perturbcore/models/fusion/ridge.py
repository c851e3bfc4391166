"""Kernel ridge with one kernel a source: exact leave-one-out error decides weights and penalty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, inv

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.kernels import summed


@dataclass(frozen=True)
class RidgeFit:
    """What was chosen, and its error.

    Attributes
    ----------
    weights : (n_sources,) array
        Not negative, sum 1.
    penalty : float
        In units of the mean diagonal of the centred kernel.
    loss : float
        Mean leave-one-out L2 error over training rows.
    path : list of float
        The loss after each step of the search.
    """

    weights: np.ndarray
    penalty: float
    loss: float
    path: list


def centred(kernel: np.ndarray) -> np.ndarray:
    """Kernel of features centred over the training rows."""
    mean = kernel.mean(axis=0)
    return kernel - mean - mean[:, None] + mean.mean()


@dataclass(eq=False)
class Decomposed:
    """A kernel of the training rows, centred and decomposed once for all penalties.

    Attributes
    ----------
    values, vectors : (n,), (n, n) arrays
        Of the centred kernel; values below zero, which rounding makes, are cut.
    scale : float
        Mean diagonal of the centred kernel: the unit of penalties.
    column : (n,) array
        Means of the columns of the kernel as it was.
    """

    values: np.ndarray
    vectors: np.ndarray
    scale: float
    column: np.ndarray

    @classmethod
    def of(cls, kernel: np.ndarray) -> "Decomposed":
        """Decompose an (n, n) kernel that is positive semi-definite."""
        K = centred(kernel)
        values, vectors = eigh(K, check_finite=False)
        return cls(np.maximum(values, 0), vectors, _scale(K), kernel.mean(axis=0))

    def losses(self, gram: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
        """See `loo_losses`."""
        inner = self.vectors.T @ centred(gram) @ self.vectors
        out = np.empty(len(penalties))
        for j, penalty in enumerate(penalties):
            left = self.vectors * (penalty * self.scale / (self.values + penalty * self.scale))
            squared = np.einsum("ij,ij->i", left @ inner, left)
            # 1 - S_ii: the intercept takes 1 / n, the kernel part the rest
            leverage = np.einsum("ij,ij->i", left, self.vectors) - 1 / len(left)
            out[j] = np.mean(np.sqrt(np.maximum(squared, 0)) / np.maximum(leverage, 1e-12))
        return out

    def predict(self, cross: np.ndarray, penalty: float, Y: np.ndarray) -> np.ndarray:
        """Predict rows with kernel `cross` (m, n) to the training rows, (m, g)."""
        mean = Y.mean(axis=0)
        side = cross - self.column - cross.mean(axis=1, keepdims=True) + self.column.mean()
        left = (side @ self.vectors) / (self.values + penalty * self.scale)
        return mean + left @ (self.vectors.T @ (Y - mean))


def _scale(K: np.ndarray) -> float:
    return max(float(np.trace(K)) / len(K), 1e-12)


def loo_losses(kernel: np.ndarray, gram: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
    """Mean leave-one-out L2 error of kernel ridge with an unpenalised intercept.

    Left-out residuals are ``e_i / (1 - S_ii)`` for the smoother matrix S; their norms over all genes
    need only inner products of responses, so that the number of genes does not matter.

    Parameters
    ----------
    kernel : (n, n) array
        Of the training rows, not centred, positive semi-definite.
    gram : (n, n) array
        ``Y @ Y.T`` of the responses; they need not be centred.
    penalties : sequence of float
        Relative to the mean diagonal of the centred kernel.

    Returns
    -------
    (n_penalties,) array

    References
    ----------
    Golub, Heath & Wahba 1979 (PRESS); Cawley & Talbot 2003.
    """
    return Decomposed.of(kernel).losses(gram, penalties)


def _loss_at(kernel: np.ndarray, gram_centred: np.ndarray, penalty: float) -> float:
    """Return the same for one penalty, by an inverse: a fifth of the time of a decomposition."""
    K = centred(kernel)
    penalty = penalty * _scale(K)
    K[np.diag_indices_from(K)] += penalty
    C = penalty * inv(K, overwrite_a=True, check_finite=False)
    squared = np.einsum("ij,ij->i", C @ gram_centred, C)
    return float(
        np.mean(np.sqrt(np.maximum(squared, 0)) / np.maximum(np.diag(C) - 1 / len(K), 1e-12))
    )


def shaped(kernels, degree: int, has) -> list[tuple[np.ndarray, np.ndarray]]:
    """Bend cosine kernels: ``((1 + cos) / 2) ** degree``, zero where a row lacks the source.

    Degree 1 is linear up to a constant; a higher one lets near perturbations count for more. A power
    of a positive semi-definite kernel is one.

    Parameters
    ----------
    kernels : list of ((n, n), (m, n)) arrays
        Cosines, negative ones not cut.
    degree : int
    has : list of ((n,), (m,)) bool arrays
        Which training and which test rows have each source.
    """
    out = []
    for pair, (train, test) in zip(kernels, has, strict=True):
        bent = [((1 + k) / 2) ** degree for k in pair]
        out.append((bent[0] * np.outer(train, train), bent[1] * np.outer(test, train)))
    return out


def tune(kernels: Sequence[np.ndarray], gram: np.ndarray, penalties, *, steps: int = 8) -> RidgeFit:
    """Choose non-negative kernel weights and the penalty by exact leave-one-out error.

    Starting from equal weights or from the best single source, one kernel at a time is added where it
    lowers the error most, with replacement, so that weights are multiples of one over the number of
    additions. The penalty is chosen anew after each.

    Parameters
    ----------
    kernels : sequence of (n, n) arrays
    gram, penalties
        See `loo_losses`.
    steps : int
        Largest number of additions; 0 keeps equal weights.
    """
    if not len(kernels) or not len(penalties) or min(penalties) <= 0:
        raise ParameterError("at least one kernel and one penalty above 0 are needed")
    n, gram = len(kernels), centred(gram)

    def mixed(counts):
        return sum(w * k for w, k in zip(counts / counts.sum(), kernels, strict=True) if w)

    def score(counts):
        losses = Decomposed.of(mixed(counts)).losses(gram, penalties)
        at = int(np.argmin(losses))
        return float(losses[at]), float(penalties[at])

    best = np.ones(n)
    loss, penalty = score(best)
    path = [loss]
    if steps and n > 1:
        one = np.eye(n)
        start = int(np.argmin([_loss_at(k, gram, penalty) for k in kernels]))
        alone = score(one[start])
        if alone[0] < loss:
            (loss, penalty), best = alone, one[start]
            path.append(loss)
        for _ in range(steps):
            options = [_loss_at(mixed(best + row), gram, penalty) for row in one]
            at = int(np.argmin(options))
            if options[at] >= loss * (1 - 1e-6):
                break
            best = best + one[at]
            loss, penalty = score(best)
            path.append(loss)
    return RidgeFit(best / best.sum(), penalty, loss, path)


def predict(kernels, weights, penalty: float, Y: np.ndarray) -> np.ndarray:
    """Predict test rows by kernel ridge, (m, g).

    Parameters
    ----------
    kernels : list of ((n, n), (m, n)) arrays
        Of training rows, and of test rows to them, one pair a source.
    weights, penalty
        As `tune` chose them.
    Y : (n, g) array
        Training responses.
    """
    train, test = summed(kernels, weights)
    return Decomposed.of(train).predict(test, penalty, Y)
