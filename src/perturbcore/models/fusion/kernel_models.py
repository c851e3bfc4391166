"""Fusions by summed kernels, and the list of all fusions without a neural network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from perturbcore.embeddings.base import Embedding
from perturbcore.models.fusion.kernels import (
    PENALTIES,
    Ridge,
    auroc_alone,
    bent_cosines,
    cosines,
    smooth_all,
    smooth_inner,
    source_weights,
    summed,
    tune_weights,
)
from perturbcore.models.fusion.mixed import MixedModel, gene_features
from perturbcore.models.fusion.simple import (
    AveragedKNN,
    Concatenation,
    Fusion,
    Stacked,
    noted_weights,
    pair_prediction,
    tuned_pairs,
)
from perturbcore.models.fusion.sources import LineFold
from perturbcore.score.model import Prediction
from perturbcore.score.task import Task, task_of

# What the mixed model chooses from on the inner folds: strength shared by all genes, modules, own.
# These two, and the blend, were found on inner folds of PerturbQA's training split.
MIXED = (
    MixedModel(shared=0.02, module=0.01, own=0.3),
    MixedModel(shared=0.005, module=0.1, own=0.1),
)


@dataclass
class KernelSum(Fusion):
    """Smooth the labels of all training perturbations by a power of the summed cosine kernels.

    Tuned are the power and the exponent: how much more a source counts that is good alone.
    """

    powers: Sequence[float] = (1.0, 2.0, 3.0, 4.0, 6.0)
    exponents: Sequence[float] = (0.0, 1.0, 2.0)
    name: str = "Kernel sum smoother"
    predictor: str = "kernel"
    tasks = ("deg_pairs", "dir_pairs")

    def predict_line(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.kernels.smooth`."""
        # one after the other: first what a source counts, at the middle power, then the power
        kernels, alone = cosines(fold), auroc_alone(fold)
        middle = [self.powers[len(self.powers) // 2]]
        sums = {e: summed(kernels, source_weights(alone, e)) for e in self.exponents}
        exponent, _ = tuned_pairs(
            fold,
            self.exponents,
            lambda i: [smooth_inner(fold, train, i, middle)[0] for train, _ in sums.values()],
        )
        train, test = sums[exponent]
        power, inner = tuned_pairs(
            fold, self.powers, lambda i: smooth_inner(fold, train, i, self.powers)
        )
        values = smooth_all(fold.truth, test, power)
        note = noted_weights(fold, source_weights(alone, exponent))
        return pair_prediction(fold, values, inner, f"power {power:g}, exponent {exponent:g}", note)


@dataclass
class KernelRidge(Fusion):
    """Kernel ridge with one kernel per source; weights and penalty by exact leave-one-out error."""

    degrees: Sequence[int] = (1, 2, 4)
    penalties: Sequence[float] = PENALTIES
    steps: int = 8
    name: str = "Multi-kernel ridge"
    predictor: str = "ridge"
    tasks = ("lfc",)

    def predict_line(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.kernels.tune_weights`."""
        bent = {d: bent_cosines(fold, d) for d in self.degrees}
        # one after the other: the degree with equal weights, then the weights
        losses = {
            d: Ridge(summed(k)[0]).losses(fold.gram, self.penalties).min() for d, k in bent.items()
        }
        degree = min(losses, key=losses.get)
        weights, penalty, _ = tune_weights(
            [train for train, _ in bent[degree]], fold.gram, self.penalties, steps=self.steps
        )
        train, test = summed(bent[degree], weights)
        values = Ridge(train).predict(test, penalty, fold.truth)
        chosen = f"degree {degree}, penalty {penalty:g}"
        return Prediction(values, chosen=chosen, note=noted_weights(fold, weights))


@dataclass
class PairModel(Fusion):
    """Kernel mixed model of labelled pairs, with some of the smoother's score added.

    Chosen on the first `tuned_on` inner folds are the variances, among `candidates`, and how much
    of the smoother (with a `power` of the kernel) is added: `blends`, in standard deviations of
    both.
    """

    candidates: Sequence[MixedModel] = MIXED
    exponent: float = 2.0
    blends: Sequence[float] = (0.0, 0.3, 0.6)
    power: float = 2.0
    tuned_on: int = 2
    name: str = "Kernel mixed model"
    predictor: str = "mixed"
    tasks = ("deg_pairs", "dir_pairs")

    def predict_line(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.mixed`."""
        weights = source_weights(auroc_alone(fold), self.exponent)
        train, test = summed(cosines(fold), weights)
        phi = gene_features(fold.sources)
        grid = [(c, b) for c in self.candidates for b in self.blends]
        spread = []

        def blended(i):
            (a, b), (known, query) = fold.splits[i], fold.inner[i]
            inner, cross = train[np.ix_(a, a)], train[np.ix_(b, a)]
            rate = known.rates()[query.genes]
            near = smooth_inner(fold, train, i, [self.power])[0] - rate
            mixed = [
                c.scores(known, inner, cross, phi)[query.rows, query.genes] - rate
                for c in self.candidates
            ]
            # both are shrunken, by different amounts: brought to one spread before they are added
            spread.append([m.std() / max(near.std(), 1e-12) for m in mixed])
            scaled = zip(mixed, spread[-1], strict=True)
            return [rate + m + w * s * near for m, s in scaled for w in self.blends]

        (best, blend), inner = tuned_pairs(fold, grid, blended, self.tuned_on)
        values = best.scores(fold.truth, train, test, phi)
        if blend:
            scale = float(np.mean(spread, axis=0)[list(self.candidates).index(best)])
            near = smooth_all(fold.truth, test, self.power) - fold.truth.rates()
            values = values + blend * scale * near
        chosen = (
            f"shared {best.shared:g}, module {best.module:g}, own {best.own:g}, smoother {blend:g}"
        )
        return pair_prediction(fold, values, inner, chosen, noted_weights(fold, weights))


# a new fusion: one class and one line here
ALL: tuple[type[Fusion], ...] = (
    Concatenation,
    AveragedKNN,
    Stacked,
    KernelSum,
    KernelRidge,
    PairModel,
)


def fusions(
    task: str | Task,
    embeddings: Sequence[Embedding],
    *,
    k: Sequence[int] = (5, 10, 20, 40, 80),
    n_components: int = 100,
    inner_folds: int = 5,
) -> list[Fusion]:
    """List the fusions without a neural network of a task; `k` are candidates of kNN."""
    name = task_of(task).name
    sources = [e for e in embeddings if e.modality != "Negative control"]
    made = [kind(sources, n_components, inner_folds) for kind in ALL if name in kind.tasks]
    return [replace(m, k=tuple(k)) if hasattr(m, "k") else m for m in made]  # type: ignore[call-arg]
