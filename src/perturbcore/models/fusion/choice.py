"""The same predictors with fewer sources: sets of them, one, and one under the best predictor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from perturbcore.core.digest import digest
from perturbcore.models.fusion.kernels import loss_alone
from perturbcore.models.fusion.sources import INNER_SEED, lay_out_fold
from perturbcore.score.model import Fold, Model, Prediction, fit_predict

BEST, SINGLE, SET, ANY = "Best source", "Single source", "Source set", "any predictor"
_KINDS = {"average": "knn", "kernel": "kernel", "ridge": "ridge", "mixed": "mixed"}


def kind_of(name: str, predictor: str) -> str:
    """Name the predictor of a fusion where other sources enter it; "" where none can."""
    return name if predictor == "transformer" else _KINDS.get(predictor, "")


class BestSource(Model):
    """One source alone under the predictor of a fusion: what that predictor does without fusion.

    It is chosen in each fold on training perturbations, see `loss_alone`.
    """

    name, modality = BEST, SINGLE
    tasks = ("lfc", "deg_pairs", "dir_pairs")

    def __init__(self, under: Model, n_components: int = 100, inner_folds: int = 5):
        self.under, self.layout = under, {"n_components": n_components, "inner_folds": inner_folds}
        self.predictor = kind_of(under.name, under.predictor)
        self.digest, self.joint, self.group = under.digest, under.joint, under.group
        self.spec = {"class": "BestSource", "under": under.spec, **self.layout}
        self.code = (BestSource, type(under))

    def predict(self, fold: Fold) -> Prediction:
        """Choose a source, the best over the fold's cell lines, and predict with it alone."""
        losses = []
        for line in fold.cell_lines:
            laid = lay_out_fold(_of_line(fold, line), self.under.embeddings, **self.layout)
            names = [s.name for s in laid.sources]
            losses.append(dict(zip(names, loss_alone(laid), strict=True)))
        best = pd.DataFrame(losses).mean().idxmin()
        sources = [e for e in self.under.embeddings if e.name == best]
        prediction = fit_predict(replace(self.under, embeddings=sources), fold)
        prediction.chosen, prediction.note = f"{best}: {prediction.chosen}", {}
        return prediction


def _of_line(fold: Fold, line: str) -> Fold:
    """Cut one cell line out of a joint fold."""
    if fold.cell_lines == (line,):
        return fold
    train, test = (
        part[(part.obs["cell_line"].astype(str) == line).to_numpy()].copy()
        for part in (fold.train, fold.test)
    )
    return replace(fold, cell_lines=(line,), train=train, test=test, cache={})


class BestPredictor(Model):
    """The one of several models of a cell line with the least loss on inner folds of training."""

    name, modality, predictor, group = BEST, SINGLE, ANY, "fusion"
    tasks = BestSource.tasks

    def __init__(self, models: Sequence[BestSource], inner_folds: int = 5):
        self.models, self.inner_folds = models, inner_folds
        self.digest = digest([m.digest for m in models])
        specs = [m.spec for m in models]
        self.spec = {"class": "BestPredictor", "models": specs, "inner_folds": inner_folds}
        self.code = (BestPredictor, *dict.fromkeys(kind for m in models for kind in m.code))

    def predict(self, fold: Fold) -> Prediction:
        """Choose a model, and predict with it."""
        order, inner = np.argsort(fold.train_ids), fold.train.copy()
        number = np.empty(len(order), dtype=int)
        folds = KFold(self.inner_folds, shuffle=True, random_state=INNER_SEED)
        for i, (_, rows) in enumerate(folds.split(order)):
            number[order[rows]] = i
        inner.obs["fold"] = number
        losses = []
        for i in range(self.inner_folds):
            part, truth = Fold.of(inner, i), fold.truth[np.flatnonzero(number == i)]
            losses.append([fold.task.loss(truth, fit_predict(m, part).values) for m in self.models])
        best = self.models[int(np.mean(losses, axis=0).argmin())]
        prediction = fit_predict(best, fold)
        prediction.chosen = f"{best.predictor}, {prediction.chosen}"
        return prediction


def fewer_sources(
    models: Sequence, sets: Mapping[str, Sequence[str]], **layout
) -> list[BestSource | Model]:
    """List every fusion's predictor with other sources: `sets` by name, the best single source.

    The last is the best single source under the best predictor; transformers are no candidates for
    it (a training per inner fold each). `layout`: `n_components` and `inner_folds`.
    """
    models = [m for m in models if kind_of(m.name, m.predictor)]
    best = [BestSource(m, **layout) for m in models]
    fewer = []
    for m in models:
        for name, wanted in sets.items():
            if part := [e for e in m.embeddings if e.name in wanted]:
                kind = kind_of(m.name, m.predictor)
                fewer.append(replace(m, embeddings=part, name=name, modality=SET, predictor=kind))
    alone = [m for m in best if not m.joint]
    last = [BestPredictor(alone, layout.get("inner_folds", 5))] if alone else []
    return [*fewer, *best, *last]
