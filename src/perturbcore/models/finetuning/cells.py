"""A pretrained encoder of cells and the three ways of using it: frozen, by index, by knock-out."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import nn

from perturbcore.core.digest import digest
from perturbcore.core.errors import ParameterError
from perturbcore.core.training.learner import Learner
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.cell_models.cells import (
    encoder_digest,
    frozen_embeddings,
    gene_vectors,
)
from perturbcore.embeddings.cell_models.huggingface import load_huggingface
from perturbcore.embeddings.cell_models.pretrain import Pretrained, pretrain
from perturbcore.embeddings.cell_models.tokens import ControlCells, control_cells
from perturbcore.models.finetuning.model import FineTuned, TrainingLabels
from perturbcore.models.finetuning.objectives import FrozenHead, IndexingHead, KnockOutHead

LRS = (1e-2, 1e-3, 1e-4, 1e-5)


class FineTunedCells(FineTuned):
    """What the three ways of using an encoder share.

    `hidden`: widths of the head; `rank`: of the adapters, see `adapt`; `use`: options of the way.
    """

    tasks, validation, least, together, stream = ("lfc",), 0.2, 5, 64, 3

    def __init__(
        self, encoder, cells: ControlCells, use: dict, *, hidden: Sequence[int], rank: int = 8,
        **training,
    ):  # fmt: skip
        super().__init__(**training)
        self.encoder, self.cells = encoder, cells.take(encoder.genes)
        self.use, self.hidden, self.rank = use, tuple(hidden), rank
        self.own = {"hidden": self.hidden, "rank": rank, **use}
        self._vectors: dict = {}

    @cached_property
    def digest(self) -> str:
        """Content of the encoder and of the control cells."""
        return digest(encoder_digest(self.encoder), self.cells.digest)

    def positions(self, names: Sequence[str]) -> np.ndarray:
        """Place of each perturbation among the encoder's genes."""
        return self.encoder.genes.get_indexer(pd.Index(names))

    def read(self, at: np.ndarray) -> dict:
        """Give the positions of the target genes."""
        return {"target": torch.from_numpy(at.astype(np.int64))}

    def objective(
        self, line: str, data: TrainingLabels, at: np.ndarray, outputs: list[str], lr: float
    ) -> Learner:
        """Copy the encoder, with a head that starts at the mean training response."""
        options = {"hidden": self.hidden, "lr": lr, "seed": self.seed}
        return self._objective(line, data.floor, outputs, options)

    def _adapted(self):
        return adapt(copy.deepcopy(self.encoder), self.rank, seed=self.seed)


class FrozenMLP(FineTunedCells):
    """Ablation: a head on the frozen encoder's gene vectors, averaged over `max_cells` controls."""

    predictor = "frozen + MLP"

    def __init__(self, encoder, cells, *, max_cells: int = 256, **options):
        super().__init__(encoder, cells, {"max_cells": max_cells}, **options)

    def _objective(self, line, mean, outputs, options):
        if line not in self._vectors:
            self._vectors[line] = gene_vectors(self.encoder, self.cells, line, **self.use)
        return FrozenHead(self._vectors[line], mean, **options)


class Indexing(FineTunedCells):
    """Fine-tuning by indexing: Cole et al. 2026, Eq. 13-14.

    A training step averages `n_cells` control cells, validation and prediction `n_eval`.
    """

    predictor = "indexing"

    def __init__(self, encoder, cells, *, n_cells: int = 16, n_eval: int = 128, **options):
        super().__init__(encoder, cells, {"n_cells": n_cells, "n_eval": n_eval}, **options)

    def _objective(self, line, mean, outputs, options):
        position, values = self.cells.position(line), self.cells.of(line)
        return IndexingHead(self._adapted(), values, position, mean, **self.use, **options)


class InSilicoKO(FineTunedCells):
    """Fine-tuning by in-silico knock-out: Cole et al. 2026, Eq. 15-16.

    The error of a training step is taken over `asked` output genes, drawn anew; None: all.
    """

    predictor = "in-silico KO"

    def __init__(self, encoder, cells, *, asked: int | None = None, **options):
        super().__init__(encoder, cells, {"asked": asked}, **options)

    def _objective(self, line, mean, outputs, options):
        position, output = self.cells.position(line), self.cells.genes.get_indexer(outputs)
        average = self.cells.mean[position]
        return KnockOutHead(self._adapted(), average, position, output, mean, **self.use, **options)


def adapt(encoder: nn.Module, rank: int, *, seed: int = 0) -> nn.Module:
    """Put low-rank adapters on an encoder in place; only they learn afterwards (Hu et al. 2022).

    They go on the linear layers that it names as `adaptable`, or on all, and begin at zero. With
    `rank` 0 there are no adapters, and every weight learns.
    """
    if rank < 0:
        raise ParameterError(f"rank={rank} must be at least 0")
    if not rank:
        return encoder.requires_grad_(True)
    from peft import LoraConfig, inject_adapter_in_model

    wanted = getattr(encoder, "adaptable", ())
    linear = [name for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear)]
    chosen = [name for name in linear if not wanted or name.rsplit(".", 1)[-1] in wanted]
    config = LoraConfig(
        r=rank, lora_alpha=2.0 * rank, lora_dropout=0.0, target_modules=chosen, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, encoder)
    for name, weight in encoder.named_parameters():
        weight.requires_grad_("lora_" in name)
    return encoder


@dataclass(frozen=True, eq=False)
class CellModels:
    """An encoder of cells (`pretrained`: None of a checkpoint), its vectors and models."""

    cells: ControlCells
    pretrained: Pretrained | None
    embeddings: list[Embedding]
    models: list[FineTuned]


def cell_models(
    screen: AnnData,
    *,
    targets: Sequence[str] = (),
    name: str = "Cell transformer",
    checkpoint: str = "",
    encoding: str = "rank",
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
    lrs: Sequence[float] = LRS,
    epochs: int = 20,
    epochs_ko: int = 250,
    batch_size: int = 8,
    patience: int | None = None,
    n_cells: int = 16,
    n_eval: int = 128,
    asked: int | None = None,
    seed: int = 0,
    folder: Path | None = None,
) -> CellModels:
    """Pretrain an encoder on the control cells of a screen (or load one), and put it to use.

    The defaults are the published ones where the paper gives any (Cole et al. 2026, 4.10).

    `targets`: genes kept whatever `max_genes` is; `checkpoint, encoding`: see `load_huggingface`;
    `hidden, hidden_ko`: widths of the heads, the latter of in-silico knock-out; `folder`: where the
    pretrained encoder and the checkpoints of fine-tuning are kept.
    """
    cells = control_cells(screen, max_cells=max_cells, max_genes=max_genes, keep=targets, seed=seed)
    pretrained = None
    if checkpoint:
        encoder = load_huggingface(checkpoint, cells, encoding=encoding)
    else:
        pretrained = pretrain(
            cells, dim=dim, heads=heads, layers=layers, latents=latents, epochs=pretraining_epochs,
            lr=pretraining_lr, seed=seed, folder=folder,
        )  # fmt: skip
        encoder = pretrained.encoder
    shared = dict(
        rank=rank, lrs=lrs, batch_sizes=[batch_size], patience=patience, seed=seed, folder=folder,
        name=name, modality="Expression",
    )  # fmt: skip
    wide = shared | {"hidden": hidden, "epochs": epochs}
    models = [
        FrozenMLP(encoder, cells, max_cells=n_eval, **wide),
        Indexing(encoder, cells, n_cells=n_cells, n_eval=n_eval, **wide),
        InSilicoKO(encoder, cells, asked=asked, hidden=hidden_ko, epochs=epochs_ko, **shared),
    ]
    embeddings = frozen_embeddings(encoder, cells, name=name, max_cells=n_eval)
    return CellModels(cells, pretrained, embeddings, models)
