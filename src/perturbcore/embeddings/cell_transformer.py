"""Embeddings of genes from a transformer pretrained on the control cells of the screen, left frozen."""

from pathlib import Path

from anndata import AnnData

from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.registry import register


@register("cell_transformer", kind="screen")
def cell_transformer(
    screen: AnnData,
    *,
    name: str,
    modality: str = "Expression",
    cell_line: str | None = None,
    models: Path | None = None,
    dim: int = 64,
    heads: int = 4,
    layers: int = 2,
    latents: int = 32,
    attention: str = "latent",
    start: str = "components",
    epochs: int = 5,
    lr: float = 3e-3,
    max_cells: int = 2000,
    max_genes: int | None = None,
    batch_centred: bool = True,
    seed: int = 0,
) -> list[Embedding]:
    """Train a transformer to fill in masked genes of control cells; average its gene embeddings.

    One encoder is trained on all cell lines; each line's embedding is the mean over its own control
    cells. No perturbed cell is looked at.

    Parameters
    ----------
    screen
        Cells x genes, in memory or backed.
    cell_line
        One line only, for training too; all by default.
    models
        Folder where the trained encoder is kept.
    dim, heads, layers, latents, attention, start, epochs, lr
        See `perturbcore.embeddings.cell_models.pretrain.pretrain`.
    max_cells, max_genes, batch_centred
        See `perturbcore.embeddings.cell_models.tokens.control_cells`.
    seed
        Draw of the cells, weights, batches, masks.

    Returns
    -------
    list of Embedding
        One a cell line; genes that no drawn cell expresses are left out.
    """
    from perturbcore.embeddings.cell_models.frozen import frozen_embeddings
    from perturbcore.embeddings.cell_models.pretrain import pretrain
    from perturbcore.embeddings.cell_models.tokens import control_cells

    cells = control_cells(
        screen,
        cell_lines=None if cell_line is None else [cell_line],
        max_cells=max_cells,
        max_genes=max_genes,
        batch_centred=batch_centred,
        seed=seed,
    )
    trained = pretrain(
        cells, dim=dim, heads=heads, layers=layers, latents=latents, attention=attention, start=start,
        epochs=epochs, lr=lr, seed=seed, folder=models,
    )  # fmt: skip
    return frozen_embeddings(trained.encoder, cells, name=name, modality=modality)
