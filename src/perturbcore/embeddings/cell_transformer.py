"""Embeddings of genes from a transformer pretrained on the screen's control cells, left frozen."""

from pathlib import Path

from anndata import AnnData

from perturbcore.embeddings.expression import Cells
from perturbcore.embeddings.registry import Dim, Positive, register


@register("cell_transformer", kind="screen", modality="Expression")
def cell_transformer(
    screen: AnnData,
    *,
    cell_line: str | None = None,
    models: Path | None = None,
    dim: Dim = 64,
    heads: Dim = 4,
    layers: Dim = 2,
    latents: Dim = 32,
    epochs: Dim = 5,
    lr: Positive = 3e-3,
    max_cells: Cells = 2000,
    max_genes: Cells | None = None,
    seed: int = 0,
):
    """Train a transformer to fill in masked genes of control cells; average its gene embeddings.

    One encoder is trained on all cell lines (or on `cell_line` alone) and kept in the folder
    `models`; each line's embedding is the mean over its own control cells. No perturbed cell is
    looked at; genes that no drawn cell expresses are left out. Options: see
    `perturbcore.embeddings.cell_models.pretrain.pretrain` and
    `perturbcore.embeddings.cell_models.tokens.control_cells`.
    """
    # torch takes seconds to import, and most builds find the embedding in the cache
    from perturbcore.embeddings.cell_models.frozen import frozen_embeddings
    from perturbcore.embeddings.cell_models.pretrain import pretrain
    from perturbcore.embeddings.cell_models.tokens import control_cells

    lines = None if cell_line is None else [cell_line]
    cells = control_cells(
        screen, cell_lines=lines, max_cells=max_cells, max_genes=max_genes, seed=seed
    )
    trained = pretrain(
        cells, dim=dim, heads=heads, layers=layers, latents=latents, epochs=epochs, lr=lr,
        seed=seed, folder=models,
    )  # fmt: skip
    return frozen_embeddings(trained.encoder, cells)
