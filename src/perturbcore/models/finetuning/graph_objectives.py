"""A graph network read at single nodes, and the losses by which it is fine-tuned."""

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perturbcore.core.training.learner import Learner
from perturbcore.embeddings.cell_models.objectives import unsquared_l2
from perturbcore.embeddings.gcn import GraphNetwork, sparse_tensor


class Neighbourhood:
    """Cut from a graph what a network of some layers reads to embed a few nodes: exact, not sampled.

    Parameters
    ----------
    A : (n, n) sparse matrix
        Normalised, with loops, symmetric.
    layers : int
    """

    def __init__(self, A, layers: int):
        self.A, self.layers = sp.csr_matrix(A), layers

    def around(self, nodes: np.ndarray) -> dict:
        """Return node numbers `start` (first layer) and `steps`, one (A, its transpose, kept) a layer."""
        steps, rows = [], np.asarray(nodes)
        for _ in range(self.layers):
            part = self.A[rows]
            columns, local = np.unique(part.indices, return_inverse=True)
            part = sp.csr_matrix(
                (part.data, local.ravel(), part.indptr), shape=(len(rows), len(columns))
            )
            # A has loops: every row is among the columns
            kept = torch.as_tensor(np.searchsorted(columns, rows))
            steps.insert(0, (sparse_tensor(part), sparse_tensor(part.T.tocsr()), kept))
            rows = columns
        return {"start": torch.as_tensor(rows.astype(np.int64)), "steps": steps}


class Product(torch.autograd.Function):
    """A @ x with the transpose of A at hand for the backward pass."""

    @staticmethod
    def forward(ctx, A: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        """Multiply."""
        ctx.transposed = transposed
        return A @ x

    @staticmethod
    def backward(ctx, gradient: Tensor):
        """Multiply by the transpose."""
        return None, None, ctx.transposed @ gradient.contiguous()


def read_nodes(network: GraphNetwork, start: Tensor, steps) -> Tensor:
    """Embed the nodes of `Neighbourhood.around`: what ``network(A)[nodes]`` is, computed from less."""
    x = network.node[start]
    for (A, transposed, kept), norm, convolution in zip(
        steps, network.norms, network.convolutions, strict=True
    ):
        # (A x) W = A (x W), and A has fewer rows than columns
        new = convolution.lin(Product.apply(A, transposed, norm(x))) + convolution.bias
        x = x[kept] + F.dropout(F.gelu(new), network.dropout, network.training)
    return network.out(x)


class GraphObjective(Learner):
    """Responses from node embeddings by a linear head (Cole et al. 2026, Eq. 17).

    The head reads embeddings standardised by the mean and deviation that the pretrained network gives
    to the training nodes, starts at zero weights, and its bias at what the training responses say of
    a gene whatever the perturbation.

    Parameters
    ----------
    network : GraphNetwork
        Trained in place, unless `frozen`.
    centre, scale : (dim,) arrays
    bias : (g,) or (3, g) array
        Mean response, log odds, or log probabilities of the three classes.
    task : {"lfc", "pairs", "deg"}
    frozen : bool
        Train the head only.
    """

    def __init__(self, network, centre, scale, bias, *, task, lr, weight_decay=0.0, frozen=False):
        super().__init__()
        self.network, self.task, self.lr, self.decay = network, task, lr, weight_decay
        self.network.requires_grad_(not frozen)
        bias = torch.as_tensor(np.asarray(bias, dtype=np.float32))
        self.register_buffer("centre", torch.as_tensor(centre))
        self.register_buffer("scale", torch.as_tensor(scale))
        self.weight = nn.Parameter(torch.zeros(*bias.shape, len(centre)))
        self.bias = nn.Parameter(bias)

    def forward(
        self, start: Tensor | None = None, steps=None, vectors: Tensor | None = None
    ) -> Tensor:
        """Response, log odds, or (3, ...) class scores of nodes by genes.

        The nodes are given as `Neighbourhood.around` says; or, of a frozen network, by their `vectors`.
        """
        z = read_nodes(self.network, start, steps) if vectors is None else vectors
        return (z - self.centre) / self.scale @ self.weight.mT + self.bias[..., None, :]

    def loss(self, batch) -> dict[str, Tensor]:
        """Un-squared L2 error; or cross-entropy, of pairs over the known labels."""
        found = self(**{k: batch[k] for k in ("start", "steps", "vectors") if k in batch})
        label = batch["label"]
        if self.task == "lfc":
            return {"loss": unsquared_l2(found, label)}
        if self.task == "deg":
            return {"loss": F.cross_entropy(found.permute(1, 0, 2), label.long() + 1)}
        known = batch["known"]
        return {"loss": F.binary_cross_entropy_with_logits(found[known], label[known])}

    def optimizer(self):
        """Adam over what learns."""
        learning = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(learning, lr=self.lr, weight_decay=self.decay, fused=True)
