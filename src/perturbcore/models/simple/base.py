"""What a predictor is: from reduced coordinates to responses, tuned inside the fold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.space import NestedSpace, Space
from perturbcore.score.model import spec_of
from perturbcore.score.task import Task, task_of


class Targets:
    """Training responses of a fold: `source` (N, g), its `gram`, the `rows` with the embedding."""

    def __init__(self, source, gram: np.ndarray | None = None, rows: np.ndarray | None = None):
        self.source = source
        self.rows = np.arange(len(source)) if rows is None else np.asarray(rows)
        self._gram = gram

    @cached_property
    def Y(self):
        """Truth of the rows with the embedding."""
        return self.source[self.rows]

    @cached_property
    def gram(self) -> np.ndarray:
        """Inner products of all rows of `source`."""
        if self._gram is None:
            Y = np.asarray(self.source, dtype=np.float64)
            return Y @ Y.T
        return self._gram


def best_of(losses: np.ndarray, grid: Sequence) -> Any:
    """Return the candidate of least mean loss (n_inner, n_grid), the first one on ties."""
    return grid[int(np.argmin(losses.mean(axis=0)))]


def checked_grid(grid: Sequence, kind: type, message: str) -> list:
    """Return the candidates as numbers; refuse an empty grid or one at or below 0."""
    grid = [kind(v) for v in grid]
    if not grid or min(grid) <= 0:
        raise ParameterError(f"{message}, not {grid}")
    return grid


def neighbour_grid(grid: Sequence, prior: float = 1.0) -> list[int]:
    """Return the candidate k, sorted; refuse those below 1, and a `prior` that is not above 0."""
    if prior <= 0:
        raise ParameterError(f"prior must be above 0, not {prior}")
    return sorted(set(checked_grid(grid, int, "k must be at least 1")))


class Predictor:
    """A dataclass that chooses a candidate of its grid by the task's loss on the inner folds."""

    name: str
    grid: Any
    task: ClassVar[Task] = task_of("lfc")

    @property
    def spec(self) -> dict[str, Any]:
        """Everything that predictions depend on besides data, as plain values."""
        return spec_of(self, "name")

    def candidates(self) -> list:
        """List what is tuned over."""
        return list(self.grid)

    def predictions(self, space: Space, truth, grid: Sequence) -> Iterator[np.ndarray]:
        """Yield predictions of the test rows of `space`, one per candidate."""
        raise NotImplementedError

    def called(self, chosen) -> Any:
        """Name the chosen candidate for the scores table."""
        return chosen

    def losses(self, space: NestedSpace, targets: Targets, grid: Sequence) -> np.ndarray:
        """Loss of each inner fold (rows) and candidate (columns)."""
        out = np.empty((len(space.splits), len(grid)))
        for i, ((a, b), inner) in enumerate(zip(space.splits, space.inner, strict=True)):
            truth = targets.Y[b]
            for j, values in enumerate(self.predictions(inner, targets.Y[a], grid)):
                out[i, j] = self.task.loss(truth, values)
        return out

    def tuned(self, space: NestedSpace, targets: Targets, grid: Sequence) -> Any:
        """Return the candidate of least loss; a single one is not tuned."""
        return best_of(self.losses(space, targets, grid), grid) if len(grid) > 1 else grid[0]

    def predict(self, space: NestedSpace, targets: Targets) -> tuple:
        """Tune and refit: values, name of the candidate, threshold of partial labels."""
        chosen = self.tuned(space, targets, self.candidates())
        values = next(iter(self.predictions(space.outer, targets.Y, [chosen])))
        return values, self.called(chosen)


@dataclass
class SklearnPredictor(Predictor):
    """Any scikit-learn regressor, cloned for every fit; `grid` is tuned on the inner folds."""

    estimator: Any
    grid: Mapping[str, Sequence] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self):
        if not (hasattr(self.estimator, "fit") and hasattr(self.estimator, "predict")):
            raise ParameterError(f"{self.estimator!r} is no regressor: it needs fit and predict")
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

    def candidates(self) -> list:
        """List the combinations of the grid."""
        return list(ParameterGrid(dict(self.grid)))

    def predictions(self, space, truth, grid):
        """Fit a clone for each combination."""
        for candidate in grid:
            model = clone(self.estimator).set_params(**candidate).fit(space.train, truth)
            values = np.asarray(model.predict(space.test), dtype=truth.dtype)
            yield values.reshape(len(space.test), -1)
