"""Training pairs: a control cell, a perturbed cell, and the vector of its perturbation."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from perturbcore.models.decoders.options import GROUP


class Pairs:
    """Draws mini-batches of pairs from cells that lie once in memory.

    A pair is a uniformly drawn perturbation, a random cell of it and a random control cell of its
    batch (any, where that has none). With `coupling` "perturbation", cells of a drawn perturbation
    and batch stand together and choose their partners. `perturbation`: row of `vectors` of each
    perturbed cell; no other row is ever drawn.
    """

    def __init__(self, source, target, perturbation, vectors, source_batch, target_batch, coupling):
        self.source, self.target, self.vectors = map(torch.from_numpy, (source, target, vectors))
        self.coupling = coupling
        self.of_perturbation, self.controls = _Members(perturbation), _Members(source_batch)
        both = np.stack([perturbation, target_batch], axis=1)
        self.stratum = np.unique(both, axis=0, return_inverse=True)[1].ravel()
        self.of_stratum = _Members(self.stratum)
        at = np.searchsorted(self.controls.labels, target_batch)
        known = np.isin(target_batch, self.controls.labels)
        self.batch = np.where(known, at, -1)

    def __len__(self) -> int:
        """Count the cells, controls included: the length of an epoch as published."""
        return len(self.source) + len(self.target)

    def make(self, index, rng) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw ``len(index)`` pairs: source, target (n, n_latent) and vectors (n, d)."""
        n, grouped = len(index), self.coupling == "perturbation"
        group = GROUP if grouped else 1
        drawn = self.of_perturbation.labels
        chosen = np.repeat(rng.integers(len(drawn), size=-(-n // group)), group)
        rows = self.of_perturbation.draw(chosen, rng)
        if grouped:
            # a group stands in one batch of the screen: that of its first cell
            rows = self.of_stratum.draw(np.repeat(self.stratum[rows[::group]], group), rng)
        target = self.target[rows]
        source = self.source[self.controls.draw(self.batch[rows], rng)]
        if self.coupling != "independent":
            shape = (-1, group if grouped else len(rows), target.shape[1])
            partner = couple(source.view(shape), target.view(shape))
            partner = partner[..., None].expand(-1, -1, shape[2])
            source = source.view(shape).gather(1, partner).flatten(0, 1)
        return source[:n], target[:n], self.vectors[drawn[chosen[:n]]]


class _Members:
    """Rows by their label; the number -1 of a label stands for all rows."""

    def __init__(self, label):
        self.order = np.argsort(label, kind="stable")
        self.labels, start, count = np.unique(
            label[self.order], return_index=True, return_counts=True
        )
        self.start, self.count = np.append(start, 0), np.append(count, len(label))

    def draw(self, at, rng):
        """Draw a row for each number of a label."""
        return self.order[self.start[at] + (rng.random(len(at)) * self.count[at]).astype(np.int64)]


def couple(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Row of `source` for each row of `target`, both (n_groups, n, n_latent), group by group.

    Exact optimal transport for squared distances (Tong et al. 2024; Pooladian et al. 2023).
    """
    cost = torch.cdist(target.double(), source.double()) ** 2
    return torch.from_numpy(np.stack([linear_sum_assignment(c)[1] for c in cost.numpy()]))
