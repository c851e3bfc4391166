"""Training pairs: a control cell, a perturbed cell, and the vector of its perturbation."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from perturbcore.models.decoders.options import DecoderOptions

# a looser plan moves partners between near equals; a tighter one doubles the cost of a step
MAX_ITERATIONS, TOLERANCE = 50, 1e-3


class Pairs:
    """Draws mini-batches of pairs from cells that lie once in memory.

    A pair is a uniformly drawn perturbation, a random cell of it and a random control cell, so
    that every perturbation weighs the same however many cells it has. Where couplings are
    within perturbations, `group` cells of each drawn perturbation stand together and choose
    their partners.

    `source, target` (n_control, n_latent); `perturbation` (n_perturbed,): row of `vectors`,
    (n_vectors, d), of each perturbed cell; no other row is ever drawn; `source_batch,
    target_batch`: batches of the screen, for ``partners="same_batch"``; a cell of a batch
    without controls gets any control.
    """

    def __init__(
        self, source, target, perturbation, vectors, options: DecoderOptions, source_batch=None,
        target_batch=None,
    ):  # fmt: skip
        self.options = options
        order = np.argsort(perturbation, kind="stable")
        self.source, self.target = torch.from_numpy(source), torch.from_numpy(target[order])
        self.vectors = torch.from_numpy(vectors)
        self.drawn, self.start, self.count = np.unique(
            perturbation[order], return_index=True, return_counts=True
        )
        self.batches = None
        if options.partners == "same_batch":
            self.batches = _Batches(source_batch, target_batch[order], perturbation[order])

    def __len__(self) -> int:
        """Count the cells, controls included: the length of an epoch as published."""
        return len(self.source) + len(self.target)

    def make(self, index, rng) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw ``len(index)`` pairs: source, target (n, n_latent) and vectors (n, d)."""
        n, o = len(index), self.options
        grouped = o.coupling != "independent" and o.scope == "perturbation"
        group = o.group if grouped else 1
        chosen = np.repeat(rng.integers(len(self.drawn), size=-(-n // group)), group)
        rows = self.start[chosen] + (rng.random(len(chosen)) * self.count[chosen]).astype(np.int64)
        if self.batches is not None and grouped:
            # a group stands in one batch of the screen: that of its first cell
            rows = self.batches.mates(np.repeat(rows[::group], group), rng)
        target, source = self.target[rows], self.source[self._controls(rows, rng)]
        if o.coupling != "independent":
            shape = (-1, group if grouped else len(rows), target.shape[1])
            source = source.view(shape)
            partner = couple(source, target.view(shape), o.coupling, sigma=o.sigma, rng=rng)
            source = source.gather(1, partner[..., None].expand(-1, -1, shape[2])).flatten(0, 1)
        return source[:n], target[:n], self.vectors[self.drawn[chosen[:n]]]

    def _controls(self, rows, rng):
        if self.batches is not None:
            return self.batches.controls(rows, rng)
        return (rng.random(len(rows)) * len(self.source)).astype(np.int64)


class _Batches:
    """Control cells of each perturbed cell's batch, and other cells of its perturbation in it."""

    def __init__(self, source_batch, target_batch, perturbation):
        self.order = np.argsort(source_batch, kind="stable")
        there = source_batch[self.order]
        self.start = np.searchsorted(there, target_batch, side="left")
        self.count = np.searchsorted(there, target_batch, side="right") - self.start
        stratum = np.unique(
            np.stack([perturbation, target_batch], axis=1), axis=0, return_inverse=True
        )[1].ravel()
        self.by_stratum = np.argsort(stratum, kind="stable")
        _, first, size = np.unique(stratum[self.by_stratum], return_index=True, return_counts=True)
        self.first, self.size = first[stratum], size[stratum]

    def mates(self, rows, rng):
        return self.by_stratum[
            self.first[rows] + (rng.random(len(rows)) * self.size[rows]).astype(np.int64)
        ]

    def controls(self, rows, rng):
        # a batch without controls borrows from all
        start = np.where(self.count[rows] > 0, self.start[rows], 0)
        count = np.where(self.count[rows] > 0, self.count[rows], len(self.order))
        return self.order[start + (rng.random(len(rows)) * count).astype(np.int64)]


def couple(
    source: torch.Tensor, target: torch.Tensor, coupling: str, *, sigma: float = 1.0, rng=None
) -> torch.Tensor:
    r"""Choose a source cell for every target cell, group by group.

    Every target cell is kept once; what changes is its partner. ``"optimal"``: the partners that
    minimise the sum of squared distances (exact optimal transport between two equally large
    samples, which is a permutation). ``"entropic"``: a partner drawn by `rng` from the plan of
    entropic transport with regularisation :math:`2\sigma^2`, the static Schrödinger bridge between
    the two samples for a Brownian motion of diffusion coefficient `sigma`, in units of the
    coordinates.

    Parameters
    ----------
    source, target : Tensor, shape (n_groups, n, n_latent)

    Returns
    -------
    Tensor of int64, shape (n_groups, n)
        Row of `source` for each row of `target`.

    References
    ----------
    Tong et al. 2024 (simulation-free Schrödinger bridges), Section 3; Pooladian et al. 2023.
    """
    groups, n = target.shape[:2]
    if n == 1:
        return torch.arange(n).expand(groups, n)
    cost = torch.cdist(target.double(), source.double()) ** 2
    if coupling == "optimal":
        # equally many cells of equal weight on both sides: transport is an assignment
        return torch.from_numpy(np.stack([linear_sum_assignment(c)[1] for c in cost.numpy()]))
    from ot import solve_batch

    plan = solve_batch(
        cost, reg=float(2 * sigma**2), method="log_sinkhorn", max_iter=MAX_ITERATIONS,
        tol=TOLERANCE, grad="detach",
    ).plan  # fmt: skip
    cumulative = plan.cumsum(dim=2)
    draw = torch.from_numpy(rng.random(cost.shape[:2]))[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, draw, right=True)[..., 0].clamp(max=n - 1)
