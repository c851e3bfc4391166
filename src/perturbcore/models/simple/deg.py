"""Predictors of differential-expression labels: probabilities of -1, 0 and 1 for every gene."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor, checked_grid, neighbour_grid
from perturbcore.models.simple.label_logistic import C_GRID
from perturbcore.models.simple.softmax import Softmax
from perturbcore.score.labels import class_shares
from perturbcore.score.task import task_of


@dataclass
class DEGLogistic(Predictor):
    """Class-balanced softmax of each gene (Cole et al. 2026, Supplemental Methods).

    `grid`: candidate C (Tahoe as published: 1e5 alone); `softmax`: options of `Softmax`.
    """

    grid: Sequence[float] = C_GRID
    softmax: dict = field(default_factory=dict)
    name: str = "logistic"
    task = task_of("deg")

    def __post_init__(self):
        self.grid = checked_grid(self.grid, float, 0, "C must be above 0")
        try:
            self.model = Softmax(**self.softmax)
        except TypeError as error:
            raise ParameterError(f"softmax: {error}") from error

    @property
    def spec(self) -> dict:
        """Grid and options."""
        options = {k: v for k, v in vars(self.model).items() if k != "n_classes"}
        return {"class": "deg_logistic", "grid": self.grid, **options}

    def predictions(self, space, label, grid):
        """Fit all genes for each C."""
        for C in grid:
            theta = self.model.fit(space.train, label + 1, C)
            yield self.model.probabilities(theta, space.test)

    def called(self, chosen):
        """C."""
        return f"{chosen:g}"


@dataclass
class DEGKNN(Predictor):
    """Class frequencies among the k nearest perturbations.

    They are pulled to the gene's own by `prior` labels and divided by a power (`balance`, 0 to 1)
    of these; 1 is what a class-balanced loss asks for.
    """

    grid: Sequence[int] = (5, 10, 20, 40, 80)
    balance: Sequence[float] = (0.0, 0.5, 1.0)
    prior: float = 3.0
    name: str = "knn"
    task = task_of("deg")

    def __post_init__(self):
        self.grid = neighbour_grid(self.grid, self.prior)
        self.balance = [float(b) for b in self.balance]
        if not self.balance or min(self.balance) < 0 or max(self.balance) > 1:
            raise ParameterError(f"balance must lie between 0 and 1: {self.balance}")

    def candidates(self) -> list:
        """List pairs of k and balance."""
        return list(product(self.grid, self.balance))

    def predictions(self, space, label, grid):
        """Count the labels of the neighbours once for all candidates."""
        usable = [min(k, len(space.train)) for k, _ in grid]
        ks = np.unique(np.asarray(usable, dtype=np.int64))
        label = np.ascontiguousarray(label, dtype=np.int8)
        shape = (len(ks), len(space.test), label.shape[1])
        down, up = (np.zeros(shape, dtype=np.int16) for _ in range(2))
        for p, near in enumerate(space.neighbours(int(ks[-1]))):
            for count, which in ((down, -1), (up, 1)):
                count[:, p] = np.cumsum(label[near] == which, axis=0, dtype=np.int16)[ks - 1]
        rate = class_shares(label)[:, None]
        for k, (_, balance) in zip(usable, grid, strict=True):
            at = int(np.searchsorted(ks, k))
            found = np.stack([down[at], k - down[at] - up[at], up[at]]).astype(np.float32)
            score = (found + self.prior * rate) / rate**balance
            yield score / score.sum(axis=0)

    def called(self, chosen):
        """K and balance."""
        return f"{chosen[0]}, balance {chosen[1]:g}"
