"""The mean of what single sources predict, each from the nearest neighbours in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.fold import LineFold, Source
from perturbcore.models.fusion.kernels import smoothed
from perturbcore.models.simple.base import best_of
from perturbcore.models.simple.deg import DEGKNN
from perturbcore.models.simple.labels import LabelKNN
from perturbcore.models.simple.space import Space
from perturbcore.score.labels import class_shares
from perturbcore.score.metrics.deg import deg_metrics
from perturbcore.score.metrics.pairs import auroc_within


def smoother_error(weights: np.ndarray, gram: np.ndarray, a, b) -> float:
    """Mean L2 error of predicting rows `b` as `weights` (b, a) times the responses of rows `a`.

    Parameters
    ----------
    weights : (n_b, n_a) array
    gram : (n, n) array
        ``Y @ Y.T``; no prediction is formed.
    a, b : int arrays
    """
    cross = np.einsum("ij,ij->i", weights, gram[np.ix_(b, a)])
    square = np.einsum("ij,ij->i", weights @ gram[np.ix_(a, a)], weights)
    return float(np.sqrt(np.maximum(np.diag(gram)[b] - 2 * cross + square, 0)).mean())


def _neighbours(fold: LineFold, source: Source, a, b, k: int, outer: bool):
    """Rows of `b` that have the source, and their neighbours among rows `a`, nearest first."""
    has_a = np.flatnonzero(source.has_train[a])
    there = source.has_test if outer else source.has_train[b]
    has_b = np.flatnonzero(there)
    test = source.test if outer else source.train[b]
    if not len(has_a) or not len(has_b):
        return has_b[:0], np.zeros((0, 1), dtype=int)
    near = Space(source.train[a[has_a]], test[has_b]).neighbours(k)
    return has_b, has_a[near]


@dataclass(frozen=True)
class Averaging:
    """Average the k-nearest-neighbour predictions of all sources that a perturbation has.

    One k serves all sources; it is tuned on the inner folds. A perturbation without any source gets
    the Train Mean.

    Parameters
    ----------
    k : sequence of int
        Candidates; cut where a source has fewer training perturbations.
    """

    k: Sequence[int] = (5, 10, 20, 40, 80)

    def __post_init__(self):
        if not len(self.k) or min(self.k) < 1:
            raise ParameterError(f"k must be at least 1, not {list(self.k)}")

    def weights(self, fold: LineFold, a, b, *, outer: bool = False) -> np.ndarray:
        """Weight of each row of `a` in the prediction of each row of `b`, (n_k, n_b, n_a)."""
        n_b = len(fold.test_ids) if outer else len(b)
        out = np.zeros((len(self.k), n_b, len(a)))
        n_sources = np.zeros(n_b)
        for source in fold.sources:
            rows, near = _neighbours(fold, source, a, b, max(self.k), outer)
            n_sources[rows] += 1
            for j, k in enumerate(self.k):
                here = near[:, :k]
                out[j, rows[:, None], here] += 1 / here.shape[1]
        lost = n_sources == 0
        out[:, ~lost] /= n_sources[~lost, None]
        out[:, lost] = 1 / len(a)
        return out

    def responses(self, fold: LineFold):
        """Predict log fold-changes of the test rows, (m, g), and name the chosen k."""
        gram, everything = fold.Y @ fold.Y.T, np.arange(len(fold.ids))
        losses = [
            [smoother_error(w, gram, a, b) for w in self.weights(fold, a, b)]
            for a, b in fold.splits
        ]
        k = best_of(np.array(losses), list(self.k))
        weights = Averaging((k,)).weights(fold, everything, None, outer=True)[0]
        return weights @ fold.Y, k

    def inner_pairs(self, fold: LineFold, split: int) -> np.ndarray:
        """Scores of the known validation pairs of an inner fold, (n_k, n_pairs)."""
        (a, b), (known, query) = fold.splits[split], fold.inner[split]
        rate = known.rates()
        counts = np.diff(query.indptr)
        total, n = np.zeros((len(self.k), len(query.genes))), np.zeros(len(query.genes))
        model = LabelKNN(self.k)
        for source in fold.sources:
            has_a, has_b = source.has_train[a], source.has_train[b]
            if has_a.any() and has_b.any():
                space = Space(source.train[a[has_a]], source.train[b[has_b]])
                where = np.repeat(has_b, counts)
                part = query.take(np.flatnonzero(has_b))
                total[:, where] += model.scores(
                    space, known.take(np.flatnonzero(has_a)), part, rate, self.k
                )
                n[where] += 1
        return np.where(n > 0, total / np.maximum(n, 1), rate[query.genes])

    def pairs(self, fold: LineFold):
        """Score every pair of the test rows, (m, g); return also k, inner labels and inner scores."""
        losses, scores, truth = [], [], []
        for i, (_, query) in enumerate(fold.inner):
            found = self.inner_pairs(fold, i)
            losses.append([-auroc_within(query.label, s, query.genes) for s in found])
            scores.append(found)
            truth.append(query.label)
        k = best_of(np.array(losses), list(self.k))
        at = list(self.k).index(k)
        known, everything = fold.known, np.arange(len(fold.ids))
        rate = known.rates()
        total, n = (
            np.zeros((len(fold.test_ids), len(rate)), np.float32),
            np.zeros(len(fold.test_ids)),
        )
        for source in fold.sources:
            rows, near = _neighbours(fold, source, everything, None, k, True)
            W = np.zeros((len(rows), len(fold.ids)), dtype=np.float32)
            np.put_along_axis(W, near, 1, axis=1)
            total[rows] += smoothed(known, W, LabelKNN(self.k).prior)
            n[rows] += 1
        values = np.where(n[:, None] > 0, total / np.maximum(n, 1)[:, None], rate)
        return values, k, np.concatenate(truth), np.concatenate([s[at] for s in scores])

    def classes(self, fold: LineFold):
        """Predict class probabilities of the test rows, (3, m, g), and name what was chosen."""
        model = DEGKNN(self.k)
        grid = model.candidates()
        losses = np.empty((len(fold.splits), len(grid)))
        for i, (a, b) in enumerate(fold.splits):
            for j, p in enumerate(self._classes(fold, model, a, b, grid, False)):
                losses[i, j] = -deg_metrics(fold.Y[b], p, ["f1_score"])["f1_score"]
        chosen = best_of(losses, grid)
        everything = np.arange(len(fold.ids))
        return self._classes(fold, model, everything, None, [chosen], True)[0], model.called(chosen)

    def _classes(self, fold, model, a, b, grid, outer):
        n_b = len(fold.test_ids) if outer else len(b)
        total = np.zeros((len(grid), 3, n_b, fold.Y.shape[1]), dtype=np.float32)
        n = np.zeros(n_b)
        for source in fold.sources:
            has_a = source.has_train[a]
            there = source.has_test if outer else source.has_train[b]
            if has_a.any() and there.any():
                test = source.test if outer else source.train[b]
                space = Space(source.train[a[has_a]], test[there])
                for j, p in enumerate(model.predictions(space, fold.Y[a[has_a]], grid)):
                    total[j][:, there] += p
                n[there] += 1
        base = np.repeat(class_shares(fold.Y[a])[:, None], n_b, axis=1)
        return [
            np.where(n[:, None] > 0, t / np.maximum(n, 1)[:, None], base).astype(np.float32)
            for t in total
        ]
