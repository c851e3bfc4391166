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
from torch import Tensor, nn

from perturbcore.core.digest import digest
from perturbcore.core.errors import ParameterError
from perturbcore.core.training import Learner
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.cell_models import cells as encoders
from perturbcore.embeddings.cell_models.huggingface import load_huggingface
from perturbcore.embeddings.cell_models.tokens import ControlCells, control_cells
from perturbcore.models.finetuning.model import FineTuned, TrainingLabels, unsquared_l2


def head(n_in: int, hidden: Sequence[int], n_out: int, seed: int = 0) -> nn.Sequential:
    """Multilayer perceptron whose last layer begins at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = []
        for width in hidden:
            layers += [nn.Linear(n_in, width), nn.GELU()]
            n_in = width
        last = nn.Linear(n_in, n_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class Scaler(nn.Module):
    """Standardise embeddings by their mean and spread over genes, before any fine-tuning."""

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.register_buffer("centre", vectors.mean(0))
        self.register_buffer("scale", vectors.std(0).clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return (x - self.centre) / self.scale


class Objective(Learner):
    """Predict responses of a line, (b, g), from positions (b,), beginning at their `mean` (g,)."""

    def __init__(self, mean: np.ndarray, lr: float):
        super().__init__()
        self.mean, self.lr = nn.Parameter(torch.tensor(np.asarray(mean, dtype=np.float32))), lr

    def loss(self, batch) -> dict:
        """Un-squared L2 error."""
        return {"loss": unsquared_l2(self(batch["target"]), batch["response"])}


class FrozenHead(Objective):
    """Head on the vectors (n_genes, d) of a frozen encoder, standardised over genes."""

    def __init__(self, vectors: np.ndarray, mean, *, hidden=(1024, 2048), lr=1e-3, seed=0):
        super().__init__(mean, lr)
        table = torch.tensor(np.asarray(vectors, dtype=np.float32))
        self.register_buffer("table", Scaler(table)(table))
        self.head = head(table.shape[1], hidden, len(self.mean), seed)

    def forward(self, target):
        """See `Objective`."""
        return self.mean + self.head(self.table[target])


class IndexingHead(Objective):
    """Mean over control cells of the encoder's embedding of the target gene, then a head.

    Training draws `n_cells` anew in each step, else `n_eval` are the same (Cole et al. 2026,
    13-14).
    """

    def __init__(
        self, encoder, values, line, mean, *, n_cells=16, n_eval=128, hidden=(1024, 2048), lr=1e-3,
        seed=0,
    ):  # fmt: skip
        super().__init__(mean, lr)
        self.encoder, self.line, self.n_cells = encoder, line, n_cells
        values = torch.tensor(np.asarray(values, dtype=np.float32))
        self.register_buffer("cells", values, persistent=False)
        at = torch.from_numpy(encoders.spread_rows(len(values), n_eval))
        self.register_buffer("fixed", at, persistent=False)
        with torch.no_grad():
            self.scaler = Scaler(encoders.mean_over_cells(encoder(values[at[:32]], line)))
        self.head = head(encoder.dim, hidden, len(self.mean), seed)

    def forward(self, target):
        """See `Objective`."""
        rows = self.fixed
        if self.training:
            rows = torch.randperm(len(self.cells), device=self.cells.device)[: self.n_cells]
        embedded = encoders.mean_over_cells(self.encoder(self.cells[rows], self.line, target))
        return self.mean + self.head(self.scaler(embedded))


class KnockOutHead(Objective):
    """The average control profile without the target gene, embedded; one head reads every gene.

    `output` (g,): place of output genes, -1: none; `asked`: of a training step (Cole et al.,
    15-16).
    """

    def __init__(
        self, encoder, average, line, output, mean, *, asked=None, hidden=(64, 32), lr=1e-3,
        seed=0,
    ):  # fmt: skip
        super().__init__(mean, lr)
        self.encoder, self.line, self.asked = encoder, line, asked
        average = torch.tensor(np.asarray(average, dtype=np.float32))
        self.register_buffer("average", average, persistent=False)
        output = torch.from_numpy(np.asarray(output, dtype=np.int64))
        self.register_buffer("output", output, persistent=False)
        self.register_buffer("measured", torch.where(output >= 0)[0], persistent=False)
        with torch.no_grad():
            self.scaler = Scaler(encoder(average[None], line)[0])
        self.head = head(encoder.dim, hidden, 1, seed)

    def forward(self, target, genes=None):
        """Positions (b,) -> responses (b, g), or of the output genes `genes`."""
        read = self.measured if genes is None else genes
        values = self.average.repeat(len(target), 1)
        values[torch.arange(len(target), device=target.device), target] = 0.0
        embedded = self.encoder(values, self.line, self.output[read])
        change = self.head(self.scaler(embedded)).squeeze(-1)
        if genes is not None:
            return self.mean[genes] + change
        return self.mean.expand(len(target), -1).index_add(1, read, change)

    def loss(self, batch) -> dict:
        """Un-squared L2 error, over a draw of the measured output genes where `asked` is given."""
        truth, n = batch["response"], len(self.measured)
        if self.asked is None or self.asked >= n:
            return super().loss(batch)
        if self.training:
            genes = self.measured[torch.randperm(n, device=truth.device)[: self.asked]]
        else:
            genes = self.measured[
                torch.from_numpy(encoders.spread_rows(n, 2 * self.asked)).to(truth.device)
            ]
        error = unsquared_l2(self(batch["target"], genes), truth[:, genes])
        return {"loss": error * (truth.shape[1] / len(genes)) ** 0.5}


LRS = (1e-2, 1e-3, 1e-4, 1e-5)


class FineTunedCells(FineTuned):
    """What the three ways of using an encoder share.

    `hidden`: widths of the head; `rank`: of the adapters, see `adapt`; `options`: those of the way
    (`use` has their defaults), and of `FineTuned`.
    """

    tasks, validation, least, together, stream = ("lfc",), 0.2, 5, 64, 3
    use: dict

    def __init__(
        self, encoder, cells: ControlCells, *, hidden: Sequence[int], rank: int = 8, **options
    ):
        self.use = {k: options.pop(k, default) for k, default in self.use.items()}
        super().__init__(**options)
        self.encoder, self.cells = encoder, cells.take(encoder.genes)
        self.numbers = pd.Series(range(len(encoder.genes)), encoder.genes)
        self.hidden, self.rank = tuple(hidden), rank
        self.own = {"hidden": self.hidden, "rank": rank, **self.use}
        self._vectors: dict = {}

    @cached_property
    def digest(self) -> str:
        """Content of the encoder and of the control cells."""
        return digest(encoders.encoder_digest(self.encoder), self.cells.digest)

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

    predictor, use = "frozen + MLP", {"max_cells": 256}

    def _objective(self, line, mean, outputs, options):
        if line not in self._vectors:
            self._vectors[line] = encoders.gene_vectors(self.encoder, self.cells, line, **self.use)
        return FrozenHead(self._vectors[line], mean, **options)


class Indexing(FineTunedCells):
    """Fine-tuning by indexing: Cole et al. 2026, Eq. 13-14.

    A training step averages `n_cells` control cells, validation and prediction `n_eval`.
    """

    predictor, use = "indexing", {"n_cells": 16, "n_eval": 128}

    def _objective(self, line, mean, outputs, options):
        position, values = self.cells.position(line), self.cells.of(line)
        return IndexingHead(self._adapted(), values, position, mean, **self.use, **options)


class InSilicoKO(FineTunedCells):
    """Fine-tuning by in-silico knock-out: Cole et al. 2026, Eq. 15-16.

    The error of a training step is taken over `asked` output genes, drawn anew; None: all.
    """

    predictor, use = "in-silico KO", {"asked": None}

    def _objective(self, line, mean, outputs, options):
        position, output = self.cells.position(line), self.cells.genes.get_indexer(outputs)
        average = self.cells.mean[position]
        return KnockOutHead(self._adapted(), average, position, output, mean, **self.use, **options)


def adapt(encoder: nn.Module, rank: int, *, seed: int = 0) -> nn.Module:
    """Put low-rank adapters on an encoder in place; only they learn afterwards (Hu et al. 2022).

    They begin at zero, on the layers named `adaptable`, or all; with `rank` 0 every weight learns.
    """
    if rank < 0:
        raise ParameterError(f"rank={rank} must be at least 0")
    if not rank:
        return encoder.requires_grad_(True)
    from peft import LoraConfig, inject_adapter_in_model

    wanted = getattr(encoder, "adaptable", ())
    linear = [name for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear)]
    chosen = [name for name in linear if not wanted or name.rsplit(".", 1)[-1] in wanted]
    config = LoraConfig(r=rank, lora_alpha=2.0 * rank, target_modules=chosen)
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
    pretrained: encoders.Pretrained | None
    embeddings: list[Embedding]
    models: list[FineTuned]


def cell_models(
    screen: AnnData,
    *,
    name: str = "Cell transformer",
    checkpoint: str = "",
    encoding: str = "rank",
    max_cells: int = 2000,
    dim: int = 64,
    layers: int = 2,
    latents: int = 32,
    pretraining_epochs: int = 5,
    pretraining_lr: float = 3e-3,
    rank: int = 8,
    hidden: Sequence[int] = (1024, 2048),
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

    `checkpoint, encoding`: see `load_huggingface`; `hidden`: widths of the heads, but for in-silico
    knock-out; `folder`: where the pretrained encoder and the checkpoints of fine-tuning are kept.
    """
    cells = control_cells(screen, max_cells=max_cells, seed=seed)
    pretrained = None
    if checkpoint:
        encoder = load_huggingface(checkpoint, cells, encoding=encoding)
    else:
        pretrained = encoders.pretrain(
            cells, dim=dim, layers=layers, latents=latents, epochs=pretraining_epochs,
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
        InSilicoKO(encoder, cells, asked=asked, hidden=(64, 32), epochs=epochs_ko, **shared),
    ]
    embeddings = encoders.frozen_embeddings(encoder, cells, name=name, max_cells=n_eval)
    return CellModels(cells, pretrained, embeddings, models)
