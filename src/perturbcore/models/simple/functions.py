"""Logistic regression of each function from an embedding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from perturbcore.models.simple.base import Predictor, checked_grid
from perturbcore.models.simple.label_logistic import fit_genes
from perturbcore.score import functions  # noqa: F401  registers the task
from perturbcore.score.labels import Labels
from perturbcore.score.task import task_of


@dataclass
class FunctionLogistic(Predictor):
    """Logistic regression of each function by itself (Hasanaj et al. 2025, Section 3, Appendix B).

    `grid`: candidate C, 1 as published; `balanced`: both classes weigh alike, as their text has it,
    or each perturbation, as their appendix has it. A function with one class in training gets 0.5.
    """

    grid: Sequence[float] = (1.0,)
    balanced: bool = True
    max_iter: int = 500
    name: str = "logistic"
    task = task_of("functions")

    def __post_init__(self):
        self.grid = checked_grid(self.grid, float, 0, "C must be above 0")
        if not self.balanced and self.name == "logistic":
            self.name = "logistic_unweighted"

    def predictions(self, space, Y, grid):
        """Fit all functions for each C."""
        n, width = Y.shape
        there = (Y.min(axis=0) == 0) & (Y.max(axis=0) == 1)
        for C in grid:
            out = np.full((len(space.test), width), 0.5, dtype=np.float32)
            if self.balanced:
                known = Labels.from_dense(Y[:, there] > 0, np.ones((n, there.sum()), dtype=bool))
                # the objective there is this one divided by C n and by the number of functions
                W = fit_genes(space.train, known, [C * n * known.n_genes])[0]
                score = np.c_[space.test, np.ones(len(space.test))] @ W
                out[:, there] = 1 / (1 + np.exp(-np.clip(score, -500, 500)))
            else:
                model = MultiOutputClassifier(LogisticRegression(C=C, max_iter=self.max_iter))
                said = model.fit(space.train, Y[:, there]).predict_proba(space.test)
                out[:, there] = np.stack([p[:, 1] for p in said], axis=1)
            yield out
