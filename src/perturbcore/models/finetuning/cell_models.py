"""A screen's own transformer with every way of using it, from plain numbers: what a chapter needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anndata import AnnData

from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.cell_models.frozen import frozen_embeddings
from perturbcore.embeddings.cell_models.huggingface import load_huggingface
from perturbcore.embeddings.cell_models.pretrain import Pretrained, pretrain
from perturbcore.embeddings.cell_models.tokens import ControlCells, control_cells
from perturbcore.models.finetuning.adapters import LoRA
from perturbcore.models.finetuning.models import CellModel, FrozenMLP, Indexing, InSilicoKO


@dataclass(frozen=True, eq=False)
class CellModels:
    """An encoder of cells and what is made with it.

    Attributes
    ----------
    cells : ControlCells
    pretrained : Pretrained or None
        None where the encoder is a checkpoint from elsewhere.
    embeddings : list of Embedding
        Frozen gene vectors of each line, for kNN.
    models : list of CellModel
        Frozen + MLP, indexing, in-silico knock-out.
    """

    cells: ControlCells
    pretrained: Pretrained | None
    embeddings: list[Embedding]
    models: list[CellModel]


def cell_models(
    screen: AnnData,
    *,
    targets: Sequence[str] = (),
    name: str = "Cell transformer",
    checkpoint: str = "",
    encoding: str = "bins",
    max_cells: int = 2000,
    max_genes: int | None = None,
    dim: int = 64,
    heads: int = 4,
    layers: int = 2,
    latents: int = 32,
    pretraining_epochs: int = 5,
    pretraining_lr: float = 3e-3,
    rank: int = 8,
    hidden: Sequence[int] = (1024, 2048),
    hidden_ko: Sequence[int] = (64, 32),
    lrs: Sequence[float] = (1e-2, 1e-3, 1e-4, 1e-5),
    epochs: int = 20,
    epochs_ko: int = 250,
    batch_size: int = 8,
    patience: int | None = None,
    n_cells: int = 16,
    n_eval: int = 128,
    asked: int | None = None,
    seed: int = 0,
    folder: Path | None = None,
    device: str = "auto",
) -> CellModels:
    """Pretrain an encoder on the control cells of a screen (or load one), and put it to use.

    Parameters
    ----------
    screen : AnnData
        A declared screen; only its control cells are read.
    targets : sequence of str
        Genes kept whatever `max_genes` is: the perturbations.
    name : str
        In tables and figures.
    checkpoint : str
        A folder or name on the hub to load instead of pretraining; see `load_huggingface`.
    encoding : str
        How such a checkpoint reads expression.
    max_cells, max_genes
        See `control_cells`.
    dim, heads, layers, latents, pretraining_epochs, pretraining_lr
        See `pretrain`.
    rank : int
        Of the adapters; 0 trains every weight.
    hidden, hidden_ko : sequence of int
        Widths of the heads.
    lrs, epochs, epochs_ko, batch_size, patience, n_cells, n_eval, asked
        See `FrozenMLP`, `Indexing`, `InSilicoKO`; the defaults are the published ones where the paper
        gives any.
    seed : int
    folder : path, optional
        Where the pretrained encoder is kept.
    device : str

    Returns
    -------
    CellModels

    References
    ----------
    Cole et al. 2026, 4.10.
    """
    cells = control_cells(screen, max_cells=max_cells, max_genes=max_genes, keep=targets, seed=seed)
    trained = None
    if checkpoint:
        encoder = load_huggingface(checkpoint, cells, encoding=encoding)
    else:
        trained = pretrain(
            cells, dim=dim, heads=heads, layers=layers, latents=latents, epochs=pretraining_epochs,
            lr=pretraining_lr, seed=seed, folder=folder, device=device,
        )  # fmt: skip
        encoder = trained.encoder
    common = dict(
        lrs=lrs, batch_size=batch_size, patience=patience, seed=seed, device=device, name=name
    )
    adapter = LoRA(rank, 2.0 * rank) if rank else None
    models = [
        FrozenMLP(encoder, cells, hidden=hidden, epochs=epochs, max_cells=n_eval, **common),
        Indexing(
            encoder, cells, hidden=hidden, epochs=epochs, adapter=adapter, n_cells=n_cells, n_eval=n_eval,
            **common,
        ),
        InSilicoKO(
            encoder, cells, hidden=hidden_ko, epochs=epochs_ko, adapter=adapter, asked=asked, **common
        ),
    ]  # fmt: skip
    return CellModels(
        cells, trained, frozen_embeddings(encoder, cells, name=name, max_cells=n_eval), models
    )
