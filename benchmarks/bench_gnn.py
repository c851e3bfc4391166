"""Graph networks: pretraining and fine-tuning beside loops as published, in seconds."""

import copy
import time

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from reporter import main, row, timed
from sklearn.metrics import roc_auc_score
from torch_geometric.nn import GCNConv

from perturbcore.embeddings.gcn import (
    GraphNetwork,
    normalised,
    pretrain,
    random_pairs,
    sparse_tensor,
    split_edges,
)
from perturbcore.models.finetuning.graph import neighbourhood, read_nodes

DIM, LAYERS, PUBLISHED_BATCH = 64, 2, 4096


def graph(n, edges, seed=0):
    """Network with planted communities and uneven degrees, about the size of a real one."""
    rng = np.random.default_rng(seed)
    communities = max(4, n // 50)
    member = rng.integers(communities, size=n)
    weight = rng.pareto(2.0, n) + 0.2
    order = np.argsort(member, kind="stable")
    pairs = [rng.choice(n, (edges // 4, 2), p=weight / weight.sum())]
    for part in np.split(order, np.cumsum(np.bincount(member, minlength=communities))[:-1]):
        p = weight[part] / weight[part].sum()
        pairs.append(part[rng.choice(len(part), (round(edges * len(part) / n), 2), p=p)])
    pairs = np.sort(np.concatenate([*pairs, np.column_stack([order, np.roll(order, 1)])]), axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    half = sp.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(n, n))
    return (half + half.T).tocsr()


class Published(torch.nn.Module):
    """The same network with torch-geometric's layers on an edge list."""

    def __init__(self, ours: GraphNetwork):
        super().__init__()
        self.node, self.norms, self.out = ours.node, ours.norms, ours.out
        self.convolutions = torch.nn.ModuleList(GCNConv(DIM, DIM) for _ in ours.convolutions)
        for theirs, mine in zip(self.convolutions, ours.convolutions, strict=True):
            theirs.load_state_dict(mine.state_dict())

    def forward(self, edges):
        x = self.node
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = x + F.gelu(convolution(norm(x), edges))
        return self.out(x)


def score(z, pairs):
    return (z[pairs[:, 0]] * z[pairs[:, 1]]).sum(dim=1)


def naive_pretraining(A, epochs, seed=0):
    """A whole-graph pass for every batch of 4,096 edges, edge lists as published.

    Learning rate 0.001.
    """
    train, held = split_edges(A, 0.1, seed)
    others = random_pairs(A, len(held), np.random.default_rng([seed, 1]))
    torch.manual_seed(seed)
    net = Published(GraphNetwork(A.shape[0], DIM, LAYERS, 0.0))
    edges = torch.as_tensor(np.concatenate([train, train[:, ::-1]]).T.copy())
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    rng, start = np.random.default_rng(seed), time.perf_counter()
    for _ in range(epochs):
        for index in np.array_split(rng.permutation(len(train)), -(-len(train) // PUBLISHED_BATCH)):
            z = net(edges)
            negative = torch.as_tensor(rng.integers(A.shape[0], size=(len(index), 2)))
            loss = F.softplus(-score(z, torch.as_tensor(train[index]))).mean()
            loss = loss + F.softplus(score(z, negative)).mean()
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            adam.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        z = net(edges)
        value = torch.cat([score(z, torch.as_tensor(p)) for p in (held, others)]).numpy()
    return seconds / epochs, roc_auc_score(np.repeat([1, 0], [len(held), len(others)]), value)


def passes(A):
    """One forward and backward pass over the whole graph."""
    torch.manual_seed(0)
    ours = GraphNetwork(A.shape[0], DIM, LAYERS, 0.0)
    theirs = Published(copy.deepcopy(ours))
    coo = A.tocoo()
    inputs = (
        sparse_tensor(normalised(A)),
        torch.as_tensor(np.stack([coo.row, coo.col]).astype(np.int64)),
    )
    seconds, gradients = [], []
    for net, graph_of in zip((ours, theirs), inputs, strict=True):

        def once(net=net, graph_of=graph_of):
            net.zero_grad()
            net(graph_of).square().mean().backward()

        once()
        seconds.append(timed(once, 5)[1])
        gradients.append(net.node.grad)
    worst = float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max())
    return row(
        f"one pass with gradient, {A.shape[0]:,} nodes, {A.nnz // 2:,} edges, {DIM} x {LAYERS}",
        "torch-geometric GCNConv on an edge list", seconds[0], seconds[1],
        f"largest difference {worst:.0e} of gradient",
    )  # fmt: skip


def pretraining(A, epochs):
    """An epoch of pretraining, and the AUROC of held-out edges after as many epochs."""
    naive, theirs = naive_pretraining(A, epochs)
    found, seconds = timed(lambda: pretrain(
        A, dim=DIM, layers=LAYERS, dropout=0.0, lr=1e-2, weight_decay=0.0, batch_size=10**6,
        max_epochs=epochs, patience=epochs, validation=0.1, seed=0,
    ))  # fmt: skip
    return row(
        f"an epoch of pretraining, {A.shape[0]:,} nodes, {A.nnz // 2:,} edges",
        f"whole-graph pass for each {PUBLISHED_BATCH:,} edges", seconds / epochs, naive,
        f"AUROC of held-out edges after {epochs} epochs: ours {found.auroc:.3f}, loop {theirs:.3f}",
    )  # fmt: skip


def fine_tuning(A, batch):
    """The vectors and gradients of a batch of perturbations: from their neighbourhood.

    Or the whole graph.
    """
    torch.manual_seed(0)
    net = GraphNetwork(A.shape[0], DIM, LAYERS, 0.0)
    P = normalised(A)
    whole = sparse_tensor(P)
    rng = np.random.default_rng(0)
    # perturbed genes are not hubs in particular
    batches = [rng.choice(A.shape[0], batch, replace=False) for _ in range(6)]
    seconds, values = [], []
    for part in (True, False):
        for i, nodes in enumerate(batches):
            if i == 1:
                start = time.perf_counter()
            net.zero_grad()
            z = (
                read_nodes(net, **neighbourhood(P, LAYERS, nodes))
                if part
                else net(whole)[torch.as_tensor(nodes)]
            )
            z.square().mean().backward()
        seconds.append((time.perf_counter() - start) / (len(batches) - 1))
        values.append(net.node.grad.clone())
    read = len(neighbourhood(P, LAYERS, batches[0])["start"])
    worst = float((values[0] - values[1]).abs().max() / values[1].abs().max())
    return row(
        f"fine-tuning step, {batch} perturbations, {A.shape[0]:,} nodes, {A.nnz // 2:,} edges",
        "whole-graph pass per batch", seconds[0], seconds[1],
        f"largest difference {worst:.0e} of gradient; {read:,} nodes read",
    )  # fmt: skip


def cases(options):
    """Yield the rows."""
    sizes = [(2500, 15_000), (5000, 30_000), (10_000, 60_000), (20_000, 240_000)]
    for n, edges in [(400, 2000)] if options.small else sizes:
        A = graph(n, edges)
        yield passes(A)
        if edges <= 60_000:
            yield pretraining(A, 3 if options.small else 20)
        for batch in (8,) if options.small else (16, 64):
            yield fine_tuning(A, batch)


if __name__ == "__main__":
    main(__doc__, cases)
