"""Embeddings from a graph neural network that is pretrained on the links of a network."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError
from perturbcore.embeddings.network import Share, adjacency
from perturbcore.embeddings.registry import Dim, Positive, register

FEWEST = 20  # nodes; below, nothing is left to learn from once edges are held out


@register("gnn", kind="edges")
def gnn_embedding(
    edges: pd.DataFrame,
    *,
    models: Path | None = None,
    dim: Dim = 128,
    layers: Dim = 2,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    lr: Positive = 1e-3,
    weight_decay: float = 0.0,
    batch_size: Dim = 4096,
    max_epochs: Dim = 120,
    patience: Dim = 10,
    validation: Share = 0.1,
    seed: int = 0,
):
    """Embed the nodes of an undirected network by a graph neural network that predicts its links.

    The vectors are those of the last layer on the whole graph; the embedding's ``source`` tells
    the AUROC of held-out edges.

    `models`: folder of trained networks: what is there is not trained again.

    Cole et al. 2026, section 4.5.2 (STRING GNN).
    """
    given = locals()
    options = {name: given[name] for name in OPTIONS}
    trained, ids = pretrained_network(edges, models=models, **options)
    text = (
        f"graph convolutions pretrained on {trained.A.nnz // 2} edges, {layers} layers, "
        f"{dim} dimensions, {trained.trained.epochs} epochs, AUROC of held-out edges "
        f"{trained.auroc:.3f}"
    )
    return ids, trained.vectors(), text


OPTIONS = {k: v for k, v in gnn_embedding.__wrapped__.__kwdefaults__.items() if k != "models"}


def pretrained_network(edges: pd.DataFrame, *, models: Path | None = None, **options):
    """Pretrain, or take from `models`, the network of `gnn_embedding`; return its node names too.

    Options left out have the defaults of `gnn_embedding`.
    """
    options = OPTIONS | options
    ids, A = adjacency(edges)
    if len(ids) < FEWEST:
        raise InputError(f"a network of {len(ids)} nodes is too small for builder gnn")
    # torch-geometric takes seconds to import, and most builds find the embedding in the cache
    from perturbcore.embeddings.gcn import pretrain

    key = digest(ids, A, options, code_digest("perturbcore.embeddings.graph_network"))
    folder = Path(models) / f"gnn-{key}" if models is not None else None
    return pretrain(A, folder=folder, key=key, **options), ids
