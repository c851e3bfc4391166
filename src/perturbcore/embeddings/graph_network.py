"""Embeddings from a graph neural network that is pretrained on the links of a network."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.linalg import check_dim
from perturbcore.embeddings.network import adjacency
from perturbcore.embeddings.registry import register

FEWEST = 20  # nodes; below, nothing is left to learn from once edges are held out


@register("gnn", kind="edges")
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
        raise InputError(
            f"embedding {name!r}: a network of {len(ids)} nodes is too small for builder gnn"
        )
    # torch-geometric takes seconds to import, and most builds find the embedding in the cache
    from perturbcore.embeddings.gcn import pretrain

    key = digest(ids, A, options, code_digest("perturbcore.embeddings.graph_network"))
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


def _check(options: dict, name: str) -> None:
    check_dim(options["dim"], name)
    least = {"layers": 1, "batch_size": 1, "max_epochs": 1, "patience": 1, "rescue": 0}
    for option, low in least.items():
        if options[option] < low:
            raise ParameterError(
                f"embedding {name!r}: {option} must be at least {low}, got {options[option]}"
            )
    if not 0 < options["validation"] < 1 or not 0 <= options["dropout"] < 1 or options["lr"] <= 0:
        raise ParameterError(
            f"embedding {name!r}: validation must lie between 0 and 1, dropout in [0, 1), lr above 0, got "
            f"{options['validation']}, {options['dropout']}, {options['lr']}"
        )
