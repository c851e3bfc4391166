"""The kernel mixed model of labelled pairs as a fusion: what it chooses on inner folds, and its sources."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from perturbcore.models.fusion.competitor import Competitor, called, noted_weights
from perturbcore.models.fusion.fold import LineFold
from perturbcore.models.fusion.kernels import (
    Smoother,
    cosines,
    single_auroc,
    source_weights,
    summed,
)
from perturbcore.models.fusion.mixed import MixedModel, gene_features
from perturbcore.models.simple.base import best_of
from perturbcore.score.joint import Prediction
from perturbcore.score.metrics.pairs import auroc_within

# What the mixed model chooses from on the inner folds: strength shared by all genes, modules, own.
# These two, and the blend with the smoother, were found on inner folds of PerturbQA's training split.
MIXED = (
    MixedModel(shared=0.02, module=0.01, own=0.3),
    MixedModel(shared=0.005, module=0.1, own=0.1),
)


@dataclass
class PairModel(Competitor):
    """Kernel mixed model of labelled pairs, with some of the smoother's score added.

    Its variances, and how much of the smoother, are chosen among a few on inner folds.

    Parameters
    ----------
    candidates : sequence of MixedModel
        One alone is not tuned.
    exponent : float
        How much more a source counts that is good alone: weights are a power of its AUROC above a guess.
    blends : sequence of float
        Candidates for how much of the smoother's score is added, in standard deviations of both.
    tuned_on : int
        How many of the inner folds are used, to save time.
    """

    candidates: Sequence[MixedModel] = MIXED
    exponent: float = 2.0
    blends: Sequence[float] = (0.0, 0.3, 0.6)
    smoother: Smoother = Smoother((2.0,))
    tuned_on: int = 2
    name: str = "Kernel mixed model"
    predictor: str = "mixed"
    tasks = ("deg_pairs", "dir_pairs")
    genes = True

    def options(self) -> dict:
        """Candidates and inner folds used."""
        plain = {"exponent": self.exponent, "blends": list(self.blends), "tuned_on": self.tuned_on}
        return {
            "candidates": [asdict(c) for c in self.candidates],
            "smoother": asdict(self.smoother),
            **plain,
        }

    def predict(self, fold: LineFold) -> Prediction:
        """See `perturbcore.models.fusion.mixed`."""
        kernels = cosines(fold)
        weights = source_weights(single_auroc(fold, kernels), self.exponent)
        train, test = summed(kernels, weights)
        phi = gene_features(fold.sources)
        grid = [(c, b) for c in self.candidates for b in self.blends]
        losses, scores, truth, spread = [], [], [], []
        for i, (a, b) in enumerate(fold.splits[: self.tuned_on]):
            known, query = fold.inner[i]
            rows = np.repeat(np.arange(len(b)), np.diff(query.indptr))
            inner, cross = train[np.ix_(a, a)], train[np.ix_(b, a)]
            rate = known.rates()[query.genes]
            near = self.smoother.inner(fold, train, i)[0] - rate
            mixed = [
                c.scores(known, inner, cross, phi)[rows, query.genes] - rate
                for c in self.candidates
            ]
            # both are shrunken, by different amounts: brought to one spread before they are added
            spread.append([m.std() / max(near.std(), 1e-12) for m in mixed])
            found = [
                rate + m + w * s * near
                for m, s in zip(mixed, spread[-1], strict=True)
                for w in self.blends
            ]
            losses.append([-auroc_within(query.label, s, query.genes) for s in found])
            scores.append(found)
            truth.append(query.label)
        best, blend = best_of(np.array(losses), grid)
        at = grid.index((best, blend))
        values = best.scores(fold.known, train, test, phi)
        if blend:
            scale = float(np.mean(spread, axis=0)[list(self.candidates).index(best)])
            rate = fold.known.rates().astype(np.float32)
            near = self.smoother.scores(fold.known, test, self.smoother.powers[0])
            values = values + np.float32(blend * scale) * (near - rate)
        chosen = (
            f"shared {best.shared:g}, module {best.module:g}, own {best.own:g}, smoother {blend:g}"
        )
        return called(fold, values, np.concatenate(truth), np.concatenate([s[at] for s in scores]), chosen,
                       noted_weights(fold, weights))  # fmt: skip
