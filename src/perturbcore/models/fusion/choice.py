"""Fewer sources: sets of them, the best one, each alone or left out, and one after the other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.model_selection import KFold

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import ParameterError
from perturbcore.core.files import kept_table
from perturbcore.data.responses import cell_lines, rows_of
from perturbcore.embeddings.base import Embedding
from perturbcore.models.fusion import kernels as kn
from perturbcore.models.fusion.sources import INNER_SEED, LineFold, lay_out_fold
from perturbcore.score.labels import Labels
from perturbcore.score.metrics.pairs import auroc_within
from perturbcore.score.model import Fold, Model, Prediction, fit_predict
from perturbcore.score.task import task_of

BEST, SINGLE, SET, ANY = "Best source", "Single source", "Source set", "any predictor"
_KINDS = {"average": "knn", "kernel": "kernel", "ridge": "ridge", "mixed": "mixed"}


def kind_of(name: str, predictor: str) -> str:
    """Name the predictor of a fusion where other sources enter it; "" where none can."""
    return name if predictor == "transformer" else _KINDS.get(predictor, "")


class BestSource(Model):
    """One source alone under the predictor of a fusion, chosen in training by `loss_alone`."""

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
            losses.append(dict(zip(names, kn.loss_alone(laid), strict=True)))
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

    The last is the best source under the best predictor; transformers are no candidates for it.
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


PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
POWER, DEGREE = 3.0, 4


class _Scorer:
    """Scores of any sources with equal weights: on the training part, and on the test rows."""

    def __init__(self, fold: LineFold, truth: np.ndarray | Labels):
        self.fold, self.truth = fold, truth
        self.kernels = kn.cosines(fold) if fold.pairs else kn.bent_cosines(fold, DEGREE)

    def inner(self, train: np.ndarray) -> float:
        """Score of a kernel on training perturbations alone; higher is better."""
        if self.fold.pairs:
            return kn.auroc_inner(self.fold, train, POWER)
        return -float(kn.Ridge(train).losses(self.fold.gram, PENALTIES).min())

    def test(self, chosen: Sequence[int]) -> float:
        """Score of the test rows, in the task's own metric."""
        train, test = kn.summed([self.kernels[i] for i in chosen])
        if self.fold.pairs:
            score = kn.smooth(self.fold.truth, self.truth, test, [POWER])[0]
            return float(auroc_within(self.truth.label, score, self.truth.genes))
        ridge = kn.Ridge(train)
        penalty = PENALTIES[int(np.argmin(ridge.losses(self.fold.gram, PENALTIES)))]
        return self.fold.task.loss(self.truth, ridge.predict(test, penalty, self.fold.truth))

    def greedy(self) -> list[int]:
        """Order the sources: the next is the one that helps most on training perturbations."""
        total, chosen = np.zeros_like(self.kernels[0][0]), []
        left = list(range(len(self.kernels)))
        while left:
            n = len(chosen) + 1
            best = max(left, key=lambda i: self.inner((total + self.kernels[i][0]) / n))
            total += self.kernels[best][0]
            chosen.append(best)
            left.remove(best)
        return chosen

    def rows(self, greedy: bool) -> Iterator[tuple]:
        """Yield kind, source, n_sources, value."""
        names = [s.name for s in self.fold.sources]
        every = list(range(len(names)))
        yield "all", "", len(every), self.test(every)
        for i, name in enumerate(names):
            yield "alone", name, 1, self.test([i])
            if rest := [j for j in every if j != i]:
                yield "without", name, len(rest), self.test(rest)
        order = self.greedy() if greedy else []
        for n in range(1, len(order) + 1):
            yield "greedy", names[order[n - 1]], n, self.test(order[:n])


def ablate(
    responses: AnnData,
    embeddings: Sequence[Embedding],
    *,
    folds: Sequence[int] | None = None,
    greedy_folds: Sequence[int] | None = None,
    n_components: int = 100,
    inner_folds: int = 3,
) -> pd.DataFrame:
    """Score the summed kernels with each source alone, each left out, and sources added greedily.

    Weights, power and degree are fixed, and the greedy order is chosen on training perturbations,
    in `greedy_folds` only, where given.

    Returns cell_line, fold, kind ("all", "alone", "without", "greedy"), source (added last, for
    "greedy"), n_sources, value (L2 or AUROC within gene).
    """
    task = task_of(responses)
    if task.classes:
        raise ParameterError(f"only fold-changes and labelled pairs are ablated, not {task.title}")
    sources = [e for e in embeddings if e.modality != "Negative control"]
    rows = []
    for line in cell_lines(responses):
        here = rows_of(responses, line)
        number = here.obs["fold"].to_numpy().astype(int)
        for fold in sorted(set(number) - {-1}) if folds is None else folds:
            cut = Fold.of(responses, fold, [line])
            laid = lay_out_fold(cut, sources, n_components=n_components, inner_folds=inner_folds)
            truth = task.truth(here[number == fold][:, laid.genes])
            greedy = greedy_folds is None or fold in greedy_folds
            rows += [(line, int(fold), *row) for row in _Scorer(laid, truth).rows(greedy)]
    columns = ["cell_line", "fold", "kind", "source", "n_sources", "value"]
    return pd.DataFrame(rows, columns=columns)


def kept_ablation(
    folder: Path, responses: AnnData, embeddings: Sequence[Embedding], **options
) -> pd.DataFrame:
    """Return `ablate`'s table, from `folder` where it is there already."""
    about = responses.uns["perturbcore"]
    layers = [responses.layers[k] for k in task_of(responses).layers]
    key = digest(
        about["dataset"], about["task"], responses.X, *layers, responses.obs["fold"].to_numpy(),
        sorted((e.name, e.cell_line or "", e.digest) for e in embeddings), options,
        code_digest(kept_ablation),
    )  # fmt: skip
    path = Path(folder) / f"{about['dataset']}-{key}.parquet"
    return kept_table(path, lambda: ablate(responses, embeddings, **options))
