"""What each source adds to the summed kernels: alone, left out, and added one by one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import ParameterError
from perturbcore.core.files import save_table
from perturbcore.data.responses import cell_lines, rows_of
from perturbcore.embeddings.base import Embedding
from perturbcore.models.fusion.kernels import (
    Ridge,
    auroc_inner,
    bent_cosines,
    cosines,
    smooth,
    summed,
)
from perturbcore.models.fusion.sources import LineFold, lay_out_fold
from perturbcore.score.labels import Labels
from perturbcore.score.metrics.pairs import auroc_within
from perturbcore.score.model import Fold
from perturbcore.score.task import task_of

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
POWER, DEGREE = 3.0, 4


class _Scorer:
    """Scores of any sources with equal weights: on the training part, and on the test rows."""

    def __init__(self, fold: LineFold, truth: np.ndarray | Labels):
        self.fold, self.truth = fold, truth
        self.kernels = cosines(fold) if fold.pairs else bent_cosines(fold, DEGREE)

    def inner(self, train: np.ndarray) -> float:
        """Score of a kernel on training perturbations alone; higher is better."""
        if self.fold.pairs:
            return auroc_inner(self.fold, train, POWER)
        return -float(Ridge(train).losses(self.fold.gram, PENALTIES).min())

    def test(self, chosen: Sequence[int]) -> float:
        """Score of the test rows, in the task's own metric."""
        train, test = summed([self.kernels[i] for i in chosen])
        if self.fold.pairs:
            score = smooth(self.fold.truth, self.truth, test, [POWER])[0]
            return float(auroc_within(self.truth.label, score, self.truth.genes))
        ridge = Ridge(train)
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
        raise ParameterError(
            f"sources are ablated on log fold-changes and labelled pairs, not on {task.title}"
        )
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
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_table(ablate(responses, embeddings, **options), path)
    return pd.read_parquet(path)
