"""Embeddings from a graph neural network that is pretrained on the links of a network."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.digest import code_digest, digest
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import check_dim
from perturbcore.embeddings.network import adjacency
from perturbcore.embeddings.registry import register
from perturbcore.errors import InputError, LeakError, ParameterError

FEWEST = 20  # nodes; below, nothing is left to learn from once edges are held out


@register("gnn", kind="edges", rooms=("training",))
def gnn_embedding(
    edges: pd.DataFrame,
    *,
    name: str,
    modality: str = "Prior knowledge",
    identifier: str = "symbol",
    source: str = "interaction network",
    models: Path | None = None,
    dim: int = 128,
    layers: int = 2,
    dropout: float = 0.1,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    batch_size: int = 4096,
    max_epochs: int = 120,
    patience: int = 10,
    threshold: float = 0.0,
    rescue: int = 20,
    weighted: bool = True,
    validation: float = 0.1,
    seed: int = 0,
) -> Embedding:
    """Embed the nodes of an undirected network by a graph neural network trained to predict its links.

    Parameters
    ----------
    edges
        Columns ``source``, ``target`` and optionally ``weight`` (a score); see `adjacency`.
    models
        Folder of trained networks: what is found there is not trained again.
    dim, layers, dropout
        Width, number of graph convolutions, dropout.
    lr, weight_decay, batch_size, max_epochs, patience, validation
        See `perturbcore.embeddings.gcn.pretrain`.
    threshold, rescue
        Where edges have weights: see `keep_edges`. With threshold 0 all edges are kept.
    weighted
        Whether messages are weighted by the scores that are kept.
    seed
        Decides every number.

    Returns
    -------
    Embedding
        Output of the last layer on the whole graph; its ``source`` tells the AUROC of held-out edges.

    Raises
    ------
    InputError
        As `adjacency`; or the network is too small.
    ParameterError
        An option outside its range.

    References
    ----------
    Cole et al. 2026, section 4.5.2 (STRING GNN).
    """
    options = {k: v for k, v in locals().items() if k in OPTIONS}
    trained, ids = pretrained_network(edges, name=name, models=models, **options)
    text = (
        f"{source}; graph convolutions pretrained on {trained.A.nnz // 2} edges, {layers} layers, "
        f"{dim} dimensions, {trained.trained.epochs} epochs, AUROC of held-out edges {trained.auroc:.3f}"
    )
    return Embedding(name, modality, pd.Index(ids), trained.vectors(), identifier, None, text)


OPTIONS = ("dim", "layers", "dropout", "lr", "weight_decay", "batch_size", "max_epochs", "patience",
           "threshold", "rescue", "weighted", "validation", "seed")  # fmt: skip


def pretrained_network(edges: pd.DataFrame, *, name: str, models: Path | None = None, **options):
    """Pretrain, or find among `models`, the network of `gnn_embedding`.

    Parameters
    ----------
    edges, name, models, **options
        See `gnn_embedding`; options left out have its defaults.

    Returns
    -------
    pretrained : perturbcore.embeddings.gcn.Pretrained
    ids : numpy.ndarray
        Names of its nodes.
    """
    defaults = {k: v for k, v in gnn_embedding.__kwdefaults__.items() if k in OPTIONS}
    options = defaults | options
    _check(options, name)
    kept = keep_edges(edges, options.pop("threshold"), options.pop("rescue"))
    ids, A = adjacency(kept, weighted=options.pop("weighted"), name=name)
    if len(ids) < FEWEST:
        raise InputError(f"embedding {name!r}: a network of {len(ids)} nodes is too small for builder gnn")
    # torch-geometric takes seconds to import, and most builds find the embedding in the cache
    from perturbcore.embeddings.gcn import pretrain

    key = digest(ids, A, options, code_digest("embeddings/gcn", "embeddings/graph_network", "training"))
    folder = Path(models) / f"gnn-{key}" if models is not None else None
    return pretrain(A, folder=folder, key=key, **options), ids


def keep_edges(edges: pd.DataFrame, threshold: float = 0.0, rescue: int = 20) -> pd.DataFrame:
    """Keep edges by score, and for nodes that lose too many their best others.

    Parameters
    ----------
    edges
        Columns ``source``, ``target`` and optionally ``weight``; without weights all are kept.
    threshold
        Smallest weight of an edge.
    rescue
        A node with fewer kept edges gets its best-scoring others back, until it has this many or all
        it had. As published, every undirected edge counts as two entries of a node, one a direction,
        so that half as many distinct edges suffice.

    Returns
    -------
    pandas.DataFrame
        One row an undirected edge, weight the largest that was listed.

    References
    ----------
    Cole et al. 2026, released code of the STRING GNN (score 900 of 1000, rescue 20).
    """
    if "weight" not in edges or threshold <= 0:
        return edges
    ids, A = adjacency(edges)
    upper = sp.triu(A).tocoo()
    keep = upper.data >= threshold
    ends = np.concatenate([upper.row, upper.col])
    edge = np.tile(np.arange(upper.nnz), 2)
    kept = np.bincount(ends[np.tile(keep, 2)], minlength=len(ids))
    wanted = np.minimum(-(-rescue // 2), np.bincount(ends, minlength=len(ids)))
    # edges of each node by falling score; those kept by their score come first
    order = np.lexsort((edge, -upper.data[edge], ends))
    first = np.searchsorted(ends[order], np.arange(len(ids)))
    place = np.arange(len(order)) - first[ends[order]]
    saved = (place < wanted[ends[order]]) & (kept < wanted)[ends[order]]
    keep[edge[order][saved]] = True
    return pd.DataFrame(
        {"source": ids[upper.row[keep]], "target": ids[upper.col[keep]], "weight": upper.data[keep]}
    )


def split_edges(A, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split undirected edges into those to learn from and those held out.

    Parameters
    ----------
    A : (n, n) sparse matrix
        Symmetric, without loops.
    share : float
        Of edges held out, at least one.
    seed : int

    Returns
    -------
    train, held : (m, 2) int64 arrays
        Each edge once, smaller node number first.
    """
    upper = sp.triu(A, 1).tocoo()
    edges = np.column_stack([upper.row, upper.col]).astype(np.int64)
    order = np.random.default_rng([seed, 0]).permutation(len(edges))
    n = max(1, round(share * len(edges)))
    return edges[np.sort(order[n:])], edges[np.sort(order[:n])]


def check_held_out(A, held: np.ndarray) -> None:
    """Raise `LeakError` where an edge that is held out takes part in message passing.

    Parameters
    ----------
    A : (n, n) sparse matrix
        Weights that messages are passed with.
    held : (m, 2) int array
        Edges held out.
    """
    A = sp.csr_matrix(A)
    weight = np.asarray(A[held[:, 0], held[:, 1]]).ravel() + np.asarray(A[held[:, 1], held[:, 0]]).ravel()
    if (weight != 0).any():
        i, j = held[np.flatnonzero(weight)[0]]
        raise LeakError(
            f"{int((weight != 0).sum())} of {len(held)} held-out edges take part in message passing, for "
            f"example {i} - {j}: take both directions of a held-out edge out of the graph (split_edges)"
        )


def check_weights(A, edges: np.ndarray, weight: np.ndarray) -> None:
    """Raise `InputError` where a list of weights does not belong to its list of edges.

    Parameters
    ----------
    A : (n, n) sparse matrix
        The weights as they should be.
    edges : (2, m) int array
        Ends of each directed edge.
    weight : (m,) array
        What messages along each of them are to be weighted with.
    """
    want = np.asarray(sp.csr_matrix(A)[edges[0], edges[1]]).ravel()
    wrong = ~np.isclose(want, weight, rtol=1e-5, atol=1e-8)
    if wrong.any():
        e = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{int(wrong.sum())} of {len(weight)} weights do not belong to their edge: edge {edges[0, e]} - "
            f"{edges[1, e]} weighs {want[e]:.4g}, the list says {weight[e]:.4g}; order both lists alike"
        )


def _check(options: dict, name: str) -> None:
    check_dim(options["dim"], name)
    least = {"layers": 1, "batch_size": 1, "max_epochs": 1, "patience": 1, "rescue": 0}
    for option, low in least.items():
        if options[option] < low:
            raise ParameterError(f"embedding {name!r}: {option} must be at least {low}, got {options[option]}")
    if not 0 < options["validation"] < 1 or not 0 <= options["dropout"] < 1 or options["lr"] <= 0:
        raise ParameterError(
            f"embedding {name!r}: validation must lie between 0 and 1, dropout in [0, 1), lr above 0, got "
            f"{options['validation']}, {options['dropout']}, {options['lr']}"
        )
