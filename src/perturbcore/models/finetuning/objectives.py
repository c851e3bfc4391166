"""From an encoder to a response: indexing, in-silico knock-out, and a head on frozen vectors."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from perturbcore.core.training.learner import Learner
from perturbcore.embeddings.cell_models.cells import mean_over_cells, spread_rows


def unsquared_l2(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean over perturbations of the Euclidean norm of the error (Cole et al. 2026, Eq. 14, 16)."""
    return (prediction - truth).square().sum(-1).clamp_min(1e-12).sqrt().mean()


def head(n_in: int, hidden: Sequence[int], n_out: int, seed: int = 0) -> nn.Sequential:
    """Multilayer perceptron whose last layer begins at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = []
        for width in hidden:
            layers += [nn.Linear(n_in, width), nn.GELU()]
            n_in = width
        last = nn.Linear(n_in, n_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class Scaler(nn.Module):
    """Standardise embeddings by their mean and spread over genes, before any fine-tuning."""

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.register_buffer("centre", vectors.mean(0))
        self.register_buffer("scale", vectors.std(0).clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return (x - self.centre) / self.scale


class Objective(Learner):
    """Predict responses of a line, (b, g), from positions (b,), beginning at their `mean` (g,)."""

    def __init__(self, mean: np.ndarray, lr: float):
        super().__init__()
        self.mean, self.lr = nn.Parameter(torch.tensor(np.asarray(mean, dtype=np.float32))), lr

    def loss(self, batch) -> dict:
        """Un-squared L2 error."""
        return {"loss": unsquared_l2(self(batch["target"]), batch["response"])}


class FrozenHead(Objective):
    """Head on the vectors (n_genes, d) of a frozen encoder, standardised over genes."""

    def __init__(self, vectors: np.ndarray, mean, *, hidden=(1024, 2048), lr=1e-3, seed=0):
        super().__init__(mean, lr)
        table = torch.tensor(np.asarray(vectors, dtype=np.float32))
        self.register_buffer("table", Scaler(table)(table))
        self.head = head(table.shape[1], hidden, len(self.mean), seed)

    def forward(self, target):
        """See `Objective`."""
        return self.mean + self.head(self.table[target])


class IndexingHead(Objective):
    """Mean over control cells of the encoder's embedding of the target gene, then a head.

    Training averages `n_cells` of the control cells `values`, drawn anew in each step; validation
    and prediction `n_eval` of them, the same ones each time (Cole et al. 2026, Eq. 13-14).
    """

    def __init__(
        self, encoder, values, line, mean, *, n_cells=16, n_eval=128, hidden=(1024, 2048), lr=1e-3,
        seed=0,
    ):  # fmt: skip
        super().__init__(mean, lr)
        self.encoder, self.line, self.n_cells = encoder, line, n_cells
        values = torch.tensor(np.asarray(values, dtype=np.float32))
        self.register_buffer("cells", values, persistent=False)
        at = torch.from_numpy(spread_rows(len(values), n_eval))
        self.register_buffer("fixed", at, persistent=False)
        with torch.no_grad():
            self.scaler = Scaler(mean_over_cells(encoder(values[at[:32]], line)))
        self.head = head(encoder.dim, hidden, len(self.mean), seed)

    def forward(self, target):
        """See `Objective`."""
        rows = self.fixed
        if self.training:
            rows = torch.randperm(len(self.cells), device=self.cells.device)[: self.n_cells]
        embedded = mean_over_cells(self.encoder(self.cells[rows], self.line, target))
        return self.mean + self.head(self.scaler(embedded))


class KnockOutHead(Objective):
    """The average control profile without the target gene, embedded; one head reads every gene.

    `output` (g,): position of each output gene among the encoder's, -1: predicted at its training
    mean; `asked`: output genes of a training step, twice as many in validation (Cole et al. 2026,
    Eq. 15-16).
    """

    def __init__(
        self, encoder, average, line, output, mean, *, asked=None, hidden=(64, 32), lr=1e-3,
        seed=0,
    ):  # fmt: skip
        super().__init__(mean, lr)
        self.encoder, self.line, self.asked = encoder, line, asked
        average = torch.tensor(np.asarray(average, dtype=np.float32))
        self.register_buffer("average", average, persistent=False)
        output = torch.from_numpy(np.asarray(output, dtype=np.int64))
        self.register_buffer("output", output, persistent=False)
        self.register_buffer("measured", torch.where(output >= 0)[0], persistent=False)
        with torch.no_grad():
            self.scaler = Scaler(encoder(average[None], line)[0])
        self.head = head(encoder.dim, hidden, 1, seed)

    def knocked_out(self, target: Tensor) -> Tensor:
        """Profiles (b, n_genes), each with its target gene at zero."""
        values = self.average.repeat(len(target), 1)
        values[torch.arange(len(target), device=target.device), target] = 0.0
        return values

    def forward(self, target, genes=None):
        """Positions (b,) -> responses (b, g), or of the output genes `genes`."""
        read = self.measured if genes is None else genes
        embedded = self.encoder(self.knocked_out(target), self.line, self.output[read])
        change = self.head(self.scaler(embedded)).squeeze(-1)
        if genes is not None:
            return self.mean[genes] + change
        return self.mean.expand(len(target), -1).index_add(1, read, change)

    def loss(self, batch) -> dict:
        """Un-squared L2 error, over a draw of the measured output genes where `asked` is given."""
        truth, n = batch["response"], len(self.measured)
        if self.asked is None or self.asked >= n:
            return super().loss(batch)
        if self.training:
            genes = self.measured[torch.randperm(n, device=truth.device)[: self.asked]]
        else:
            genes = self.measured[torch.from_numpy(spread_rows(n, 2 * self.asked)).to(truth.device)]
        error = unsquared_l2(self(batch["target"], genes), truth[:, genes])
        return {"loss": error * (truth.shape[1] / len(genes)) ** 0.5}
