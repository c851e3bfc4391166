"""Kernel ridge with one kernel a source: exact leave-one-out error decides weights and penalty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from perturbcore.errors import ParameterError
from perturbcore.fusion.kernels import summed


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
    K = centred(kernel)
    scale = max(np.trace(K) / len(K), 1e-12)
    values, vectors = eigh(K, check_finite=False)
    values = np.maximum(values, 0)
    # the residual of a constant is zero: what lies along it is taken out before
    mean = gram.mean(axis=0)
    G = gram - mean - mean[:, None] + mean.mean()
    inner = vectors.T @ G @ vectors
    out = np.empty(len(penalties))
    for j, penalty in enumerate(penalties):
        c = penalty * scale / (values + penalty * scale)
        left = vectors * c
        squared = np.einsum("ij,ij->i", left @ inner, left)
        # 1 - S_ii: the intercept takes 1 / n, the kernel part the rest
        leverage = np.einsum("ij,ij->i", left, vectors) - 1 / len(K)
        out[j] = np.mean(np.sqrt(np.maximum(squared, 0)) / np.maximum(leverage, 1e-12))
    return out


def tune(kernels: Sequence[np.ndarray], gram: np.ndarray, penalties, *, steps: int = 8) -> RidgeFit:
    """Choose non-negative kernel weights and the penalty by exact leave-one-out error.

    Weights are multiples of ``1 / step``: starting from equal weights or from the best single source,
    one kernel at a time is added where it lowers the error most, with replacement; the best point of the
    way is returned.

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
    n = len(kernels)
    seen: dict[bytes, tuple[float, float]] = {}

    def score(counts):
        share = counts / counts.sum()
        key = np.round(share, 9).tobytes()
        if key not in seen:
            K = sum(w * k for w, k in zip(share, kernels, strict=True) if w)
            losses = loo_losses(K, gram, penalties)
            at = int(np.argmin(losses))
            seen[key] = (float(losses[at]), float(penalties[at]))
        return seen[key]

    counts = np.ones(n)
    (loss, penalty), best = score(counts), counts
    path = [loss]
    if steps and n > 1:
        singles = [score(row) for row in np.eye(n)]
        start = int(np.argmin([s[0] for s in singles]))
        if singles[start][0] < loss:
            (loss, penalty), best = singles[start], np.eye(n)[start]
            path.append(loss)
        for _ in range(steps):
            options = [score(best + row) for row in np.eye(n)]
            at = int(np.argmin([o[0] for o in options]))
            if options[at][0] >= loss * (1 - 1e-6):
                break
            (loss, penalty), best = options[at], best + np.eye(n)[at]
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
    K = centred(train)
    scale = max(np.trace(K) / len(K), 1e-12)
    mean = Y.mean(axis=0)
    values, vectors = eigh(K, check_finite=False)
    alpha = vectors @ ((vectors.T @ (Y - mean)) / (np.maximum(values, 0) + penalty * scale)[:, None])
    column = train.mean(axis=0)
    cross = test - column - test.mean(axis=1, keepdims=True) + column.mean()
    return mean + cross @ alpha
