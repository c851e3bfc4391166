"""What each source adds: alone, left out, and added one by one."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import ParameterError
from perturbcore.data.responses import cell_lines, rows_of
from perturbcore.models.fusion.fold import LineFold, lay_out_fold
from perturbcore.models.fusion.kernels import Smoother, cosines, summed
from perturbcore.models.fusion.ridge import Decomposed, loo_losses, shaped
from perturbcore.models.simple.labels import Labels, pair_labels
from perturbcore.score.joint import blanked
from perturbcore.score.metrics.pairs import auroc_within
from perturbcore.score.run import PAIR_TARGETS
from perturbcore.score.store import write_atomically

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SMOOTHER = Smoother((3.0,))
DEGREE = 4


class _Sources:
    """Scores of any set of sources with equal weights: on the training part, and on the test rows."""

    def __init__(self, fold: LineFold, test: AnnData):
        self.fold, self.names = fold, [s.name for s in fold.sources]
        self.kernels = cosines(fold, cut=fold.pairs)
        if not fold.pairs:
            self.kernels = shaped(
                self.kernels, DEGREE, [(s.has_train, s.has_test) for s in fold.sources]
            )
        if fold.pairs:
            self.query = Labels.from_dense(*(x[:, fold.columns] for x in pair_labels(test)))
        else:
            self.gram = fold.Y @ fold.Y.T
            self.truth = np.asarray(test.X, dtype=np.float64)

    def inner(self, train: np.ndarray) -> float:
        """Score of a kernel on training perturbations alone; higher is better."""
        if not self.fold.pairs:
            return -float(loo_losses(train, self.gram, PENALTIES).min())
        found = []
        for i, (_, query) in enumerate(self.fold.inner):
            found.append(
                auroc_within(query.label, SMOOTHER.inner(self.fold, train, i)[0], query.genes)
            )
        return float(np.mean(found))

    def greedy(self) -> list[int]:
        """Order the sources: the next is the one that helps most on training perturbations."""
        total, chosen = np.zeros_like(self.kernels[0][0]), []
        while len(chosen) < len(self.names):
            left = [i for i in range(len(self.names)) if i not in chosen]
            n = len(chosen) + 1
            chosen.append(max(left, key=lambda i: self.inner((total + self.kernels[i][0]) / n)))
            total += self.kernels[chosen[-1]][0]
        return chosen

    def test(self, chosen: Sequence[int]) -> float:
        """Score of the test rows, in the task's own metric."""
        train, test = summed([self.kernels[i] for i in chosen])
        if self.fold.pairs:
            score = SMOOTHER.pairs(self.fold.known, self.query, test)[0]
            return float(auroc_within(self.query.label, score, self.query.genes))
        found = Decomposed.of(train)
        penalty = PENALTIES[int(np.argmin(found.losses(self.gram, PENALTIES)))]
        values = found.predict(test, penalty, self.fold.Y)
        return float(np.linalg.norm(self.truth - values, axis=1).mean())


def ablate(
    responses: AnnData,
    embeddings,
    *,
    folds=None,
    greedy_folds=None,
    n_components=100,
    inner_folds=3,
) -> pd.DataFrame:
    """Score the summed-kernel fusion with each source alone, each left out, and sources added greedily.

    Equal weights, and one power or degree: so that a difference is the source's and not that
    of tuning. The greedy order is chosen on training perturbations only.

    Parameters
    ----------
    responses : AnnData
        Task "lfc" (kernel ridge) or labelled pairs (kernel smoother).
    embeddings : sequence of Embedding
    folds, greedy_folds : sequence of int, optional
        All by default; the greedy search is the slow part.
    n_components, inner_folds : int

    Returns
    -------
    pandas.DataFrame
        cell_line, fold, kind ("all", "alone", "without", "greedy"), source (added last, for "greedy"),
        n_sources, value (L2 or AUROC within gene).
    """
    task = responses.uns["perturbcore"]["task"]
    if task != "lfc" and task not in PAIR_TARGETS:
        raise ParameterError(
            f"sources are ablated on log fold-changes and labelled pairs, not on '{task}'"
        )
    sources = [e for e in embeddings if e.modality != "Negative control"]
    rows = []
    for line in cell_lines(responses):
        here = rows_of(responses, line)
        number = here.obs["fold"].to_numpy().astype(int)
        for fold in sorted(set(number) - {-1}) if folds is None else folds:
            train, test = here[number != fold], here[number == fold]
            laid = lay_out_fold(
                train, blanked(test), sources, n_components=n_components, inner_folds=inner_folds
            )
            scorer = _Sources(laid, test)
            greedy = greedy_folds is None or fold in greedy_folds
            rows += [
                {"cell_line": line, "fold": int(fold), **row} for row in _of_fold(scorer, greedy)
            ]
    return pd.DataFrame(rows)


def _of_fold(scorer: _Sources, greedy: bool):
    names = scorer.names
    every = list(range(len(names)))
    yield {"kind": "all", "source": "", "n_sources": len(every), "value": scorer.test(every)}
    for i, name in enumerate(names):
        yield {"kind": "alone", "source": name, "n_sources": 1, "value": scorer.test([i])}
        rest = [j for j in every if j != i]
        if rest:
            yield {
                "kind": "without",
                "source": name,
                "n_sources": len(rest),
                "value": scorer.test(rest),
            }
    order = scorer.greedy() if greedy else []
    for n in range(1, len(order) + 1):
        value = scorer.test(order[:n])
        yield {"kind": "greedy", "source": names[order[n - 1]], "n_sources": n, "value": value}


def kept_ablation(chapter, responses: AnnData, embeddings, **options) -> pd.DataFrame:
    """Return `ablate`'s table, from the results of the profile where it is there already."""
    about = responses.uns["perturbcore"]
    layers = [responses.layers[k] for k in ("deg", "observed") if k in responses.layers]
    key = digest(
        about["dataset"], about["task"], responses.X, *layers, responses.obs["fold"].to_numpy(),
        sorted((e.name, e.cell_line or "", e.digest) for e in embeddings), options,
        code_digest(kept_ablation),
    )  # fmt: skip
    path = chapter.profile.results / "ablations" / f"{about['dataset']}-{key}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, ablate(responses, embeddings, **options).to_parquet(index=False))
    return pd.read_parquet(path)
