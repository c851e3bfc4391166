"""What a trained fusion is: its members and the rows they can predict; and the labels they learn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.models.fusion.sources import Sources
from perturbcore.models.simple.labels import Labels, pair_labels


@dataclass(eq=False)
class Fitted:
    """Trained members of one fold, and the rows they can predict.

    Attributes
    ----------
    learners : list of FusionLearner
    trainings : list of Trained
    sources : Sources
        Of training rows, then test rows.
    obs : pandas.DataFrame
        `perturbation`, `cell_line` of the same rows.
    n_train : int
    validation : (n_train,) bool array
    """

    learners: list
    trainings: list
    sources: Sources
    obs: pd.DataFrame
    n_train: int
    validation: np.ndarray

    def predict(self, rows, hidden: Sequence[str] = ()) -> np.ndarray:
        """Mean prediction of the members for some rows, with some sources hidden, (m, n_out)."""
        at = self.sources.without([h for h in hidden if h in self.sources.names]).at
        return np.mean([one.predict(np.asarray(rows), at).numpy() for one in self.learners], axis=0)


def known_labels(responses: AnnData) -> Labels:
    """Labels of a partial-label task in sparse form."""
    return Labels.from_dense(*pair_labels(responses))
