"""Kernels of several sources: their sum, a smoother of labels and a ridge that use them."""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import eigh, inv

from perturbcore.core.errors import ParameterError
from perturbcore.embeddings.linalg import unit
from perturbcore.models.fusion.sources import LineFold
from perturbcore.models.simple.labels import kernel_scores
from perturbcore.score.labels import Labels
from perturbcore.score.metrics.pairs import auroc_within

Kernel = tuple[np.ndarray, np.ndarray]
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def cosines(fold: LineFold, *, cut: bool = True) -> list[Kernel]:
    """Cosine kernels of each source, (n, n) and (m, n), negative ones cut; 0 without the source."""
    out = []
    # labels are 0 and 1: single precision is plenty, and twice as fast; ridge solves need double
    kind = np.float32 if fold.pairs else np.float64
    for s in fold.sources:
        train, test = unit(s.train).astype(kind), unit(s.test).astype(kind)
        pair = (train @ train.T, test @ train.T)
        out.append(tuple(np.maximum(k, 0) for k in pair) if cut else pair)
    return out


def bent_cosines(fold: LineFold, degree: int) -> list[Kernel]:
    """Bend cosine kernels: ``((1 + cos) / 2) ** degree``, zero where a row lacks the source."""
    out = []
    for (train, test), s in zip(cosines(fold, cut=False), fold.sources, strict=True):
        has, there = np.outer(s.has_train, s.has_train), np.outer(s.has_test, s.has_train)
        out.append((((1 + train) / 2) ** degree * has, ((1 + test) / 2) ** degree * there))
    return out


def summed(kernels: Sequence[Kernel], weights=None) -> Kernel:
    """Weighted mean of kernels of training and of test rows; equal weights by default."""
    weights = np.ones(len(kernels)) if weights is None else np.asarray(weights, dtype=np.float64)
    weights = (weights / weights.sum()).astype(kernels[0][0].dtype)
    out = tuple(np.zeros_like(k) for k in kernels[0])
    for w, pair in zip(weights, kernels, strict=True):
        if w > 0:
            for total, k in zip(out, pair, strict=True):
                total += w * k
    return out


# ------------------------------------------------------------------------------------ smoother


def smooth(known: Labels, query: Labels, kernel: np.ndarray, powers: Sequence[float]) -> np.ndarray:
    """Score pairs by known labels, weighted by powers of a kernel (m, n): (n_powers, n_pairs)."""
    return kernel_scores(known, query, kernel, powers, total=60.0, prior=3.0, rate=known.rates())


def smooth_all(known: Labels, kernel: np.ndarray, power: float) -> np.ndarray:
    """Scores of every pair of the kernel's rows, (m, g)."""
    query = Labels.every_pair(len(kernel), known.n_genes)
    return smooth(known, query, kernel, [power]).reshape(len(kernel), -1)


def smooth_inner(fold: LineFold, kernel: np.ndarray, split: int, powers) -> np.ndarray:
    """Scores of the known validation pairs of an inner fold, (n_powers, n_pairs)."""
    a, b = fold.splits[split]
    return smooth(*fold.inner[split], kernel[np.ix_(b, a)], powers)


def auroc_inner(fold: LineFold, kernel: np.ndarray, power: float) -> float:
    """AUROC within gene of a smoother on training perturbations alone, mean over inner folds."""
    scores = [smooth_inner(fold, kernel, i, [power])[0] for i in range(len(fold.splits))]
    truth = [query for _, query in fold.inner]
    each = [auroc_within(q.label, s, q.genes) for q, s in zip(truth, scores, strict=True)]
    return float(np.mean(each))


def auroc_alone(fold: LineFold) -> np.ndarray:
    """`auroc_inner` of each source alone."""
    if fold.alone is None:
        fold.alone = np.array([auroc_inner(fold, train, 2.0) for train, _ in cosines(fold)])
    return fold.alone


def source_weights(auroc: np.ndarray, exponent: float) -> np.ndarray:
    """Weights of sources by how far each alone is above a guess; equal where none is."""
    gain = np.maximum(auroc - 0.5, 0) ** exponent
    return gain / gain.sum() if gain.sum() > 0 else np.full(len(gain), 1 / len(gain))


# ------------------------------------------------------------------------------------ ridge


def centred(kernel: np.ndarray, rows=slice(None)) -> np.ndarray:
    """Kernel of features centred over some rows, all by default."""
    mean = kernel[:, rows].mean(axis=1)
    return kernel - mean - mean[:, None] + mean[rows].mean()


def _scale(K: np.ndarray) -> float:
    return max(float(np.trace(K)) / len(K), 1e-12)


def loss_alone(fold: LineFold) -> np.ndarray:
    """Loss of each source alone in training: a left-out ridge, of pairs minus `auroc_alone`."""
    if fold.pairs:
        return -auroc_alone(fold)
    if fold.alone is None:
        each = [Ridge(k).losses(fold.gram, PENALTIES).min() for k, _ in bent_cosines(fold, 2)]
        fold.alone = np.array(each)
    return fold.alone


class Ridge:
    """Kernel ridge with an unpenalised intercept, decomposed once for all penalties.

    Penalties are in units of the mean diagonal of the centred kernel.
    """

    def __init__(self, kernel: np.ndarray):
        K = centred(kernel)
        values, self.vectors = eigh(K, check_finite=False)
        self.values, self.scale = np.maximum(values, 0), _scale(K)
        self.column = kernel.mean(axis=0)

    def losses(self, gram: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
        """Mean leave-one-out L2 error for each penalty, exactly (Golub, Heath & Wahba 1979, PRESS).

        Residuals are ``e_i / (1 - S_ii)``; their norms need only `gram` = ``Y @ Y.T`` of responses.
        """
        inner = self.vectors.T @ centred(gram) @ self.vectors
        out = np.empty(len(penalties))
        for j, penalty in enumerate(penalties):
            left = self.vectors * (penalty * self.scale / (self.values + penalty * self.scale))
            squared = np.einsum("ij,ij->i", left @ inner, left)
            # 1 - S_ii: the intercept takes 1 / n, the kernel part the rest
            leverage = np.einsum("ij,ij->i", left, self.vectors) - 1 / len(left)
            out[j] = np.mean(np.sqrt(np.maximum(squared, 0)) / np.maximum(leverage, 1e-12))
        return out

    def weights(self, cross: np.ndarray, penalty: float) -> np.ndarray:
        """Weights of training rows in predictions beyond the mean, (m, n), for a kernel (m, n)."""
        side = cross - self.column - cross.mean(axis=1, keepdims=True) + self.column.mean()
        left = (side @ self.vectors) / (self.values + penalty * self.scale)
        return left @ self.vectors.T

    def predict(self, cross: np.ndarray, penalty: float, Y: np.ndarray) -> np.ndarray:
        """Predict rows with kernel `cross` (m, n) to the training rows of responses Y, (m, g)."""
        mean = Y.mean(axis=0)
        return mean + self.weights(cross, penalty) @ (Y - mean)


def _loss_at(kernel: np.ndarray, gram: np.ndarray, penalty: float) -> float:
    """Return `Ridge.losses` of one penalty by an inverse, which takes a fifth of the time."""
    K = centred(kernel)
    penalty = penalty * _scale(K)
    K[np.diag_indices_from(K)] += penalty
    C = penalty * inv(K, overwrite_a=True, check_finite=False)
    squared = np.einsum("ij,ij->i", C @ gram, C)
    leverage = np.maximum(np.diag(C) - 1 / len(K), 1e-12)
    return float(np.mean(np.sqrt(np.maximum(squared, 0)) / leverage))


def tune_weights(
    kernels: Sequence[np.ndarray], gram: np.ndarray, penalties: Sequence[float], *, steps: int = 8
) -> tuple[np.ndarray, float, float]:
    """Choose non-negative kernel weights and the penalty of a ridge by exact leave-one-out error.

    From the best start the kernel that helps most is added, at most `steps` times; returned are
    weights of sum 1, the penalty, and the loss.
    """
    if not len(penalties) or min(penalties) <= 0:
        raise ParameterError(f"penalties must be above 0, not {list(penalties)}")
    n, gram = len(kernels), centred(gram)

    def mixed(counts):
        return sum(w * k for w, k in zip(counts / counts.sum(), kernels, strict=True) if w)

    def score(counts):
        losses = Ridge(mixed(counts)).losses(gram, penalties)
        at = int(np.argmin(losses))
        return float(losses[at]), float(penalties[at])

    best = np.ones(n)
    loss, penalty = score(best)
    if steps and n > 1:
        one = np.eye(n)
        start = int(np.argmin([_loss_at(k, gram, penalty) for k in kernels]))
        alone = score(one[start])
        if alone[0] < loss:
            (loss, penalty), best = alone, one[start]
        for _ in range(steps):
            options = [_loss_at(mixed(best + row), gram, penalty) for row in one]
            at = int(np.argmin(options))
            if options[at] >= loss * (1 - 1e-6):
                break
            best = best + one[at]
            loss, penalty = score(best)
    return best / best.sum(), penalty, loss
