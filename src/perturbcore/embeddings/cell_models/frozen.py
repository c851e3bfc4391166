"""Frozen encoders: the vector of each gene, averaged over control cells."""

import numpy as np
import torch
from torch import Tensor, nn

from perturbcore.core.digest import digest
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.cell_models.tokens import ControlCells


def encoder_digest(encoder: nn.Module) -> str:
    """Content of an encoder: its class, genes and weights."""
    weights = {k: digest(v.numpy(force=True)) for k, v in sorted(encoder.state_dict().items())}
    extra = getattr(encoder, "spec", {})
    return digest(type(encoder).__name__, encoder.genes, weights, extra)


def spread_rows(n: int, most: int) -> np.ndarray:
    """At most `most` row numbers, spread evenly over `n`."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(int)


def cells_with(embedded: Tensor) -> Tensor:
    """In how many cells each gene was read, (n, q, d) -> (q, 1): those where it is not zero."""
    return (embedded != 0).any(-1).sum(0).unsqueeze(-1)


def mean_over_cells(embedded: Tensor) -> Tensor:
    """Mean over the cells that have a gene (Cole et al., Eq. 11), (n, q, d) -> (q, d); else 0."""
    return embedded.sum(0) / cells_with(embedded).clamp_min(1)


@torch.no_grad()
def gene_vectors(
    encoder: nn.Module,
    cells: ControlCells,
    line: str,
    *,
    max_cells: int = 256,
    batch_size: int = 32,
) -> np.ndarray:
    """Average each gene's embedding over the control cells of a line that have the gene.

    `encoder`: maps expression (n, n_genes) and the position of the line to embeddings (n,
    n_genes, d), zero where it has not read a gene; attributes `genes` (those of `cells`, see
    `ControlCells.take`) and `dim`; `max_cells`: at most so many cells, spread over those there
    are; `batch_size` at a time.

    Returns (n_genes, d): zero for a gene that no cell has.

    Cole et al. 2026, Eq. 11, and section 4.10: F(X), the mean over cells before Eq. 13.
    """
    values = cells.of(line)
    values = torch.from_numpy(values[spread_rows(len(values), max_cells)])
    total = torch.zeros(len(encoder.genes), encoder.dim, dtype=torch.float64)
    count = torch.zeros(len(encoder.genes), 1)
    was = encoder.training
    encoder.eval()
    for part in values.split(batch_size):
        embedded = encoder(part, cells.position(line))
        total += embedded.sum(0, dtype=torch.float64)
        count += cells_with(embedded)
    encoder.train(was)
    return (total / count.clamp_min(1)).float().numpy()


def frozen_embeddings(
    encoder: nn.Module, cells: ControlCells, *, name: str = "Cell transformer", max_cells: int = 256
) -> list[Embedding]:
    """Make an embedding of each cell line from a frozen encoder; see `gene_vectors`.

    Genes that no control cell expresses, or that the encoder reads in none, have no vector.
    """
    cells = cells.take(encoder.genes)
    varies = np.ptp(cells.values, axis=0) > 0
    made = []
    for line in cells.lines:
        X = gene_vectors(encoder, cells, line, max_cells=max_cells)
        known = varies & X.any(axis=1)
        about = f"frozen encoder; {cells.source}"
        ids = cells.genes[known]
        made.append(Embedding(name, "Expression", ids, X[known], cells.identifier, line, about))
    return made
