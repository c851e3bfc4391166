"""What fusions without a neural network have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from anndata import AnnData

from perturbcore.core.digest import digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.models.fusion.fold import LineFold, lay_out_fold
from perturbcore.models.simple.labels import best_threshold
from perturbcore.score.joint import Prediction
from perturbcore.score.run import PAIR_TARGETS


@dataclass
class Competitor:
    """What all competitors share; subclasses say how a laid-out fold is predicted.

    Parameters
    ----------
    embeddings : sequence of Embedding
        The sources. Negative controls do not belong here.
    n_components, inner_folds, inner_seed : int
        As `perturbcore.models.simple.space.Protocol`.
    name : str
        Name in the scores table.
    """

    embeddings: Sequence
    n_components: int = 100
    inner_folds: int = 5
    inner_seed: int = 42
    name: str = ""
    modality: str = "Fusion"
    predictor: str = ""
    joint: bool = field(default=False, init=False)

    tasks = ("lfc", "deg", "deg_pairs", "dir_pairs")
    genes = False

    def __post_init__(self):
        self.embeddings = sorted(self.embeddings, key=lambda e: (e.name, e.cell_line or ""))
        if not self.embeddings:
            raise InputError(f"{self.name}: there is no embedding to fuse")
        self.digest = digest([(e.name, e.cell_line, e.digest) for e in self.embeddings])

    @property
    def spec(self) -> dict:
        """Everything the predictions depend on besides the embeddings."""
        return {"class": type(self).__name__, "n_components": self.n_components,
                "inner_folds": self.inner_folds, "inner_seed": self.inner_seed, **self.options()}  # fmt: skip

    def options(self) -> dict:
        """Options of the method, as plain values."""
        return {}

    def fit_predict(self, train: AnnData, test: AnnData, *, fold: int) -> Prediction:
        """Tune on inner folds of `train`, learn from all of it, predict the rows of `test`."""
        task = train.uns["perturbcore"]["task"]
        if task not in self.tasks:
            raise ParameterError(
                f"{self.name} predicts {', '.join(self.tasks)}, not '{task}'; leave it out"
            )
        laid = lay_out_fold(
            train, test, self.embeddings, n_components=self.n_components, inner_folds=self.inner_folds,
            inner_seed=self.inner_seed, genes=self.genes and task in PAIR_TARGETS,
        )  # fmt: skip
        prediction = self.predict(laid)
        if laid.pairs:
            prediction.values = laid.widened(np.asarray(prediction.values), train.n_vars)
        prediction.coverage = laid.coverage
        return prediction

    def with_only(self, sources: Sequence[str], name: str | None = None) -> "Competitor":
        """Return the same competitor with some of its sources.

        Raises
        ------
        ParameterError
            It has no such source.
        """
        unknown = sorted(set(sources) - set(self.sources))
        if unknown:
            raise ParameterError(
                f"{self.name} has no source '{unknown[0]}'; it has: {', '.join(self.sources)}"
            )
        return replace(
            self,
            embeddings=[e for e in self.embeddings if e.name in sources],
            name=name or self.name,
        )

    @property
    def sources(self) -> list[str]:
        """Names of the sources."""
        return sorted({e.name for e in self.embeddings})

    def predict(self, fold: LineFold) -> Prediction:
        """Predict the test rows of a laid-out fold."""
        raise NotImplementedError


def called(fold: LineFold, values, label, score, chosen, note=None) -> Prediction:
    """Make the prediction of labelled pairs, with the threshold of best F1 on inner labels and scores."""
    cut = {fold.line: best_threshold(np.asarray(label), np.asarray(score, dtype=np.float64))}
    return Prediction(values, cut, str(chosen), note=note or {})


def noted_weights(fold: LineFold, weights) -> dict:
    """Note of what a fusion gave each source."""
    return {
        "weights": {s.name: round(float(w), 4) for s, w in zip(fold.sources, weights, strict=True)}
    }
