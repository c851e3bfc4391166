"""What the fusion network is trained on: log fold-changes, complete labels, partial labels."""

from collections.abc import Sequence

import numba
import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from perturbcore.core.training import Learner, constant_after_warmup
from perturbcore.embeddings.linalg import unit
from perturbcore.models.fusion.network import FusionNetwork, Settings
from perturbcore.models.fusion.sources import Tables
from perturbcore.models.simple.space import principal_axes, standardise
from perturbcore.score.labels import GENE_WEIGHT, Labels

COMPONENTS = 100
TINY = 1e-8


class Neighbours(nn.Module):
    r"""Score of a pair from the known labels of like perturbations, in all cell lines.

    With kernels :math:`\kappa_e`, source weights :math:`w_e(p)` decided by the encoded tokens of p,
    and an affinity A of cell lines, training response j in line l' weighs :math:`\omega_j \propto
    A_{ll'} (\sum_e w_e(p) \kappa_e(p, j))^q`; labels give :math:`z = (\sum_j \omega_j y_{jg} + m
    b_g) / (\sum_j \omega_j o_{jg} + m)` with the gene's smoothed rate b. The score is
    :math:`\alpha\,\mathrm{logit}(z)`, plus what neighbours' labels exceed their genes' rates by in
    general and in genes with like embeddings. A perturbation never sees labels of its own.

    `known` are labels of the first rows of `sources`, kept where `train`; `genes` (G, f) vectors.
    """

    def __init__(self, sources: Tables, ids, line, known: Labels, train, genes, width: int):
        super().__init__()
        of, used, kernels = _kernels(sources, ids, train)
        n_lines, n_used, n_genes = int(line.max()) + 1, len(used), len(genes)
        # the training labels, sorted by gene; perturbations are numbered among those in training
        order = np.lexsort((known.rows, known.genes))
        order = order[train[known.rows[order]]]
        row, gene = known.rows[order], known.genes[order]
        label = known.label[order].astype(np.float32)
        at_line, perturbation = line[row], np.searchsorted(used, of[row])
        positive, seen = np.zeros((n_lines, n_genes)), np.zeros((n_lines, n_genes))
        np.add.at(positive, (at_line, gene), label)
        np.add.at(seen, (at_line, gene), 1)
        overall = positive.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        rate = (positive + GENE_WEIGHT * overall[:, None]) / (seen + GENE_WEIGHT)
        # what the labels of each training response exceed their genes' rates by
        excess = label - rate[at_line, gene]
        at, n = at_line * n_used + perturbation, n_lines * n_used
        unit_genes = unit(genes)
        spread = sp.csr_matrix((excess, (at, gene)), (n, n_genes)) @ unit_genes
        for name, array in {
            "of": of, "kernels": kernels, "label": label,
            "column": perturbation * n_lines + at_line,
            "start": np.r_[0, np.cumsum(np.bincount(gene, minlength=n_genes))],
            "positive": positive, "known": seen, "overall": overall, "unit": unit_genes,
            "total": np.bincount(at, weights=excess, minlength=n).reshape(n_lines, n_used),
            "count": np.bincount(at, minlength=n).reshape(n_lines, n_used).astype(float),
            "spread": spread.reshape(n_lines, n_used, -1),
        }.items():  # fmt: skip
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
            array = torch.from_numpy(np.ascontiguousarray(array))
            self.register_buffer(name, array, persistent=False)
        n_sources = kernels.shape[1]
        self.source = nn.Parameter(torch.zeros(n_sources))
        self.gate = nn.Linear(width, n_sources)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.power = nn.Parameter(torch.tensor(3.0).log())
        affinity = torch.full((n_lines, n_lines), 0.3).fill_diagonal_(1.0)
        self.affinity = nn.Parameter(affinity.log())
        self.weight = nn.Parameter(torch.tensor(60.0).log())
        self.prior = nn.Parameter(torch.tensor(3.0).log())
        self.slope = nn.Parameter(torch.ones(()))
        self.strength = nn.Parameter(torch.zeros(()))
        self.alike = nn.Parameter(torch.zeros(genes.shape[1]))

    def source_weights(self, vector: torch.Tensor) -> torch.Tensor:
        """Weight of each source's kernel for each response, mean 1 over sources, (B, S)."""
        weight = (self.source + self.gate(vector)).softmax(dim=1)
        return weight * weight.shape[1]

    def forward(self, vector, rows, line, alive, row, gene, label=None) -> torch.Tensor:
        """Score pairs (E,) of B responses and genes, without their own training `label` (E,)."""
        k, affinity, scale = self._weights(vector, rows, line, alive)
        weight = (k[:, :, None] * affinity[:, None, :]).flatten(1)
        hit, seen = LabelSums.apply(weight, row, gene, self.start, self.column, self.label)
        hit, seen = hit * scale[row], seen * scale[row]
        positive, known = pick(self.positive, line[row], gene), pick(self.known, line[row], gene)
        if label is not None:
            positive, known = positive - label, known - 1
        rate = (positive + GENE_WEIGHT * self.overall[line][row]) / (known + GENE_WEIGHT)
        m = self.prior.exp()
        z = ((hit + m * rate) / (seen + m)).clamp(1e-4, 1 - 1e-4)
        return self.slope * torch.logit(z) + pick(self._around(k, affinity, scale), row, gene)

    def _weights(self, vector, rows, line, alive):
        w = self.source_weights(vector) * alive
        kernel = torch.einsum("bs,bsu->bu", w, self.kernels[self.of[rows]])
        k = (kernel + TINY) ** self.power.exp()
        affinity = self.affinity.exp()[line]
        there = (self.count > 0).to(k.dtype)
        size = ((k @ there.T) * affinity).sum(dim=1)
        return k, affinity, self.weight.exp() / size.clamp(min=TINY)

    def _around(self, k, affinity, scale):
        w = k * scale[:, None]
        total = ((w @ self.total.T) * affinity).sum(dim=1)
        count = ((w @ self.count.T) * affinity).sum(dim=1)
        spread = torch.einsum("blf,bl->bf", torch.einsum("bu,luf->blf", w, self.spread), affinity)
        strength = 10 * self.strength * total / (count + 50)
        return strength[:, None] + (self.alike * spread / 10) @ self.unit.T


def _kernels(sources: Tables, ids, train) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines of all P with the U training perturbations in every source, (P, S, U).

    Zero with itself; returned after each row's number among the P, (n,), and those in training.
    """
    names, of = np.unique(ids, return_inverse=True)
    used = np.unique(of[train])
    kernels = np.zeros((len(names), len(sources.names), len(used)), np.float32)
    for j, (table, present) in enumerate(zip(sources.tables, sources.present.T, strict=True)):
        # where a source has one vector per line, a perturbation's first one stands for it
        has, first = np.unique(of[present], return_index=True)
        vectors = table[sources.at[np.flatnonzero(present)[first], j]]
        learned = np.isin(has, used)
        Z, everything = standardise(vectors[learned], vectors)
        x = np.zeros((len(names), min(COMPONENTS, *Z.shape)), np.float32)
        x[has] = unit(everything @ principal_axes(Z, COMPONENTS))
        kernels[:, j] = np.maximum(x @ x[used].T, 0)
    kernels[used, :, np.arange(len(used))] = 0
    return of, used, kernels


def pick(table: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Take the entries (row, column) of a matrix."""
    return torch.take(table, row * table.shape[1] + column)


@numba.njit(nogil=True, cache=True)
def _sum(weight, row, gene, start, column, label, hit, seen):
    for e in range(len(gene)):
        w = weight[row[e]]
        h = s = 0.0
        for i in range(start[gene[e]], start[gene[e] + 1]):
            value = w[column[i]]
            s += value
            h += value * label[i]
        hit[e] = h
        seen[e] = s


@numba.njit(nogil=True, cache=True)
def _spread(d_hit, d_seen, row, gene, start, column, label, out):
    for e in range(len(gene)):
        to = out[row[e]]
        for i in range(start[gene[e]], start[gene[e] + 1]):
            to[column[i]] += d_seen[e] + d_hit[e] * label[i]


class LabelSums(torch.autograd.Function):
    """Sum weights (B, C) over positive and over all known labels of pairs' genes, on the CPU."""

    @staticmethod
    def forward(ctx, weight, row, gene, start, column, label):
        """Return the sums over positive and over all labels."""
        hit, seen = torch.empty(len(gene)), torch.empty(len(gene))
        index = [x.cpu().contiguous() for x in (row, gene, start, column, label)]
        given = [x.numpy() for x in (weight.detach().float().cpu().contiguous(), *index)]
        _sum(*given, hit.numpy(), seen.numpy())
        ctx.save_for_backward(weight, *index)
        return hit.to(weight), seen.to(weight)

    @staticmethod
    def backward(ctx, d_hit, d_seen):
        """Return the gradient of the weights."""
        weight, *index = ctx.saved_tensors
        out = torch.zeros(weight.shape)
        sums = [d.float().cpu().contiguous().numpy() for d in (d_hit, d_seen)]
        _spread(*sums, *(x.numpy() for x in index), out.numpy())
        return out.to(weight), None, None, None, None, None


class FusionLearner(Learner):
    """Network, tables and one task; a batch is a tensor of row numbers."""

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
    """Complete labels: softmax of each gene, balanced over training rows as published."""

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
        head = self.network.head(vector)
        row, gene = torch.ones_like(head).nonzero().T
        near = self.neighbours(vector, rows, self.line[rows], self.alive(rows), row, gene)
        return head + near.view_as(head)

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
