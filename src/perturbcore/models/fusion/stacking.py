"""Stacking: one model a source, and weights of the models learned from their out-of-fold predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import nnls

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.fold import LineFold
from perturbcore.models.fusion.kernels import Smoother, cosines
from perturbcore.models.fusion.ridge import centred
from perturbcore.models.simple.base import best_of
from perturbcore.score.metrics.pairs import auroc_within


def non_negative(A: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Minimise ``w A w - 2 c w`` over w >= 0, for a positive semi-definite A.

    References
    ----------
    Breiman 1996 (stacked regressions); Lawson & Hanson 1974.
    """
    values, vectors = eigh(A)
    keep = values > 1e-10 * max(values.max(), 1e-30)
    root = vectors[:, keep] * np.sqrt(values[keep])
    return nnls(root.T, (vectors[:, keep] / np.sqrt(values[keep])).T @ c)[0]


def ridge_map(train: np.ndarray, cross: np.ndarray, penalties) -> list[np.ndarray]:
    """Weights of training rows in kernel-ridge predictions beyond the mean, one (m, n) a penalty."""
    K = centred(train)
    scale = max(np.trace(K) / len(K), 1e-12)
    values, vectors = eigh(K, check_finite=False)
    column = train.mean(axis=0)
    there = cross - column - cross.mean(axis=1, keepdims=True) + column.mean()
    left = there @ vectors
    return [(left / (np.maximum(values, 0) + p * scale)) @ vectors.T for p in penalties]


@dataclass(frozen=True)
class Stacking:
    """Non-negative combination of single-source models, by least squares on inner out-of-fold predictions.

    For log fold-changes each source has a kernel ridge with its own penalty, for labelled pairs a
    kernel smoother with its own power; both are tuned on the same inner folds.

    Parameters
    ----------
    penalties : sequence of float
        Candidates, in units of the mean diagonal of the centred kernel.
    powers : sequence of float
        Candidates of the smoother.
    """

    penalties: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    powers: Sequence[float] = (2.0,)

    def __post_init__(self):
        if not len(self.penalties) or min(self.penalties) <= 0:
            raise ParameterError(f"penalties must be above 0, not {list(self.penalties)}")

    def responses(self, fold: LineFold):
        """Predict log fold-changes of the test rows, (m, g), and return the weights of the sources."""
        kernels = cosines(fold, cut=False)
        gram = fold.Y @ fold.Y.T
        maps, losses = [], np.empty((len(kernels), len(fold.splits), len(self.penalties)))
        centres = [_centred_gram(gram, a, b) for a, b in fold.splits]
        for s, (train, _) in enumerate(kernels):
            mine = []
            for i, (a, b) in enumerate(fold.splits):
                mine.append(ridge_map(train[np.ix_(a, a)], train[np.ix_(b, a)], self.penalties))
                Gaa, Gba, Gbb = centres[i]
                for j, H in enumerate(mine[-1]):
                    cross, square = np.einsum("ij,ij->i", H, Gba), np.einsum("ij,ij->i", H @ Gaa, H)
                    losses[s, i, j] = np.sqrt(np.maximum(Gbb - 2 * cross + square, 0)).mean()
            maps.append(mine)
        best = [int(np.argmin(loss.mean(axis=0))) for loss in losses]
        A, c = np.zeros((len(kernels),) * 2), np.zeros(len(kernels))
        for i in range(len(fold.splits)):
            Gaa, Gba, _ = centres[i]
            H = [maps[s][i][best[s]] for s in range(len(kernels))]
            moved = [h @ Gaa for h in H]
            c += [np.sum(h * Gba) for h in H]
            A += [[np.sum(x * h) for h in H] for x in moved]
        w = non_negative(A, c)
        mean = fold.Y.mean(axis=0)
        total = np.zeros((len(fold.test_ids), len(fold.ids)))
        for s, (train, test) in enumerate(kernels):
            if w[s] > 0:
                total += w[s] * ridge_map(train, test, [self.penalties[best[s]]])[0]
        return mean + total @ (fold.Y - mean), w

    def pairs(self, fold: LineFold):
        """Score every pair of the test rows; return also weights, inner labels and inner scores."""
        kernels = cosines(fold)
        smoother = Smoother(powers=self.powers)
        truth, rates, found = [], [], []
        for i, (known, query) in enumerate(fold.inner):
            truth.append(query)
            rates.append(known.rates()[query.genes])
            found.append(np.stack([smoother.inner(fold, train, i) for train, _ in kernels]))
        losses = np.array(
            [[[-auroc_within(q.label, s, q.genes) for s in of] for of in part]
             for q, part in zip(truth, found, strict=True)]
        )  # fmt: skip
        best = [best_of(losses[:, s], list(self.powers)) for s in range(len(kernels))]
        at = [list(self.powers).index(p) for p in best]
        rate = np.concatenate(rates)
        X = (
            np.concatenate([[part[s, j] for s, j in enumerate(at)] for part in found], axis=1)
            - rate
        )
        label = np.concatenate([q.label for q in truth])
        w = non_negative(X @ X.T, X @ (label - rate))
        overall = fold.known.rates()
        values = np.tile(overall, (len(fold.test_ids), 1))
        for s, (_, test) in enumerate(kernels):
            if w[s] > 0:
                values += w[s] * (smoother.scores(fold.known, test, best[s]) - overall)
        return values, w, label, rate + w @ X


def _centred_gram(gram, a, b):
    """Inner products of responses minus the mean of rows `a`: (a, a), (b, a), diagonal of (b, b)."""
    aa, ba = gram[np.ix_(a, a)], gram[np.ix_(b, a)]
    mean, whole = aa.mean(axis=0), aa.mean()
    side = ba.mean(axis=1)
    return (
        aa - mean - mean[:, None] + whole,
        ba - mean - side[:, None] + whole,
        np.diag(gram)[b] - 2 * side + whole,
    )
