"""Attention to training perturbations: their known labels, weighted by a learned kernel of the sources."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from perturbcore.models.fusion.gather import label_sums
from perturbcore.models.fusion.sources import Sources
from perturbcore.models.simple.labels import GENE_WEIGHT, Labels
from perturbcore.models.simple.space import principal_axes, standardise

COMPONENTS = 100
TINY = 1e-8


@dataclass(eq=False)
class Memory:
    """Known labels of the training rows, and how alike perturbations are in every source.

    Attributes
    ----------
    of : (n,) int array
        Number of each row's perturbation among all distinct ones (training and test).
    kernels : (P, S, U) float32 array
        Cosine of each perturbation with each of the U training ones in each source, negative parts
        cut; zero with itself, and where one has no such source.
    perturbation, line, label : arrays
        Of the training labels, sorted by gene.
    start : (G + 1,) int array
        Where each gene's labels start.
    n_lines : int
    """

    of: np.ndarray
    kernels: np.ndarray
    perturbation: np.ndarray
    line: np.ndarray
    label: np.ndarray
    start: np.ndarray
    n_lines: int

    @property
    def gene(self) -> np.ndarray:
        """Gene of each label."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Positive and all labels of each gene in each line, (n_lines, G)."""
        shape = (self.n_lines, len(self.start) - 1)
        positive, known = np.zeros(shape), np.zeros(shape)
        np.add.at(positive, (self.line, self.gene), self.label)
        np.add.at(known, (self.line, self.gene), 1)
        return positive, known


def remember(sources: Sources, ids, line, known: Labels, train: np.ndarray, n_lines: int) -> Memory:
    """Lay out labels and kernels.

    Parameters
    ----------
    sources : Sources
        Not normalised.
    ids, line : (n,) arrays
        Perturbation and number of the cell line of each row.
    known : Labels
        Of the first rows; only those of `train` are kept.
    train : (n,) bool array
    n_lines : int
    """
    names, first, of = np.unique(ids, return_index=True, return_inverse=True)
    used = np.unique(of[train])
    kernels = np.zeros((len(names), len(sources.names), len(used)), np.float32)
    number = np.full(len(names), -1)
    number[used] = np.arange(len(used))
    for j, (table, present) in enumerate(zip(sources.tables, sources.present.T, strict=True)):
        # where a source has one vector a line, a perturbation's first one stands for it
        has = _first_present(of, present, len(names))
        rows = has >= 0
        learned = np.zeros(len(names), bool)
        learned[used] = rows[used]
        vectors = table[sources.at[has[rows], j]]
        Z, Zall = standardise(table[sources.at[has[learned], j]], vectors)
        x = Zall @ principal_axes(Z, COMPONENTS)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        unit = np.zeros((len(names), x.shape[1]), np.float32)
        unit[rows] = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
        kernels[:, j] = np.maximum(unit @ unit[used].T, 0)
    kernels[used, :, np.arange(len(used))] = 0
    n = np.diff(known.indptr)
    row = np.repeat(np.arange(len(n)), n)
    keep = train[row]
    row, gene, label = row[keep], known.genes[keep], known.label[keep]
    order = np.lexsort((row, gene))
    row = row[order]
    start = np.concatenate([[0], np.cumsum(np.bincount(gene, minlength=known.n_genes))])
    return Memory(
        of, kernels, number[of[row]], np.asarray(line)[row].astype(np.int64),
        label[order].astype(np.float32), start, n_lines,
    )  # fmt: skip


def _first_present(of, present, n):
    has = np.full(n, -1)
    rows = np.flatnonzero(present)[::-1]
    has[of[rows]] = rows
    return has


class Neighbours(nn.Module):
    r"""Score of a pair from the known labels of like perturbations, in all cell lines.

    With kernels :math:`\kappa_e`, source weights :math:`w_e(p)` decided by the encoded tokens of p,
    and an affinity A of cell lines, training response j in line l' weighs

    .. math:: \omega_j \propto A_{ll'} \Big(\sum_e w_e(p) \kappa_e(p, j)\Big)^q,
              \qquad \sum_j \omega_j = T.

    The gene's labels give :math:`z = (\sum_j \omega_j y_{jg} + m b_g) / (\sum_j \omega_j o_{jg} + m)`
    with the gene's smoothed rate b, and the score is :math:`\alpha\,\mathrm{logit}(z)`, plus what
    neighbours' labels exceed their genes' rates by in general and in genes with like embeddings.
    A perturbation never sees labels of its own, in no line: training is leave-one-out.

    Parameters
    ----------
    memory : Memory
    width : int
        Width of the responses' vectors.
    genes : (G, f) array
        Vectors of the genes.
    """

    def __init__(self, memory: Memory, width: int, genes: np.ndarray):
        super().__init__()
        n_lines, n_sources = memory.n_lines, memory.kernels.shape[1]
        positive, known = memory.counts()
        overall = positive.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        rate = (positive + GENE_WEIGHT * overall[:, None]) / (known + GENE_WEIGHT)
        length = np.linalg.norm(genes, axis=1, keepdims=True)
        unit = np.divide(genes, length, out=np.zeros_like(genes), where=length > 0)
        excess = memory.label - rate[memory.line, memory.gene]
        shape = (n_lines, memory.kernels.shape[2])
        at = memory.line * shape[1] + memory.perturbation
        total = np.bincount(at, weights=excess, minlength=shape[0] * shape[1]).reshape(shape)
        count = np.bincount(at, minlength=shape[0] * shape[1]).reshape(shape).astype(float)
        excesses = sp.csr_matrix((excess, (at, memory.gene)), (shape[0] * shape[1], len(unit)))
        spread = (excesses @ unit).reshape(*shape, -1)
        for name, array in {
            "of": memory.of, "kernels": memory.kernels, "column": memory.perturbation * n_lines + memory.line,
            "label": memory.label, "start": memory.start,
            "positive": positive, "known": known, "overall": overall, "unit": unit, "total": total,
            "count": count, "spread": spread,
        }.items():  # fmt: skip
            array = np.asarray(array)
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
            self.register_buffer(
                name, torch.from_numpy(np.ascontiguousarray(array)), persistent=False
            )
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
        """Score (row, gene) pairs.

        Parameters
        ----------
        vector : (B, width) tensor
        rows, line : (B,) int tensors
            Row numbers, and numbers of their cell lines.
        alive : (B, S) bool tensor
            Sources that may be used.
        row, gene : (E,) int tensors
            Which of the B rows, which gene.
        label : (E,) tensor, optional
            Labels of the pairs where they are training labels, to be left out of the genes' rates.
        """
        k, affinity, scale = self._weights(vector, rows, line, alive)
        weight = (k[:, :, None] * affinity[:, None, :]).flatten(1)
        hit, seen = label_sums(weight, row, gene, self.start, self.column, self.label)
        hit, seen = hit * scale[row], seen * scale[row]
        positive, known = pick(self.positive, line[row], gene), pick(self.known, line[row], gene)
        if label is not None:
            positive, known = positive - label, known - 1
        score = self._smooth(hit, seen, positive, known, self.overall[line][row])
        return score + pick(self._around(k, affinity, scale), row, gene)

    @torch.no_grad()
    def all(self, vector, rows, line, alive) -> torch.Tensor:
        """Score all genes, (B, G)."""
        k, affinity, scale = self._weights(vector, rows, line, alive)
        weight = (k[:, :, None] * (affinity * scale[:, None])[:, None, :]).flatten(1).T
        gene = torch.repeat_interleave(
            torch.arange(len(self.unit), device=k.device), self.start.diff()
        )
        index, size = torch.stack([gene, self.column]), (len(self.unit), len(weight))
        labels = [self.label, torch.ones_like(self.label)]
        tables = [torch.sparse_coo_tensor(index, x, size, check_invariants=False) for x in labels]
        hit, seen = ((table @ weight).T for table in tables)
        score = self._smooth(
            hit, seen, self.positive[line], self.known[line], self.overall[line][:, None]
        )
        return score + self._around(k, affinity, scale)

    def _weights(self, vector, rows, line, alive):
        w = self.source_weights(vector) * alive
        kernel = torch.einsum("bs,bsu->bu", w, self.kernels[self.of[rows]])
        k = (kernel + TINY) ** self.power.exp()
        affinity = self.affinity.exp()[line]
        there = (self.count > 0).to(k.dtype)
        size = ((k @ there.T) * affinity).sum(dim=1)
        return k, affinity, self.weight.exp() / size.clamp(min=TINY)

    def _smooth(self, hit, seen, positive, known, overall):
        rate = (positive + GENE_WEIGHT * overall) / (known + GENE_WEIGHT)
        m = self.prior.exp()
        z = ((hit + m * rate) / (seen + m)).clamp(1e-4, 1 - 1e-4)
        return self.slope * torch.logit(z)

    def _around(self, k, affinity, scale):
        w = k * scale[:, None]
        total = ((w @ self.total.T) * affinity).sum(dim=1)
        count = ((w @ self.count.T) * affinity).sum(dim=1)
        spread = torch.einsum("blf,bl->bf", torch.einsum("bu,luf->blf", w, self.spread), affinity)
        strength = 10 * self.strength * total / (count + 50)
        return strength[:, None] + (self.alike * spread / 10) @ self.unit.T


def pick(table: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Take the entries (row, column) of a matrix."""
    return torch.take(table, row * table.shape[1] + column)
