"""Fusions without a neural network, each a `JointModel` of one cell line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.fusion.averaging import Averaging
from perturbcore.models.fusion.competitor import Competitor, called, noted_weights
from perturbcore.models.fusion.concatenation import concatenate
from perturbcore.models.fusion.fold import LineFold
from perturbcore.models.fusion.kernels import (
    Smoother,
    cosines,
    single_auroc,
    source_weights,
    summed,
)
from perturbcore.models.fusion.pair_model import PairModel
from perturbcore.models.fusion.ridge import loo_losses, predict, shaped, tune
from perturbcore.models.fusion.stacking import Stacking
from perturbcore.models.simple.base import Targets, best_of
from perturbcore.models.simple.deg import DEGKNN
from perturbcore.models.simple.knn import KNN
from perturbcore.models.simple.labels import LabelKNN
from perturbcore.models.simple.space import NestedSpace
from perturbcore.score.joint import Prediction
from perturbcore.score.metrics.pairs import auroc_within
from perturbcore.score.task import task_of


@dataclass
class Concatenation(Competitor):
    """Concatenate all sources, reduce by PCA, then k nearest neighbours as for a single source."""

    k: Sequence[int] = (5, 10, 20, 40, 80)
    name: str = "Concatenation + PCA"
    predictor: str = "knn"

    def options(self) -> dict:
        """Candidate k."""
        return {"k": list(self.k)}

    def predict(self, fold: LineFold) -> Prediction:
        """Predict as a single embedding is evaluated."""
        both = fold.ids.append(fold.test_ids)
        whole = concatenate(self.embeddings, fold.ids, both, cell_line=fold.line)
        at, to = whole.ids.get_indexer(fold.ids), whole.ids.get_indexer(fold.test_ids)
        has, there = np.flatnonzero(at >= 0), np.flatnonzero(to >= 0)
        space = NestedSpace(
            whole.X[at[has]], whole.X[to[there]], self.n_components, inner_folds=self.inner_folds,
            inner_seed=self.inner_seed, inner_shuffle=fold.task != "deg",
        )  # fmt: skip
        if fold.pairs:
            values = np.tile(fold.known.rates(), (len(fold.test_ids), 1))
            targets = Targets(fold.known, rows=has)
            values[there], k, threshold = LabelKNN(self.k).predict(space, targets)
            return Prediction(values, {fold.line: threshold}, str(k))
        if fold.task == "deg":
            values = task_of(fold.task).floor(fold.Y, len(fold.test_ids), "most_frequent")
            values[:, there], chosen = DEGKNN(self.k).predict(space, Targets(fold.Y[has]))
            return Prediction(values, chosen=chosen)
        values = np.tile(fold.Y.mean(axis=0), (len(fold.test_ids), 1))
        values[there], k = KNN(self.k).predict(space, Targets(fold.Y[has]))
        return Prediction(values, chosen=str(k))


@dataclass
class AveragedKNN(Competitor):
    """Average the k-nearest-neighbour predictions of the sources."""

    k: Sequence[int] = (5, 10, 20, 40, 80)
    name: str = "Averaged kNN"
    predictor: str = "average"

    def options(self) -> dict:
        """Candidate k."""
        return {"k": list(self.k)}

    def predict(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.averaging.Averaging`."""
        model = Averaging(tuple(sorted(self.k)))
        if fold.pairs:
            values, k, label, score = model.pairs(fold)
            return called(fold, values, label, score, k)
        values, k = model.classes(fold) if fold.task == "deg" else model.responses(fold)
        return Prediction(values, chosen=str(k))


@dataclass
class Stacked(Competitor):
    """Stack single-source models by non-negative least squares on out-of-fold predictions."""

    name: str = "Stacking"
    predictor: str = "stack"
    tasks = ("lfc", "deg_pairs", "dir_pairs")

    def predict(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.stacking.Stacking`."""
        if fold.pairs:
            values, w, label, score = Stacking().pairs(fold)
            return called(fold, values, label, score, "", noted_weights(fold, w))
        values, w = Stacking().responses(fold)
        return Prediction(values, note=noted_weights(fold, w))


@dataclass
class KernelSum(Competitor):
    """Smooth the labels of all training perturbations by a power of the summed cosine kernels.

    Parameters
    ----------
    powers : sequence of float
        Candidates.
    exponents : sequence of float
        Candidates for how much more a source counts that is good alone; 0: all count alike.
    """

    powers: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 6.0)
    exponents: Sequence[float] = (0.0, 1.0, 2.0)
    name: str = "Kernel sum smoother"
    predictor: str = "kernel"
    tasks = ("deg", "deg_pairs", "dir_pairs")

    def options(self) -> dict:
        """Candidate powers and exponents."""
        return {"powers": list(self.powers), "exponents": list(self.exponents)}

    def predict(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.kernels.Smoother`."""
        kernels, smoother = cosines(fold), Smoother(powers=self.powers)
        if fold.task == "deg":
            train, test = summed(kernels)
            power = smoother.tune_classes(fold, train)
            return Prediction(
                smoother.probabilities(fold.Y, test, power), chosen=f"power {power:g}"
            )
        alone = single_auroc(fold, kernels)
        truth = [query for _, query in fold.inner]
        # one after the other: first what a source counts, at the middle power, then the power
        middle = self.powers[len(self.powers) // 2]
        sums = [summed(kernels, source_weights(alone, e)) for e in self.exponents]
        losses = [self._losses(fold, Smoother((middle,)), train, truth)[0] for train, _ in sums]
        exponent = best_of(np.concatenate(losses, axis=1), list(self.exponents))
        train, test = sums[list(self.exponents).index(exponent)]
        loss, scores = self._losses(fold, smoother, train, truth)
        power = best_of(loss, list(self.powers))
        at = list(self.powers).index(power)
        label = np.concatenate([q.label for q in truth])
        score = np.concatenate([s[at] for s in scores])
        values = smoother.scores(fold.known, test, power)
        note = noted_weights(fold, source_weights(alone, exponent))
        return called(fold, values, label, score, f"power {power:g}, exponent {exponent:g}", note)

    @staticmethod
    def _losses(fold, smoother, kernel, truth):
        scores = [smoother.inner(fold, kernel, i) for i in range(len(fold.splits))]
        losses = [
            [-auroc_within(q.label, s, q.genes) for s in part]
            for q, part in zip(truth, scores, strict=True)
        ]
        return np.array(losses), scores


@dataclass
class KernelRidge(Competitor):
    """Kernel ridge with one kernel a source; weights and penalty by exact leave-one-out error."""

    degrees: Sequence[int] = (1, 2, 4)
    penalties: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    steps: int = 8
    name: str = "Multi-kernel ridge"
    predictor: str = "ridge"
    tasks = ("lfc",)

    def options(self) -> dict:
        """Candidate degrees and penalties, and steps of the search over weights."""
        return {
            "degrees": list(self.degrees),
            "penalties": list(self.penalties),
            "steps": self.steps,
        }

    def predict(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.ridge`."""
        found, gram = cosines(fold, cut=False), fold.Y @ fold.Y.T
        has = [(s.has_train, s.has_test) for s in fold.sources]
        bent = {d: shaped(found, d, has) for d in self.degrees}
        # one after the other: the degree with equal weights, then the weights
        equal = [loo_losses(summed(bent[d])[0], gram, self.penalties).min() for d in self.degrees]
        degree = self.degrees[int(np.argmin(equal))]
        fit = tune([k for k, _ in bent[degree]], gram, list(self.penalties), steps=self.steps)
        values = predict(bent[degree], fit.weights, fit.penalty, fold.Y)
        chosen = f"degree {degree}, penalty {fit.penalty:g}"
        return Prediction(values, chosen=chosen, note=noted_weights(fold, fit.weights))


# a new competitor: one class above and one line here
ALL = (Concatenation, AveragedKNN, Stacked, KernelSum, KernelRidge, PairModel)


def competitors(
    task: str, embeddings, *, k=(5, 10, 20, 40, 80), n_components: int = 100, inner_folds: int = 5
) -> list[Competitor]:
    """List the competitors that can predict a task.

    Parameters
    ----------
    task : str
        "lfc", "deg", "deg_pairs" or "dir_pairs".
    embeddings : sequence of Embedding
        Sources; negative controls are left out.
    k : sequence of int
        Candidates of the nearest-neighbour competitors.
    n_components, inner_folds : int
        As `perturbcore.models.simple.space.Protocol`.

    Raises
    ------
    ParameterError
        No competitor predicts that task.
    """
    sources = [e for e in embeddings if e.modality != "Negative control"]
    out = []
    for kind in ALL:
        if task in kind.tasks:
            options = {"k": tuple(k)} if kind in (Concatenation, AveragedKNN) else {}
            out.append(kind(sources, n_components=n_components, inner_folds=inner_folds, **options))
    if not out:
        raise ParameterError(
            f"no competitor predicts task '{task}'; tasks: lfc, deg, deg_pairs, dir_pairs"
        )
    return out
