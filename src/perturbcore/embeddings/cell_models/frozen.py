"""Frozen encoders: the vector of each gene, averaged over control cells."""

from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from perturbcore.core.digest import digest
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.cell_models.tokens import ControlCells


class CellEncoder(Protocol):
    """What a fine-tuning asks of an encoder, itself a torch module.

    Attributes
    ----------
    genes : pandas.Index
        Columns of the expression it reads.
    dim : int
        Size of a gene's embedding.
    adaptable : tuple of str
        Last names of the linear layers that adapters are put on; empty for all.
    """

    genes: pd.Index
    dim: int
    adaptable: tuple[str, ...]

    def __call__(self, values: Tensor, line: int = 0, query: Tensor | None = None) -> Tensor:
        """Expression (n, n_genes) -> embeddings (n, q, dim) of the queried genes, or of all."""


def encoder_digest(encoder: nn.Module) -> str:
    """Content of an encoder: its class, genes and weights."""
    weights = {k: digest(v.numpy(force=True)) for k, v in sorted(encoder.state_dict().items())}
    extra = getattr(encoder, "spec", {})
    return digest(type(encoder).__name__, encoder.genes, weights, extra)


def spread_rows(n: int, most: int) -> np.ndarray:
    """At most `most` row numbers, spread evenly over `n`."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(int)


@torch.no_grad()
def gene_vectors(
    encoder: CellEncoder,
    cells: ControlCells,
    line: str,
    *,
    max_cells: int = 256,
    batch_size: int = 32,
) -> np.ndarray:
    """Average each gene's embedding over the control cells of a line.

    Parameters
    ----------
    encoder : CellEncoder
        Its genes must be those of `cells`; see `ControlCells.take`.
    cells : ControlCells
    line : str
    max_cells : int
        At most so many cells, spread over those there are.
    batch_size : int
        Cells at a time.

    Returns
    -------
    (n_genes, dim) float32 array

    References
    ----------
    Cole et al. 2026, 4.10: F(X), the mean over cells before Eq. 13.
    """
    values = cells.of(line)
    values = torch.from_numpy(values[spread_rows(len(values), max_cells)])
    total = torch.zeros(len(encoder.genes), encoder.dim, dtype=torch.float64)
    was = encoder.training
    encoder.eval()
    for part in values.split(batch_size):
        total += encoder(part, cells.position(line)).sum(0, dtype=torch.float64)
    encoder.train(was)
    return (total / len(values)).float().numpy()


def frozen_embeddings(
    encoder: CellEncoder,
    cells: ControlCells,
    *,
    name: str = "Cell transformer",
    modality: str = "Expression",
    max_cells: int = 256,
) -> list[Embedding]:
    """Make an embedding of each cell line from a frozen encoder.

    Genes that no control cell expresses have no vector.

    Parameters
    ----------
    encoder, cells, max_cells
        See `gene_vectors`.
    name, modality : str

    Returns
    -------
    list of Embedding
    """
    cells = cells.take(encoder.genes)
    known = np.ptp(cells.values, axis=0) > 0
    return [
        Embedding(
            name,
            modality,
            cells.genes[known],
            gene_vectors(encoder, cells, line, max_cells=max_cells)[known],
            cells.identifier,
            line,
            f"frozen encoder; {cells.source}",
        )
        for line in cells.lines
    ]
