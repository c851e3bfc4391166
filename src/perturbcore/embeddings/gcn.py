"""Residual graph networks (GCN, GIN, WaveGC), pretrained to tell edges from random pairs."""

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
from perturbcore.core.training import Batches, Learner, Trained, fit


class Product(torch.autograd.Function):
    """A @ x for a sparse A that needs no gradient, its transpose at hand for the backward pass."""

    @staticmethod
    def forward(ctx, A: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        """Multiply."""
        ctx.transposed = transposed
        return A @ x

    @staticmethod
    def backward(ctx, gradient: Tensor):
        """Multiply by the transpose."""
        return None, None, ctx.transposed @ gradient.contiguous()


def normalised(A) -> sp.csr_matrix:
    """D^-1/2 (A + I) D^-1/2 of a symmetric matrix of weights, float32."""
    A = sp.coo_matrix(A)
    edges = torch.as_tensor(np.stack([A.row, A.col]).astype(np.int64))
    weight = torch.as_tensor(A.data.astype(np.float32))
    edges, weight = gcn_norm(edges, weight, A.shape[0])
    return sp.csr_matrix((weight.numpy(), edges.numpy()), shape=A.shape)


class Convolution(GCNConv):
    """torch-geometric's GCNConv on a matrix that is normalised once, as one sparse product."""

    title, matrix = "graph convolutions", staticmethod(normalised)

    def __init__(self, dim: int):
        super().__init__(dim, dim, normalize=False)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        """(n, d) -> (n, d) for a symmetric A."""
        return Product.apply(A, A, self.lin(x)) + self.bias

    def after(self, x: Tensor) -> Tensor:
        """Finish a layer, once the product with the matrix is made."""
        return self.lin(x) + self.bias


class Isomorphism(nn.Module):
    """A node and its neighbours' sum through a perceptron: GINConv (Xu et al. 2019)."""

    title = "graph isomorphism layers"

    def __init__(self, dim: int):
        super().__init__()
        self.after = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    @staticmethod
    def matrix(A) -> sp.csr_matrix:
        """Add loops, which stand for the node itself."""
        return (sp.csr_matrix(A) + sp.identity(A.shape[0])).astype(np.float32).tocsr()

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        """(n, d) -> (n, d) for a symmetric A."""
        return self.after(Product.apply(A, A, x))


class Wavelets(nn.Module):
    r"""Convolution by learned wavelets: the sum over filters f of f(L) GELU(f(L) x W_f).

    L is the normalised Laplacian of the graph with loops. Filters are Chebyshev polynomials: the
    odd ones a low-pass, :math:`h(\lambda)=\sum_i b_i(1-T_i(\lambda-1))/2`, the even ones a
    band-pass taken at learned `SCALES` in (0, 1), so that sparse products give them exactly. Liu et
    al. 2024 (WaveGC), whose coefficients come from a transformer over the eigenvalues.
    """

    TERMS, SCALES = 7, (0.9, 0.6, 0.3)
    title, matrix = "WaveGC", staticmethod(normalised)

    def __init__(self, dim: int):
        super().__init__()
        n = 1 + len(self.SCALES)
        first = torch.zeros(self.TERMS // 2 + 1)
        first[0] = 1.0
        self.low, self.band = nn.Parameter(first.clone()), nn.Parameter(first[: self.TERMS // 2])
        self.scale = nn.Parameter(torch.logit(torch.tensor(self.SCALES)))
        self.weight = nn.Parameter(torch.randn(n, dim, dim) / dim**0.5)
        self.bias = nn.Parameter(torch.zeros(dim))
        # values at Chebyshev's points -> coefficients: exact for a polynomial of this degree
        angle = torch.pi * (torch.arange(self.TERMS + 1) + 0.5) / (self.TERMS + 1)
        turn = 2 * torch.cos(torch.arange(self.TERMS + 1)[:, None] * angle) / (self.TERMS + 1)
        turn[0] /= 2
        self.register_buffer("turn", turn, persistent=False)
        self.register_buffer("points", 1 + torch.cos(angle), persistent=False)

    def filters(self, values: Tensor) -> Tensor:
        """Low-pass and band-passes at eigenvalues (m,) in [0, 2], (n_filters, m)."""
        low = sum(b * _half(2 * i + 1, values) for i, b in enumerate(self.low))
        at = torch.sigmoid(self.scale)[:, None] * values
        band = sum(a * _half(2 * i + 2, at) for i, a in enumerate(self.band))
        return torch.cat([low[None], band])

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        """(n, d) -> (n, d) for the normalised matrix A = I - L."""
        c = self.filters(self.points) @ self.turn.T  # (n_filters, TERMS + 1)
        terms = [x, -Product.apply(A, A, x)]
        for _ in range(2, self.TERMS + 1):
            terms.append(-2 * Product.apply(A, A, terms[-1]) - terms[-2])
        seen = torch.einsum("fk,knd->fnd", c, torch.stack(terms))
        heard = torch.einsum("fk,fnd->knd", c, F.gelu(seen @ self.weight))
        # Clenshaw: the sum of all T_k(L - I) on their own signals in one pass
        one, two = heard[-1], torch.zeros_like(x)
        for k in range(self.TERMS - 1, 0, -1):
            one, two = heard[k] - 2 * Product.apply(A, A, one) - two, one
        return heard[0] - Product.apply(A, A, one) - two + self.bias


def _half(i: int, values: Tensor) -> Tensor:
    """(1 - T_i(values - 1)) / 2 by the recursion, smooth at both ends."""
    before, now = torch.ones_like(values), values - 1
    for _ in range(i - 1):
        before, now = now, 2 * (values - 1) * now - before
    return (1 - now) / 2


LAYERS = {"gcn": Convolution, "gin": Isomorphism, "wavelets": Wavelets}


class GraphNetwork(nn.Module):
    """Node vectors (n, dim) -> `layers` of x + Dropout(GELU(layer(LayerNorm(x)))) -> Linear."""

    def __init__(self, n: int, dim: int, layers: int, dropout: float, layer: str = "gcn"):
        super().__init__()
        # small, so that at first the neighbours' sum and not a node's own random start decides
        self.node = nn.Parameter(0.1 * torch.randn(n, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.convolutions = nn.ModuleList(LAYERS[layer](dim) for _ in range(layers))
        self.out = nn.Linear(dim, dim)
        self.dropout = dropout

    def matrix(self, A) -> sp.csr_matrix:
        """Return what its layers multiply by, of a symmetric matrix of weights A without loops."""
        return self.convolutions[0].matrix(A)

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
    """Dot products of edges above those of random pairs; `contrast`: weight of `info_nce`."""

    CONTRASTED, TEMPERATURE = 1024, 0.2

    def __init__(
        self, network: GraphNetwork, A: Tensor, lr: float, weight_decay: float, contrast: float = 0
    ):
        super().__init__()
        self.network, self.lr, self.decay, self.contrast = network, lr, weight_decay, contrast
        self.register_buffer("A", A, persistent=False)

    def loss(self, batch) -> dict[str, Tensor]:
        """Mean over the edges of the batch, plus the mean over as many random pairs."""
        z = self.network(self.A)
        parts = [(z[i] * z[j]).sum(dim=1) for i, j in (batch["edges"].T, batch["others"].T)]
        loss = F.softplus(-parts[0]).mean() + F.softplus(parts[1]).mean()
        if self.contrast:
            some = batch["edges"][:: -(-len(batch["edges"]) // self.CONTRASTED)]
            loss = loss + self.contrast * info_nce(z[some[:, 0]], z[some[:, 1]], self.TEMPERATURE)
        return {"loss": loss}

    def optimizer(self):
        """Adam, as published."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, weight_decay=self.decay, fused=True)


def info_nce(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding the other end of each edge by cosine (Oord et al. 2018)."""
    likeness = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T / temperature
    return F.cross_entropy(likeness, torch.arange(len(one), device=one.device))


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A network that has learnt the links of a graph A, held-out edges included."""

    network: GraphNetwork
    A: sp.csr_matrix
    auroc: float
    trained: Trained

    def about(self) -> str:
        """Say what was trained, for the line on the source."""
        layers, dim = self.network.convolutions, self.network.node.shape[1]
        return (
            f"{layers[0].title} pretrained on {self.A.nnz // 2} edges, {len(layers)} layers, {dim} "
            f"dimensions, {self.trained.epochs} epochs, AUROC of held-out edges {self.auroc:.3f}"
        )

    def vectors(self) -> np.ndarray:
        """Node embeddings on the whole graph, (n, dim) float32."""
        return self.network.vectors(sparse_tensor(self.network.matrix(self.A)))


def pretrain(
    A: sp.csr_matrix, *, dim: int, layers: int, dropout: float, lr: float, weight_decay: float,
    batch_size: int, max_epochs: int, patience: int, validation: float, seed: int,
    layer: str = "gcn", contrast: float = 0.0, folder: Path | None = None, key: str = "",
) -> Pretrained:  # fmt: skip
    """Pretrain a `GraphNetwork` by link prediction on symmetric weights A (n, n) without loops.

    A share `validation` of the edges is held out of message passing, in validation too. (In the
    published loader an edge can be in both parts, and validation passes messages over the whole
    graph.) Each edge comes with one random pair; `contrast`: see `LinkLearner`. Cole et al. 2026,
    section 4.5.2 (STRING GNN); Kipf and Welling 2017.
    """
    A = sp.csr_matrix(A)
    n = A.shape[0]
    edges, held = split_edges(A, validation, seed)
    inside = sp.coo_matrix((weights_of(A, edges), edges.T), shape=A.shape)
    message = (inside + inside.T).tocsr()
    check_held_out(message, held)
    others = random_pairs(A, len(held), np.random.default_rng([seed, 1]))

    def batch(index, rng):
        drawn = rng.integers(n, size=(len(index), 2))
        return {"edges": torch.as_tensor(edges[index]), "others": torch.as_tensor(drawn)}

    whole = {"edges": torch.as_tensor(held), "others": torch.as_tensor(others)}

    torch.manual_seed(seed)
    network = GraphNetwork(n, dim, layers, dropout, layer)
    message = sparse_tensor(network.matrix(message))
    learner = LinkLearner(network, message, lr, weight_decay, contrast)
    trained = fit(
        learner, Batches(len(edges), batch_size, batch, seed=seed),
        Batches(len(held), len(held), lambda _: whole, shuffle=False), max_epochs=max_epochs,
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
