"""What a predictor is, and how an ordinary scikit-learn regressor becomes one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.space import NestedSpace


class Targets:
    """Training responses of one fold.

    Parameters
    ----------
    Y : (N, g) float array
        Log fold-changes; the rows of a whole cell line where `rows` is given.
    gram : (N, N) float64 array, optional
        ``Y @ Y.T``; computed from the training rows where absent.
    rows : (n,) int array, optional
        Which rows are the training ones (those with the embedding); all by default.
    """

    def __init__(
        self, Y: np.ndarray, gram: np.ndarray | None = None, rows: np.ndarray | None = None
    ):
        self.source = np.ascontiguousarray(Y)
        self.rows = np.arange(len(Y)) if rows is None else np.asarray(rows)
        if gram is None:
            gram = self.source.astype(np.float64)
            gram = gram @ gram.T
        self.gram = gram

    @cached_property
    def Y(self) -> np.ndarray:
        """The (n, g) training responses, copied only for predictors that need them whole."""
        return self.source[self.rows]


class Predictor(Protocol):
    """A model of log fold-changes that tunes itself inside the fold.

    A predictor has a `name`, a JSON-able `spec` (its identity in the score store) and `predict`.
    """

    name: str

    @property
    def spec(self) -> Mapping[str, Any]:
        """Everything the predictions depend on, for the unit's key."""

    def predict(self, space: NestedSpace, targets: Targets) -> tuple[np.ndarray, Any]:
        """Return (m, g) predictions of the test rows, and the tuned parameter."""


def mean_l2(error: np.ndarray) -> float:
    """Mean over rows of the Euclidean norm: the loss that inner folds minimise."""
    return float(np.sqrt(np.einsum("ij,ij->i", error, error, dtype=np.float64)).mean())


def best_of(losses: np.ndarray, grid: Sequence) -> Any:
    """Return the grid value of least mean loss over inner folds (first one on ties).

    Parameters
    ----------
    losses : (n_inner, n_grid) array
    grid : sequence of length n_grid
    """
    return grid[int(np.argmin(losses.mean(axis=0)))]


@dataclass
class SklearnPredictor:
    """Any scikit-learn regressor with a grid, tuned by mean L2 over the shared inner folds.

    Parameters
    ----------
    estimator : sklearn regressor
        Must accept 2-D targets; cloned for every fit.
    grid : dict of lists
        Parameters to tune; empty for none.
    name : str
        Name in the scores table; the class name by default.
    """

    estimator: Any
    grid: Mapping[str, Sequence] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self):
        if not (hasattr(self.estimator, "fit") and hasattr(self.estimator, "predict")):
            raise ParameterError(
                f"{self.estimator!r} has no fit and predict: give a scikit-learn regressor"
            )
        unknown = set(self.grid) - set(self.estimator.get_params())
        if unknown:
            raise ParameterError(
                f"{type(self.estimator).__name__} has no parameter '{sorted(unknown)[0]}'; "
                f"it has: {', '.join(sorted(self.estimator.get_params()))}"
            )
        self.name = self.name or type(self.estimator).__name__.lower()

    @property
    def spec(self) -> dict:
        """Class, parameters and grid."""
        kind = type(self.estimator)
        return {
            "class": f"{kind.__module__}.{kind.__name__}",
            "parameters": {k: repr(v) for k, v in self.estimator.get_params().items()},
            "grid": {k: list(v) for k, v in self.grid.items()},
        }

    def predict(self, space: NestedSpace, targets: Targets):
        """Tune on the inner folds, refit on all training rows, predict the test rows."""
        candidates = list(ParameterGrid(dict(self.grid)))
        chosen = candidates[0]
        if len(candidates) > 1:
            losses = np.empty((len(space.splits), len(candidates)))
            for i, ((a, b), inner) in enumerate(zip(space.splits, space.inner, strict=True)):
                for j, candidate in enumerate(candidates):
                    model = clone(self.estimator).set_params(**candidate)
                    model.fit(inner.train, targets.Y[a])
                    losses[i, j] = mean_l2(targets.Y[b] - model.predict(inner.test))
            chosen = best_of(losses, candidates)
        model = clone(self.estimator).set_params(**chosen)
        outer = space.outer
        prediction = model.fit(outer.train, targets.Y).predict(outer.test)
        return np.asarray(prediction, dtype=targets.Y.dtype).reshape(len(outer.test), -1), chosen
