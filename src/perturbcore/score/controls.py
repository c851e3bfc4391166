"""Floors and ceilings that every table has."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from perturbcore.core.digest import digest
from perturbcore.models.simple import deg
from perturbcore.score.plan import Line

NEGATIVE, POSITIVE = "Negative control", "Positive control"
# the Train Mean of labels is the prior: its argmax, which F1 scores, is the most frequent class
LABEL_BASELINES = {
    "train_mean": deg.prior,
    "prior": deg.prior,
    "most_frequent": deg.most_frequent,
    "no_change": deg.no_change,
}


@dataclass(frozen=True)
class Baseline:
    """A prediction that uses no embedding: "train_mean", "no_change", of labels "most_frequent".

    References
    ----------
    Cole et al. 2026, 4.7.2.
    """

    name: str

    @property
    def spec(self) -> dict:
        """The name is all there is."""
        return {"class": self.name}

    def predict_lfc(self, Y_train: np.ndarray, n_test: int) -> np.ndarray:
        """Return (n_test, g): the mean training response, or zero."""
        one = Y_train.mean(axis=0, dtype=np.float64)
        if self.name == "no_change":
            one = np.zeros_like(one)
        return np.tile(one.astype(Y_train.dtype), (n_test, 1))

    def predict_deg(self, label: np.ndarray, n_test: int) -> np.ndarray:
        """Return (3, n_test, g) probabilities of -1, 0 and 1 from training labels (n, g)."""
        return LABEL_BASELINES[self.name](label, n_test)


@dataclass(frozen=True, eq=False)
class Idealized:
    """The responses themselves, training and test together, compressed by PCA: a ceiling.

    Its coordinates are used as they are, without scaler and PCA.

    References
    ----------
    Cole et al. 2026, 4.7.1; Eckart & Young 1936.
    """

    ids: pd.Index
    X: np.ndarray
    cell_line: str
    name: str = "idealized"
    modality: str = POSITIVE
    reduce: bool = False

    @classmethod
    def of(cls, line: Line, n_components: int, seed: int = 0) -> "Idealized":
        """Compress the responses of one cell line to `n_components` (cut where there are fewer)."""
        q = min(n_components, *line.Y.shape)
        Y = line.Y if line.observed is None else line.Y * line.observed
        X = PCA(q, random_state=seed).fit_transform(np.asarray(Y, dtype=np.float32))
        return cls(line.ids, X, line.name)

    @property
    def digest(self) -> str:
        """Content key."""
        return digest("idealized", self.X, self.ids)
