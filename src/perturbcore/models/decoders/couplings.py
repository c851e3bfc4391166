"""Which control cell is paired with which perturbed cell within a mini-batch."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from perturbcore.core.errors import ParameterError

# a looser plan moves partners between near equals; a tighter one doubles the cost of a training step
MAX_ITERATIONS, TOLERANCE = 50, 1e-3


def couple(
    source: torch.Tensor, target: torch.Tensor, coupling: str, *, sigma: float = 1.0, rng=None
) -> torch.Tensor:
    r"""Choose a source cell for every target cell, group by group.

    Every target cell is kept once; what changes is its partner.

    - ``"independent"``: partners as drawn.
    - ``"optimal"``: the partners that minimise the sum of squared distances (exact optimal transport
      between the two equally large samples, which is a permutation).
    - ``"entropic"``: partner drawn from the plan of entropic transport with regularisation
      :math:`2\sigma^2`, the static Schrödinger bridge between the two samples for a Brownian motion of
      diffusion coefficient :math:`\sigma`.

    Parameters
    ----------
    source, target : Tensor, shape (n_groups, n, n_latent)
    coupling : {"independent", "optimal", "entropic"}
    sigma : float
        In units of the coordinates.
    rng : numpy.random.Generator
        For ``"entropic"``.

    Returns
    -------
    Tensor of int64, shape (n_groups, n)
        Row of `source` for each row of `target`.

    References
    ----------
    Tong et al. 2024 (simulation-free Schrödinger bridges), Section 3; Pooladian et al. 2023.
    """
    groups, n = target.shape[:2]
    if coupling == "independent" or n == 1:
        return torch.arange(n).expand(groups, n)
    cost = torch.cdist(target.double(), source.double()) ** 2
    if coupling == "optimal":
        return _optimal(cost)
    if coupling == "entropic":
        return _entropic(cost, 2 * sigma**2, rng)
    raise ParameterError(f"coupling={coupling!r}: choose 'independent', 'optimal' or 'entropic'")


def _optimal(cost):
    # equally many cells of equal weight on both sides: transport is an assignment
    return torch.from_numpy(np.stack([linear_sum_assignment(c)[1] for c in cost.numpy()]))


def _entropic(cost, regularisation, rng):
    from ot import solve_batch

    plan = solve_batch(
        cost,
        reg=float(regularisation),
        method="log_sinkhorn",
        max_iter=MAX_ITERATIONS,
        tol=TOLERANCE,
        grad="detach",
    ).plan
    cumulative = plan.cumsum(dim=2)
    draw = torch.from_numpy(rng.random(cost.shape[:2]))[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, draw, right=True)[..., 0].clamp(max=cost.shape[2] - 1)
