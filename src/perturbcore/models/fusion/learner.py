"""What the fusion network is trained on: log fold-changes, complete labels, partial labels."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from perturbcore.core.training.learner import Learner, constant_after_warmup
from perturbcore.models.fusion.neighbours import Neighbours, pick
from perturbcore.models.fusion.network import FusionNetwork, zero
from perturbcore.models.fusion.presets import Settings
from perturbcore.models.fusion.sources import Sources
from perturbcore.models.simple.labels import Labels


class FusionLearner(Learner):
    """Network, tables and one task; a batch is a tensor of row numbers.

    Parameters
    ----------
    network : FusionNetwork
    sources : Sources
        Of all n rows, test rows included.
    line : (n,) int array
        Number of each row's cell line.
    settings : Settings
    steps : int
        Batches an epoch, for the warm-up.
    """

    def __init__(
        self, network: FusionNetwork, sources: Sources, line, settings: Settings, steps: int
    ):
        super().__init__()
        self.network, self.settings, self.steps = network, settings, steps
        self.n_tables = len(sources.tables)
        for j, table in enumerate(sources.tables):
            self._keep(f"table{j}", table)
        self._keep("at", sources.at)
        self._keep("line", np.asarray(line, dtype=np.int64))

    def _keep(self, name, array):
        # moved with the model, but no part of its weights
        self.register_buffer(name, torch.as_tensor(array), persistent=False)

    @property
    def tables(self) -> list[torch.Tensor]:
        """Tables of the sources."""
        return [getattr(self, f"table{j}") for j in range(self.n_tables)]

    def alive(self, at: torch.Tensor) -> torch.Tensor:
        """Whether each source is there, (B, S) for table rows (B, S)."""
        return at < torch.tensor([len(t) - 1 for t in self.tables], device=at.device)

    def task_loss(self, vector: torch.Tensor, rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Loss of the predictions from the responses' vectors."""
        raise NotImplementedError

    def scores(self, vector: torch.Tensor, rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Predictions from the responses' vectors, (B, n_out)."""
        return self.network.head.all(vector)

    def loss(self, batch):
        """Task, reconstruction of the sources, reconstruction of the cell lines."""
        s = self.settings
        vector, rebuilt, _ = self.network.encode(
            self.tables, self.at[batch], self.line[batch], parts=True
        )
        parts = {"task": self.task_loss(vector, batch, self.at[batch])}
        parts["loss"] = parts["task"]
        if rebuilt is not None:
            parts["reconstruction"] = rebuilt
            parts["loss"] = parts["loss"] + s.w_reconstruction * rebuilt
        if s.w_autoencoder:
            parts["autoencoder"] = self.network.line.loss(self.line[batch])
            parts["loss"] = parts["loss"] + s.w_autoencoder * parts["autoencoder"]
        return parts

    def validation_loss(self, batch):
        """Only the task counts."""
        vector = self.network(self.tables, self.at[batch], self.line[batch])
        return self.task_loss(vector, batch, self.at[batch])

    def optimizer(self):
        """Adam, with decoupled weight decay of matrices only."""
        s = self.settings
        groups = _decayed(list(self.parameters()), s.weight_decay)
        return torch.optim.AdamW(groups, lr=s.lr, weight_decay=0.0, fused=True)

    def schedule(self, optimizer):
        """Linear warm-up, then constant."""
        return constant_after_warmup(optimizer, round(self.settings.warmup * self.steps))

    @torch.no_grad()
    def predict(self, rows, at: torch.Tensor | None = None, batch: int = 512) -> torch.Tensor:
        """Predict rows, in evaluation mode; `at` (n, S) hides sources, see `Sources.without`."""
        self.eval()
        at = self.at if at is None else torch.as_tensor(at, device=self.at.device)
        out = []
        for part in torch.as_tensor(rows).split(batch):
            vector = self.network(self.tables, at[part], self.line[part])
            out.append(self.scores(vector, part, at[part]).float().cpu())
        return torch.cat(out)


class LFCLearner(FusionLearner):
    """Log fold-changes: mean over the batch of the L2 norm of the error, not squared."""

    def __init__(self, *args, Y: np.ndarray):
        super().__init__(*args)
        self._keep("Y", Y)

    def task_loss(self, vector, rows, at):
        """Return the mean Euclidean distance."""
        error = self.scores(vector, rows, at) - self.Y[rows]
        # the gradient of a norm is not finite at zero
        return (error.square().sum(dim=1) + 1e-12).sqrt().mean()


class DEGLearner(FusionLearner):
    """Complete labels: class-balanced softmax of each gene, see `perturbcore.models.simple.softmax.Softmax`.

    Weights are those of the training rows over all lines; within a batch a gene's loss is divided
    by the weights there, as published.
    """

    def __init__(self, *args, label: np.ndarray, train: np.ndarray):
        super().__init__(*args)
        self._keep("code", (label + 1).astype(np.uint8))
        codes = label[train] + 1
        n = np.stack([(codes == c).sum(axis=0) for c in range(3)])
        weight = np.where(n > 0, len(codes) / (3 * np.maximum(n, 1)), 0)
        self._keep("weight", weight.astype(np.float32))

    def task_loss(self, vector, rows, at):
        """Return the mean over genes of the weighted cross-entropy."""
        logit = self.scores(vector, rows, at).unflatten(1, (-1, 3))
        code = self.code[rows].long()
        weight = self.weight.T.expand(len(rows), -1, -1).gather(2, code[:, :, None])[:, :, 0]
        each = logit.logsumexp(dim=2) - logit.gather(2, code[:, :, None])[:, :, 0]
        total = weight.sum(dim=0)
        return ((weight * each).sum(dim=0) / total.clamp(min=1e-12)).mean()


class PairLearner(FusionLearner):
    """Partial labels: binary cross-entropy of the known ones.

    Scores start at the Train Mean: each gene's rate in each cell line as a logit, nothing added. With
    `Neighbours` they start at a kernel smoother instead.
    """

    def __init__(
        self, *args, known: Labels, base: np.ndarray, neighbours: Neighbours | None = None
    ):
        super().__init__(*args)
        self._keep("indptr", known.indptr)
        self._keep("gene", known.genes)
        self._keep("label", known.label.astype(np.float32))
        self.neighbours = neighbours
        if neighbours is None:
            self.base = nn.Parameter(torch.as_tensor(base, dtype=torch.float32))
        if self.settings.head != "factor":
            zero(self.network.head[-1])

    def scores(self, vector, rows, at):
        """Logits of all genes."""
        own = self.network.head.all(vector)
        if self.neighbours is None:
            return own + self.base[self.line[rows]]
        return own + self.neighbours.all(vector, rows, self.line[rows], self.alive(at))

    def task_loss(self, vector, rows, at):
        """Return the mean over known pairs."""
        start, n = self.indptr[rows], self.indptr[rows + 1] - self.indptr[rows]
        row = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), n)
        entry = torch.arange(len(row), device=rows.device) + (start - (n.cumsum(0) - n))[row]
        gene, label, line = self.gene[entry], self.label[entry], self.line[rows]
        # all genes in one product are faster than only those that are known
        logit = pick(self.network.head.all(vector), row, gene)
        if self.neighbours is None:
            logit = logit + pick(self.base, line[row], gene)
        else:
            own = label if self.training else None
            alive = self.alive(at)
            logit = logit + self.neighbours(vector, rows, line, alive, row, gene, own)
        return F.binary_cross_entropy_with_logits(logit, label)

    def optimizer(self):
        """As elsewhere, with a learning rate of its own for the neighbours' scalars."""
        if self.neighbours is None:
            return super().optimizer()
        s = self.settings
        fast = [p for n, p in self.neighbours.named_parameters() if not n.startswith("gate")]
        named = {id(p) for p in fast}
        slow = [p for p in self.parameters() if id(p) not in named]
        groups = [{"params": fast, "lr": s.lr_neighbours}, *_decayed(slow, s.weight_decay)]
        return torch.optim.AdamW(groups, lr=s.lr, weight_decay=0.0, fused=True)


def _decayed(parameters, decay):
    full = [p for p in parameters if p.ndim >= 2]
    return [
        {"params": [p for p in parameters if p.ndim < 2]},
        {"params": full, "weight_decay": decay},
    ]
