"""Fusions without a neural network: what all share, averaging and stacking of single sources."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import nnls

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding
from perturbcore.models.fusion.kernels import Ridge, centred, cosines, smooth_all, smooth_inner
from perturbcore.models.fusion.sources import INNER_SEED, LineFold, lay_out_fold
from perturbcore.models.simple import predictor
from perturbcore.models.simple.base import Targets, best_of
from perturbcore.models.simple.labels import tuned_on_pairs
from perturbcore.models.simple.space import NestedSpace, Space
from perturbcore.score.labels import Labels, best_threshold
from perturbcore.score.model import Fold, Model, Prediction

InnerScores = tuple[np.ndarray, np.ndarray]


@dataclass
class Fusion(Model):
    """What fusions of one cell line share; subclasses say how a laid-out fold is predicted."""

    embeddings: Sequence[Embedding]
    n_components: int = 100
    inner_folds: int = 5
    name: str = ""
    modality: str = "Fusion"
    predictor: str = ""
    digest: str = field(default="", init=False)

    tasks: ClassVar[tuple[str, ...]] = ("lfc", "deg", "deg_pairs", "dir_pairs")
    group: ClassVar[str] = "fusion"

    def __post_init__(self):
        self.embeddings = sorted(self.embeddings, key=lambda e: (e.name, e.cell_line or ""))
        if not self.embeddings:
            raise InputError(f"{self.name}: there is no embedding to fuse")
        self.digest = digest([(e.name, e.cell_line, e.digest) for e in self.embeddings])

    def predict(self, fold: Fold) -> Prediction:
        """Tune on inner folds of the training part, learn from all of it, predict every gene."""
        laid = lay_out_fold(
            fold, self.embeddings, n_components=self.n_components, inner_folds=self.inner_folds
        )
        prediction = self.predict_line(laid)
        if len(laid.genes) < fold.test.n_vars:
            # genes without any known training label get the overall rate
            values = np.full(fold.test.shape, laid.truth.label.mean())
            values[:, laid.genes] = prediction.values
            prediction.values = values
        known = [np.concatenate([s.has_train, s.has_test]) for s in laid.sources]
        prediction.coverage = float(np.any(known, axis=0).mean())
        return prediction

    def predict_line(self, fold: LineFold) -> Prediction:
        """Predict the test rows of a laid-out fold."""
        raise NotImplementedError


def tuned_pairs(
    fold: LineFold, grid: Sequence, score: Callable[[int], Sequence], n_splits: int | None = None
) -> tuple[Any, InnerScores]:
    """Choose from a grid by ``score(i)`` of inner fold i, one row per value: `tuned_on_pairs`."""
    truth = [query for _, query in fold.inner[:n_splits]]
    return tuned_on_pairs(truth, [score(i) for i in range(len(truth))], grid)


def pair_prediction(
    fold: LineFold, values: np.ndarray, inner: InnerScores, chosen: object = "", note=None
) -> Prediction:
    """Make the prediction of labelled pairs, with the threshold of best F1 on inner folds."""
    label, score = inner
    cut = {fold.line: best_threshold(label, np.asarray(score, dtype=np.float64))}
    return Prediction(values, cut, str(chosen), note=note or {})


def noted_weights(fold: LineFold, weights: Sequence[float]) -> dict:
    """Note of what a fusion gave each source."""
    pairs = zip(fold.sources, weights, strict=True)
    return {"weights": {s.name: round(float(w), 4) for s, w in pairs}}


@dataclass
class Concatenation(Fusion):
    """Concatenate sources (the mean for a missing one), reduce by PCA, then nearest neighbours."""

    k: Sequence[int] = (5, 10, 20, 40, 80)
    name: str = "Concatenation + PCA"
    predictor: str = "knn"

    def predict_line(self, fold: LineFold) -> Prediction:
        """Predict as a single embedding is evaluated."""
        sides = [[], []]
        for e in fold.embeddings:
            at = [e.ids.get_indexer(ids) for ids in (fold.ids, fold.test_ids)]
            mean = e.X[at[0][at[0] >= 0]].mean(axis=0, dtype=np.float64).astype(np.float32)
            for side, a in zip(sides, at, strict=True):
                side.append(np.where((a >= 0)[:, None], e.X[a], mean))
        train, test = (np.concatenate(side, axis=1) for side in sides)
        has = np.flatnonzero(np.any([s.has_train for s in fold.sources], axis=0))
        there = np.flatnonzero(np.any([s.has_test for s in fold.sources], axis=0))
        space = NestedSpace(
            train[has], test[there], self.n_components, inner_folds=self.inner_folds,
            inner_seed=INNER_SEED, inner_shuffle=fold.task.inner_shuffle,
        )  # fmt: skip
        values = fold.task.floor(fold.truth, len(test), fold.task.missing)
        knn = predictor("knn", fold.task, grid=self.k)
        values[..., there, :], k, *cut = knn.predict(space, Targets(fold.truth, rows=has))
        return Prediction(values, {fold.line: cut[0]} if cut else None, str(k))


@dataclass
class AveragedKNN(Fusion):
    """Average the kNN predictions, of one k, of all sources that a perturbation has."""

    k: Sequence[int] = (5, 10, 20, 40, 80)
    name: str = "Averaged kNN"
    predictor: str = "average"

    def predict_line(self, fold: LineFold) -> Prediction:
        """Tune on inner folds, then average."""
        model, every = predictor("knn", fold.task, grid=sorted(self.k)), np.arange(len(fold.ids))
        grid = model.candidates()
        if fold.pairs:

            def inner(i):
                (a, b), (known, query) = fold.splits[i], fold.inner[i]
                return _averaged_pairs(fold, model, a, b, known, query, grid)

            k, scores = tuned_pairs(fold, grid, inner)
            query = Labels.every_pair(len(fold.test_ids), len(fold.genes))
            values = _averaged_pairs(fold, model, every, None, fold.truth, query, [k])
            return pair_prediction(fold, values.reshape(len(fold.test_ids), -1), scores, k)
        losses = [
            [fold.task.loss(fold.truth[b], p) for p in _averaged(fold, model, a, b, grid)]
            for a, b in fold.splits
        ]
        k = best_of(np.array(losses), grid)
        values = next(_averaged(fold, model, every, None, [k]))
        return Prediction(values, chosen=str(model.called(k)))


def _spaces(fold: LineFold, a, b) -> Iterator[tuple[np.ndarray, np.ndarray, Space]]:
    """Per source: which of rows `a`, and of rows `b` (None: test rows), have it; their space."""
    for s in fold.sources:
        test, there = (s.test, s.has_test) if b is None else (s.train[b], s.has_train[b])
        has, to = np.flatnonzero(s.has_train[a]), np.flatnonzero(there)
        if len(has) and len(to):
            yield has, to, Space(s.train[a[has]], test[to])


def _averaged(fold: LineFold, model, a, b, grid) -> Iterator[np.ndarray]:
    """Mean over sources of what rows `a` say of rows `b`, shaped as a prediction, per candidate."""
    base = fold.task.floor(fold.truth[a], len(fold.test_ids) if b is None else len(b))
    total, n = np.zeros((len(grid), *base.shape), base.dtype), np.zeros(base.shape[-2])
    for has, to, space in _spaces(fold, a, b):
        n[to] += 1
        parts = model.predictions(space, fold.truth[a[has]], grid)
        for one, part in zip(total, parts, strict=True):
            one[..., to, :] += part
    for one in total:
        mean = np.where(n[:, None] > 0, one / np.maximum(n, 1)[:, None], base)
        yield mean.astype(base.dtype, copy=False)


def _averaged_pairs(fold: LineFold, model, a, b, known: Labels, query: Labels, grid) -> np.ndarray:
    """Mean over sources of the scores of the pairs of `query`, (n_candidates, n_pairs)."""
    rate, rows = known.rates(), query.rows
    total, n = np.zeros((len(grid), len(rows))), np.zeros(len(rows))
    for has, to, space in _spaces(fold, a, b):
        where = np.isin(rows, to)
        total[:, where] += model.scores(space, known[has], query[to], rate, grid)
        n[where] += 1
    return np.where(n > 0, total / np.maximum(n, 1), rate[query.genes])


def smoother_error(weights: np.ndarray, gram: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Mean L2 error of predicting rows `b` as `weights` times rows `a`, by inner products alone."""
    cross = np.einsum("ij,ij->i", weights, gram[np.ix_(b, a)])
    square = np.einsum("ij,ij->i", weights @ gram[np.ix_(a, a)], weights)
    return float(np.sqrt(np.maximum(np.diag(gram)[b] - 2 * cross + square, 0)).mean())


@dataclass
class Stacked(Fusion):
    """Non-negative least-squares combination of kernel ridges, of kernel smoothers for labels."""

    penalties: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    power: float = 2.0
    name: str = "Stacking"
    predictor: str = "stack"
    tasks = ("lfc", "deg_pairs", "dir_pairs")

    def predict_line(self, fold: LineFold) -> Prediction:
        """Predict each source alone, and weigh them."""
        return self._pairs(fold) if fold.pairs else self._responses(fold)

    def _responses(self, fold: LineFold) -> Prediction:
        kernels, n = cosines(fold, cut=False), len(fold.sources)
        grams = [centred(fold.gram, a) for a, _ in fold.splits]
        maps, penalties = [], []
        for train, _ in kernels:
            weights, losses = [], []
            for (a, b), gram in zip(fold.splits, grams, strict=True):
                ridge, cross = Ridge(train[np.ix_(a, a)]), train[np.ix_(b, a)]
                weights.append([ridge.weights(cross, p) for p in self.penalties])
                losses.append([smoother_error(w, gram, a, b) for w in weights[-1]])
            at = int(np.argmin(np.mean(losses, axis=0)))
            maps.append([w[at] for w in weights])
            penalties.append(self.penalties[at])
        A, c = np.zeros((n, n)), np.zeros(n)
        for H, (a, b), gram in zip(zip(*maps, strict=True), fold.splits, grams, strict=True):
            c += [np.sum(h * gram[np.ix_(b, a)]) for h in H]
            A += [[np.sum(m * h) for h in H] for m in (h @ gram[np.ix_(a, a)] for h in H)]
        w = non_negative(A, c)
        mean, total = fold.truth.mean(axis=0), np.zeros((len(fold.test_ids), len(fold.ids)))
        for weight, penalty, (train, test) in zip(w, penalties, kernels, strict=True):
            if weight > 0:
                total += weight * Ridge(train).weights(test, penalty)
        return Prediction(mean + total @ (fold.truth - mean), note=noted_weights(fold, w))

    def _pairs(self, fold: LineFold) -> Prediction:
        kernels = cosines(fold)
        rate = np.concatenate([known.rates()[query.genes] for known, query in fold.inner])
        label = np.concatenate([query.label for _, query in fold.inner])
        each = range(len(fold.splits))
        inner = [[smooth_inner(fold, k, i, [self.power])[0] for i in each] for k, _ in kernels]
        X = np.array([np.concatenate(parts) for parts in inner]) - rate
        w = non_negative(X @ X.T, X @ (label - rate))
        overall = fold.truth.rates()
        values = np.tile(overall, (len(fold.test_ids), 1))
        for weight, (_, test) in zip(w, kernels, strict=True):
            if weight > 0:
                values += weight * (smooth_all(fold.truth, test, self.power) - overall)
        return pair_prediction(fold, values, (label, rate + w @ X), note=noted_weights(fold, w))


def non_negative(A: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Minimise ``w A w - 2 c w`` over w >= 0 (Breiman 1996; Lawson & Hanson 1974)."""
    values, vectors = eigh(A)
    keep = values > 1e-10 * max(values.max(), 1e-30)
    root = vectors[:, keep] * np.sqrt(values[keep])
    return nnls(root.T, (vectors[:, keep] / np.sqrt(values[keep])).T @ c)[0]
