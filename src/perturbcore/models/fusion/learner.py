"""What the fusion network is trained on: log fold-changes, complete labels, partial labels."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from perturbcore.core.training import Learner, constant_after_warmup
from perturbcore.models.fusion.neighbours import Neighbours, pick
from perturbcore.models.fusion.network import FusionNetwork, Settings
from perturbcore.models.fusion.sources import Tables
from perturbcore.score.labels import Labels


class FusionLearner(Learner):
    """Network, tables and one task; a batch is a tensor of row numbers.

    `steps` are the batches per epoch, for the warm-up.
    """

    def __init__(
        self, network: FusionNetwork, sources: Tables, line, settings: Settings, steps: int
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

    def vector(self, rows: torch.Tensor) -> torch.Tensor:
        """Vectors of responses, (B, width)."""
        return self.network(self.tables, self.at[rows], self.line[rows])

    def task_loss(self, vector: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Loss of the predictions from the responses' vectors."""
        raise NotImplementedError

    def scores(self, vector: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Predictions from the responses' vectors, (B, n_out)."""
        return self.network.head(vector)

    def loss(self, batch):
        """Task, reconstruction of the sources, reconstruction of the cell lines."""
        s, line = self.settings, self.line[batch]
        vector, rebuilt, _ = self.network.encode(self.tables, self.at[batch], line, parts=True)
        parts = {"task": self.task_loss(vector, batch)}
        parts["loss"] = parts["task"]
        if rebuilt is not None:
            parts["reconstruction"] = rebuilt
            parts["loss"] = parts["loss"] + s.w_reconstruction * rebuilt
        if s.w_autoencoder:
            parts["autoencoder"] = self.network.line.loss(line)
            parts["loss"] = parts["loss"] + s.w_autoencoder * parts["autoencoder"]
        return parts

    def validation_loss(self, batch):
        """Only the task counts."""
        return self.task_loss(self.vector(batch), batch)

    # parameters with the learning rate `lr_neighbours`, without weight decay
    fast: Sequence[nn.Parameter] = ()

    def optimizer(self):
        """Adam, with decoupled weight decay of matrices only."""
        s, fast = self.settings, list(self.fast)
        rest = [p for p in self.parameters() if not any(p is one for one in fast)]
        groups = [{"params": fast, "lr": s.lr_neighbours}] if fast else []
        groups += [
            {"params": [p for p in rest if p.ndim < 2]},
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": s.weight_decay},
        ]
        return torch.optim.AdamW(groups, lr=s.lr, weight_decay=0.0, fused=True)

    def schedule(self, optimizer):
        """Linear warm-up, then constant."""
        return constant_after_warmup(optimizer, round(self.settings.warmup * self.steps))

    @torch.no_grad()
    def _in_parts(self, rows, function, batch: int = 512) -> np.ndarray:
        self.eval()
        parts = torch.as_tensor(np.asarray(rows)).split(batch)
        return torch.cat([function(part).float().cpu() for part in parts]).numpy()

    def predict(self, rows) -> np.ndarray:
        """Predict rows, in evaluation mode."""
        return self._in_parts(rows, lambda part: self.scores(self.vector(part), part))

    def attention(self, rows) -> np.ndarray:
        """How much each row draws on each source, (m, S)."""
        rollout = self.network.attention_rollout
        return self._in_parts(rows, lambda p: rollout(self.tables, self.at[p], self.line[p]), 256)


class LFCLearner(FusionLearner):
    """Log fold-changes: mean over the batch of the L2 norm of the error, not squared."""

    def __init__(self, *args, Y: np.ndarray):
        super().__init__(*args)
        self._keep("Y", Y)

    def task_loss(self, vector, rows):
        """Return the mean Euclidean distance."""
        error = self.scores(vector, rows) - self.Y[rows]
        # the gradient of a norm is not finite at zero
        return (error.square().sum(dim=1) + 1e-12).sqrt().mean()


class DEGLearner(FusionLearner):
    """Complete labels: class-balanced softmax of each gene, weights from the training rows.

    Within a batch a gene's loss is divided by the weights there, as published.
    """

    def __init__(self, *args, label: np.ndarray, train: np.ndarray):
        super().__init__(*args)
        self._keep("code", (label + 1).astype(np.uint8))
        codes = label[train] + 1
        n = np.stack([(codes == c).sum(axis=0) for c in range(3)])
        weight = np.where(n > 0, len(codes) / (3 * np.maximum(n, 1)), 0)
        self._keep("weight", weight.astype(np.float32))

    def task_loss(self, vector, rows):
        """Return the mean over genes of the weighted cross-entropy."""
        logit = self.scores(vector, rows).unflatten(1, (-1, 3))
        code = self.code[rows].long()
        weight = self.weight.T.expand(len(rows), -1, -1).gather(2, code[:, :, None])[:, :, 0]
        each = logit.logsumexp(dim=2) - logit.gather(2, code[:, :, None])[:, :, 0]
        total = weight.sum(dim=0)
        return ((weight * each).sum(dim=0) / total.clamp(min=1e-12)).mean()


class PairLearner(FusionLearner):
    """Partial labels: binary cross-entropy of the known ones; scores start at `Neighbours`."""

    def __init__(self, *args, known: Labels, neighbours: Neighbours):
        super().__init__(*args)
        self._keep("indptr", known.indptr)
        self._keep("gene", known.genes)
        self._keep("label", known.label.astype(np.float32))
        self.neighbours = neighbours

    @property
    def fast(self):
        """The neighbours' scalars."""
        named = self.neighbours.named_parameters()
        return [p for name, p in named if not name.startswith("gate")]

    def alive(self, rows: torch.Tensor) -> torch.Tensor:
        """Whether each source is there, (B, S)."""
        ends = [len(t) - 1 for t in self.tables]
        return self.at[rows] < torch.tensor(ends, device=self.at.device)

    def scores(self, vector, rows):
        """Logits of all genes."""
        near = self.neighbours.all(vector, rows, self.line[rows], self.alive(rows))
        return self.network.head(vector) + near

    def task_loss(self, vector, rows):
        """Return the mean over known pairs."""
        start, n = self.indptr[rows], self.indptr[rows + 1] - self.indptr[rows]
        row = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), n)
        entry = torch.arange(len(row), device=rows.device) + (start - (n.cumsum(0) - n))[row]
        gene, label = self.gene[entry], self.label[entry]
        # all genes in one product are faster than only those that are known
        logit = pick(self.network.head(vector), row, gene)
        where = (vector, rows, self.line[rows], self.alive(rows), row, gene)
        logit = logit + self.neighbours(*where, label if self.training else None)
        return F.binary_cross_entropy_with_logits(logit, label)

    def attention(self, rows):
        """Weight of each source's kernel."""
        return self._in_parts(rows, lambda p: self.neighbours.source_weights(self.vector(p)), 256)
