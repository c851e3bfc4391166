"""WaveGC: nodes of a network embedded by learned wavelets that are trained to predict its links."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field

from perturbcore.embeddings.network import pretrained_network
from perturbcore.embeddings.registry import Dim, Positive, register


@register("wavegc", kind="edges")
def wavegc_embedding(
    edges: pd.DataFrame,
    *,
    models: Path | None = None,
    dim: Dim = 128,
    layers: Dim = 2,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    lr: Positive = 1e-3,
    batch_size: Dim = 100_000,
    max_epochs: Dim = 200,
    patience: Dim = 30,
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1,
    contrast: Annotated[float, Field(ge=0)] = 1.0,
    seed: int = 0,
):
    """Embed the nodes of an undirected network by a wavelet convolutional network.

    Trained to tell edges from random pairs, and to find the other end of an edge among others
    (InfoNCE, weight `contrast`); see `perturbcore.embeddings.gcn.Wavelets`.

    Cole et al. 2026, section 4.5.2 (WaveGC); Liu et al. 2024.
    """
    options = {k: v for k, v in locals().items() if k != "edges"}
    trained, ids = pretrained_network(edges, layer="wavelets", weight_decay=0.0, **options)
    return ids, trained.vectors(), f"WaveGC {trained.about()}"
