"""A residual graph convolutional network, pretrained to tell edges from random pairs."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch_geometric.nn import GCNConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from perturbcore.core.errors import LeakError
from perturbcore.core.training.fit import Trained, fit
from perturbcore.core.training.learner import Batches, Learner


class SymmetricProduct(torch.autograd.Function):
    """A @ x for a symmetric sparse A that needs no gradient: the backward pass is A @ gradient."""

    @staticmethod
    def forward(ctx, A: Tensor, x: Tensor) -> Tensor:
        """Multiply."""
        ctx.A = A
        return A @ x

    @staticmethod
    def backward(ctx, gradient: Tensor):
        """Multiply."""
        return None, ctx.A @ gradient.contiguous()


class Convolution(GCNConv):
    """torch-geometric's GCNConv on a matrix that is normalised once, as one sparse product."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, normalize=False)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        """(n, d) -> (m, d) for A of m x n; a square A must be symmetric."""
        x = self.lin(x)
        x = SymmetricProduct.apply(A, x) if A.shape[0] == A.shape[1] else torch.sparse.mm(A, x)
        return x + self.bias


class GraphNetwork(nn.Module):
    """Node vectors (n, dim) -> `layers` of x + Dropout(GELU(GCNConv(LayerNorm(x)))) -> Linear."""

    def __init__(self, n: int, dim: int, layers: int, dropout: float):
        super().__init__()
        # small, so that at first the neighbours' sum and not a node's own random start decides
        self.node = nn.Parameter(0.1 * torch.randn(n, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.convolutions = nn.ModuleList(Convolution(dim) for _ in range(layers))
        self.out = nn.Linear(dim, dim)
        self.dropout = dropout

    @torch.no_grad()
    def vectors(self, A: Tensor) -> np.ndarray:
        """Vectors of all nodes (n, dim) without dropout."""
        return self.eval()(A).numpy()

    def forward(self, A: Tensor) -> Tensor:
        """Return the vectors of all nodes (n, dim) for the normalised matrix A."""
        x = self.node
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = x + F.dropout(F.gelu(convolution(norm(x), A)), self.dropout, self.training)
        return self.out(x)


def normalised(A) -> sp.csr_matrix:
    """D^-1/2 (A + I) D^-1/2 of a symmetric matrix of weights, float32."""
    A = sp.coo_matrix(A)
    edges = torch.as_tensor(np.stack([A.row, A.col]).astype(np.int64))
    weight = torch.as_tensor(A.data.astype(np.float32))
    edges, weight = gcn_norm(edges, weight, A.shape[0])
    return sp.csr_matrix((weight.numpy(), edges.numpy()), shape=A.shape)


def sparse_tensor(A: sp.csr_matrix) -> Tensor:
    """Turn a scipy CSR matrix into a torch one."""
    A.sort_indices()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]parse.*")
        return torch.sparse_csr_tensor(
            torch.as_tensor(A.indptr.astype(np.int64)), torch.as_tensor(A.indices.astype(np.int64)),
            torch.as_tensor(A.data.astype(np.float32)), A.shape,
        )  # fmt: skip


class LinkLearner(Learner):
    """Dot products of edges above those of random pairs (binary cross-entropy)."""

    def __init__(self, network: GraphNetwork, A: Tensor, lr: float, weight_decay: float):
        super().__init__()
        self.network, self.lr, self.decay = network, lr, weight_decay
        self.register_buffer("A", A, persistent=False)

    def loss(self, batch) -> dict[str, Tensor]:
        """Mean over the edges of the batch, plus the mean over as many random pairs."""
        z = self.network(self.A)
        parts = [(z[i] * z[j]).sum(dim=1) for i, j in (batch["edges"].T, batch["others"].T)]
        return {"loss": F.softplus(-parts[0]).mean() + F.softplus(parts[1]).mean()}

    def optimizer(self):
        """Adam, as published."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, weight_decay=self.decay, fused=True)


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A network that has learnt the links of a graph A, held-out edges included.

    `auroc`: of held-out edges against as many random pairs that are no edges, when the held-out
    edges took no part in message passing.
    """

    network: GraphNetwork
    A: sp.csr_matrix
    auroc: float
    trained: Trained

    def vectors(self) -> np.ndarray:
        """Node embeddings on the whole graph, (n, dim) float32."""
        return self.network.vectors(sparse_tensor(normalised(self.A)))


def pretrain(
    A: sp.csr_matrix, *, dim: int, layers: int, dropout: float, lr: float, weight_decay: float,
    batch_size: int, max_epochs: int, patience: int, validation: float, seed: int,
    folder: Path | None = None, key: str = "",
) -> Pretrained:  # fmt: skip
    """Pretrain a `GraphNetwork` by link prediction on symmetric weights A (n, n) without loops.

    A share `validation` of the undirected edges is held out: it is not in the matrix of message
    passing, neither in training nor in validation. (In the published loader each edge is listed
    twice, an edge can be in both parts, and validation passes messages over the whole graph.) Adam
    takes `batch_size` edges at a time, each with one uniform random pair, and stops early on the
    held-out edges. `folder` and `key`: see `perturbcore.core.training.fit`.

    Cole et al. 2026, section 4.5.2 (STRING GNN); Kipf and Welling 2017.
    """
    A = sp.csr_matrix(A)
    n = A.shape[0]
    edges, held = split_edges(A, validation, seed)
    inside = sp.coo_matrix((weights_of(A, edges), edges.T), shape=A.shape)
    message = (inside + inside.T).tocsr()
    check_held_out(message, held)
    others = random_pairs(A, len(held), np.random.default_rng([seed, 1]))

    def batch(index, rng):
        return {
            "edges": torch.as_tensor(edges[index]),
            "others": torch.as_tensor(rng.integers(n, size=(len(index), 2))),
        }

    def held_batch(index):
        return {"edges": torch.as_tensor(held[index]), "others": torch.as_tensor(others[index])}

    torch.manual_seed(seed)
    network = GraphNetwork(n, dim, layers, dropout)
    learner = LinkLearner(network, sparse_tensor(normalised(message)), lr, weight_decay)
    trained = fit(
        learner, Batches(len(edges), batch_size, batch, seed=seed),
        Batches(len(held), len(held), held_batch, shuffle=False), max_epochs=max_epochs,
        patience=patience, grad_clip=1.0, folder=folder, key=key, seed=seed,
    )  # fmt: skip
    z = network.vectors(learner.A)
    score = np.concatenate([(z[p[:, 0]] * z[p[:, 1]]).sum(axis=1) for p in (held, others)])
    label = np.repeat([1, 0], [len(held), len(others)])
    return Pretrained(network, A, float(roc_auc_score(label, score)), trained)


def weights_of(A: sp.csr_matrix, pairs: np.ndarray) -> np.ndarray:
    """Weights of pairs of nodes, (m, 2) -> (m,); 0 where there is no edge."""
    return np.asarray(sp.csr_matrix(A)[pairs[:, 0], pairs[:, 1]]).ravel()


def split_edges(A: sp.csr_matrix, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split undirected edges, (m, 2) with i < j, into those to learn from and a share held out."""
    upper = sp.triu(A, 1).tocoo()
    edges = np.column_stack([upper.row, upper.col]).astype(np.int64)
    order = np.random.default_rng([seed, 0]).permutation(len(edges))
    n = max(1, round(share * len(edges)))
    return edges[np.sort(order[n:])], edges[np.sort(order[:n])]


def random_pairs(A: sp.csr_matrix, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `size` pairs of distinct nodes that are no edges of A, (size, 2)."""
    drawn = np.empty((0, 2), np.int64)
    while len(drawn) < size:
        pairs = rng.integers(A.shape[0], size=(2 * size, 2))
        pairs = pairs[(pairs[:, 0] != pairs[:, 1]) & (weights_of(A, pairs) == 0)]
        drawn = np.concatenate([drawn, pairs])
    return drawn[:size]


def check_held_out(A: sp.csr_matrix, held: np.ndarray) -> None:
    """Raise `LeakError` where a held-out edge (a row of `held`) passes messages in A."""
    leaks = (weights_of(A, held) != 0) | (weights_of(A, held[:, ::-1]) != 0)
    if leaks.any():
        i, j = held[np.flatnonzero(leaks)[0]]
        raise LeakError(
            f"{int(leaks.sum())} of {len(held)} held-out edges take part in message passing, for "
            f"example {i} - {j}: take both directions of a held-out edge out of the graph "
            "(split_edges)"
        )
