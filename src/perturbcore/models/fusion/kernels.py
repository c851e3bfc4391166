"""Kernels of several sources: their cosines, summed; and a smoother of labels that uses them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from perturbcore.core.digest import digest
from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.fold import LineFold
from perturbcore.models.simple.base import best_of
from perturbcore.models.simple.labels import Labels, kernel_scores, raise_to
from perturbcore.score.labels import class_counts
from perturbcore.score.metrics.deg import deg_metrics
from perturbcore.score.metrics.pairs import auroc_within


def unit(x: np.ndarray) -> np.ndarray:
    """Scale rows to length one; rows of zeros stay."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def cosines(fold: LineFold, *, cut: bool = True) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cosine kernels of each source: (n, n) among training rows and (m, n) of test rows to them.

    Parameters
    ----------
    fold : LineFold
    cut : bool
        Whether negative cosines become zero. Rows that lack a source have cosine zero to all.
    """
    out = []
    # labels are 0 and 1: single precision is plenty, and twice as fast; ridge solves need double
    kind = np.float32 if fold.pairs else np.float64
    for s in fold.sources:
        train, test = unit(s.train).astype(kind), unit(s.test).astype(kind)
        pair = (train @ train.T, test @ train.T)
        out.append(tuple(np.maximum(k, 0) for k in pair) if cut else pair)
    return out


def summed(kernels, weights=None) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of kernels of the training rows and of the test rows; equal weights by default.

    Parameters
    ----------
    kernels : list of (array, array)
        As `cosines` returns.
    weights : sequence of float, optional
        One a source, not negative.
    """
    weights = np.ones(len(kernels)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(weights) != len(kernels) or (weights < 0).any() or not weights.sum() > 0:
        raise ParameterError(f"weights {weights.tolist()} do not fit {len(kernels)} sources")
    weights = (weights / weights.sum()).astype(kernels[0][0].dtype)
    out = []
    for part in (0, 1):
        total = np.zeros_like(kernels[0][part])
        for w, k in zip(weights, kernels, strict=True):
            if w > 0:
                total += w * k[part]
        out.append(total)
    return tuple(out)


def smoothed(known: Labels, weight: np.ndarray, prior: float) -> np.ndarray:
    """Weighted share of positives among known labels, pulled to each gene's rate, (m, g) float32.

    Parameters
    ----------
    known : Labels
        Of n training rows.
    weight : (m, n) array
        Weight of each training row for each row to be scored; not negative.
    prior : float
        Weight of the rate.
    """
    shape = (len(known.indptr) - 1, known.n_genes)
    there = sp.csr_matrix((np.ones(len(known.genes), np.float32), known.genes, known.indptr), shape)
    positive = sp.csr_matrix((known.label.astype(np.float32), known.genes, known.indptr), shape)
    positive.eliminate_zeros()
    columns = np.ascontiguousarray(weight.T, dtype=np.float32)
    rate = known.rates().astype(np.float32)[:, None]
    return np.ascontiguousarray(
        ((positive.T @ columns + prior * rate) / (there.T @ columns + prior)).T
    )


_ALONE: dict[str, np.ndarray] = {}


def single_auroc(fold: LineFold, kernels, power: float = 2.0) -> np.ndarray:
    """AUROC within gene of a smoother with each source alone, mean over inner folds, (n_sources,)."""
    key = digest(fold.task, [s.key for s in fold.sources], fold.known.indptr, fold.known.genes, fold.known.label,
                 [b for _, b in fold.splits], power)  # fmt: skip
    if key not in _ALONE:
        smoother = Smoother((power,))
        out = np.empty((len(fold.splits), len(kernels)))
        for i, (_, query) in enumerate(fold.inner):
            for s, (train, _) in enumerate(kernels):
                out[i, s] = auroc_within(
                    query.label, smoother.inner(fold, train, i)[0], query.genes
                )
        _ALONE[key] = out.mean(axis=0)
    return _ALONE[key]


def source_weights(auroc: np.ndarray, exponent: float) -> np.ndarray:
    """Weights of sources by how far each alone is above a guess; equal where none is, or exponent 0."""
    gain = np.maximum(auroc - 0.5, 0) ** exponent
    return gain / gain.sum() if gain.sum() > 0 else np.full(len(gain), 1 / len(gain))


@dataclass(frozen=True)
class Smoother:
    """Share of positives among the labels of all training perturbations, weighted by summed kernels.

    The weights are a power of the sum of the sources' cosines, scaled to `total` for each test
    perturbation; the gene's own rate enters with weight `prior`. Only the power is tuned, on the inner
    folds.

    Parameters
    ----------
    powers : sequence of float
        Candidates.
    total, prior : float
        In labels.
    """

    powers: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 6.0)
    total: float = 60.0
    prior: float = 3.0

    def inner(self, fold: LineFold, kernel: np.ndarray, split: int) -> np.ndarray:
        """Scores of the known validation pairs of an inner fold, (n_powers, n_pairs).

        Labels are known for few genes of a perturbation: only these are scored.
        """
        (a, b), (known, query) = fold.splits[split], fold.inner[split]
        return self.pairs(known, query, kernel[np.ix_(b, a)])

    def pairs(self, known: Labels, query: Labels, kernel: np.ndarray) -> np.ndarray:
        """Scores of the pairs of `query` alone, by a kernel (m, n), (n_powers, n_pairs)."""
        return kernel_scores(known, query, kernel, self.powers, total=self.total, prior=self.prior,
                             rate=known.rates())  # fmt: skip

    def scores(self, known: Labels, kernel: np.ndarray, power: float) -> np.ndarray:
        """Scores of every pair of the kernel's rows, (m, g)."""
        return smoothed(known, self._weight(kernel, power), self.prior)

    def _weight(self, kernel, power):
        raised = raise_to(kernel, power)
        size = raised.sum(axis=1, keepdims=True)
        return raised * np.divide(self.total, size, out=np.zeros_like(size), where=size > 0)

    def probabilities(self, label: np.ndarray, kernel: np.ndarray, power: float) -> np.ndarray:
        """Smoothed class frequencies of complete labels, (3, m, g)."""
        weight = self._weight(kernel, power)
        counts = class_counts(label)
        share = counts / counts.sum(axis=0)
        near = np.stack([weight @ (label == c).astype(np.float64) for c in (-1, 0, 1)])
        found = near + self.prior * share[:, None]
        return (found / found.sum(axis=0)).astype(np.float32)

    def tune_classes(self, fold: LineFold, kernel: np.ndarray) -> float:
        """Power of best macro F1 of complete labels on the inner folds."""
        losses = np.empty((len(fold.splits), len(self.powers)))
        for i, (a, b) in enumerate(fold.splits):
            for j, power in enumerate(self.powers):
                p = self.probabilities(fold.Y[a], kernel[np.ix_(b, a)], power)
                losses[i, j] = -deg_metrics(fold.Y[b], p, ["f1_score"])["f1_score"]
        return best_of(losses, list(self.powers))
