"""Predictors of differential-expression labels: probabilities of -1, 0 and 1 for every gene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from perturbcore.core.errors import ParameterError
from perturbcore.models.simple.base import Predictor, checked_grid, neighbour_grid
from perturbcore.models.simple.labels import C_GRID
from perturbcore.score.labels import class_shares
from perturbcore.score.task import task_of

if TYPE_CHECKING:
    import torch

# logits worked on at a time: small enough for a CPU's cache, large enough to keep a GPU busy
_CPU_BLOCK, _GPU_BLOCK = 1_000_000, 100_000_000
HISTORY = 100  # steps that L-BFGS remembers, each two copies of the weights


@dataclass
class Softmax:
    r"""Linear classifiers of many genes, class-balanced, fitted by full-batch L-BFGS.

    Minimised is :math:`\frac{1}{G} \sum_g \sum_i w_{g, y_{ig}} \, \mathrm{CE}_{ig} / \sum_i w_{g,
    y_{ig}} + \lVert W \rVert_F^2 / C` with :math:`w_{gc} = n_g / (K n_{gc})`, 0 for absent classes,
    and no penalty on the intercepts (Cole et al. 2026, Supplemental Methods, multi-output logistic
    regression). The published 100 iterations stop before convergence where C is large, so that the
    start, drawn by `seed` as torch draws a linear layer, is felt.
    """

    n_classes: int = 3
    max_iter: int = 100
    tolerance: float = 1e-7
    seed: int = 0

    def __post_init__(self):
        if self.max_iter < 1 or self.n_classes < 2:
            raise ParameterError("max_iter must be at least 1, n_classes at least 2")

    def fit(self, X: np.ndarray, codes: np.ndarray, C: float) -> torch.Tensor:
        """Fit weights and, last, intercepts, (K, d + 1, g), as precise as X; code -1: not known."""
        import torch

        place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        X = self._with_ones(X, place)
        # classes weigh alike, and the labels of a gene add up to 1: (K, n, g)
        code = torch.as_tensor(codes, device=place)
        member = torch.stack([code == c for c in range(self.n_classes)])
        n = member.sum(dim=1, keepdim=True)
        present = (n > 0).sum(dim=0, keepdim=True).clamp(min=1)
        weights = member.to(X) / (n.clamp(min=1) * present).to(X)
        del code, member
        d = X.shape[1]
        total = weights.sum(dim=0)
        n_genes = codes.shape[1]
        # drawn on the CPU, so that a GPU starts from the same place
        random = torch.Generator().manual_seed(self.seed)
        start = torch.rand((self.n_classes, d, n_genes), generator=random, dtype=torch.float32)
        width = 1.0 / np.sqrt(max(d - 1, 1))
        theta = ((2 * start - 1) * width).to(X).requires_grad_()
        theta.grad = torch.zeros_like(theta)
        block = _CPU_BLOCK if place.type == "cpu" else _GPU_BLOCK
        step = max(1, block // (self.n_classes * len(X)))

        @torch.no_grad()
        def loss():
            value = torch.zeros((), dtype=torch.float64, device=place)
            for start in range(0, n_genes, step):
                part = slice(start, start + step)
                # only differences to the first class count, and residuals of classes add up to 0
                logits = X @ (theta[1:, :, part] - theta[:1, :, part])
                known, size = weights[1:, :, part], total[:, part]
                value -= (known * logits).sum(dim=-1).sum(dtype=torch.float64)
                # one exponential serves the loss and its gradient
                top = logits.amax(dim=0).clamp_(min=0)
                share = logits.sub_(top).exp_()
                sums = share.sum(dim=0).add_((-top).exp_())
                residual = share.mul_(size / sums).sub_(known)
                value += sums.log_().add_(top).mul_(size).sum(dim=-1).sum(dtype=torch.float64)
                theta.grad[1:, :, part] = X.T @ residual
            theta.grad[0] = -theta.grad[1:].sum(dim=0)
            theta.grad /= n_genes
            W = theta[:, :-1]
            theta.grad[:, :-1] += W * (2.0 / C)
            return value / n_genes + (W * W).sum(dtype=torch.float64) / C

        torch.optim.LBFGS(
            [theta],
            lr=1,
            max_iter=self.max_iter,
            history_size=HISTORY,
            tolerance_grad=self.tolerance,
            tolerance_change=self.tolerance / 100,
            line_search_fn="strong_wolfe",
        ).step(loss)
        return theta.detach()

    def probabilities(self, theta: torch.Tensor, X: np.ndarray) -> np.ndarray:
        """Return (K, m, g) float32 probabilities of the rows of `X`."""
        X = self._with_ones(X, theta.device)
        return (X @ theta).softmax(dim=0).float().cpu().numpy()

    @staticmethod
    def _with_ones(X, place):
        import torch

        X = torch.as_tensor(np.ascontiguousarray(X)).to(place)
        return torch.cat([X, torch.ones((len(X), 1)).to(X)], dim=1)


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
        self.grid = checked_grid(self.grid, float, "C must be above 0")
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
    """Class frequencies among the k nearest perturbations, divided by a power of the gene's own.

    `grid`: candidate k; `balance`: candidate powers, 0 to 1; `prior`: how many labels of the gene
    itself count with those of its neighbours.
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
