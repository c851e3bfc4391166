"""Pretraining and fine-tuning of the cell transformer: seconds per epoch, and peak memory."""

import numpy as np
import pandas as pd
import torch
from reporter import main, peak_mb, row, timed

from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.embeddings.cell_models.cells import pretrain
from perturbcore.embeddings.cell_models.tokens import ControlCells
from perturbcore.models.finetuning.cells import Indexing, InSilicoKO
from perturbcore.score.model import Fold

SIZES = dict(dim=32, heads=4, layers=1, latents=16)


def random_cells(n, g, seed=0):
    """Cells with ten planted factors; the time does not depend on what they say."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 10)) @ rng.normal(size=(10, g)) * 0.2 + rng.normal(size=(n, g)) + 3
    values = values.clip(0).astype(np.float32)
    genes = pd.Index([f"g{i}" for i in range(g)])
    mean, sd = values.mean(0)[None], values.std(0).clip(0.1)[None]
    return ControlCells(values, np.zeros(n, dtype=np.int64), mean, sd, ("line",), genes)


def pretraining(n, g, device):
    """Seconds of the second epoch: the first one also warms up."""
    trained = pretrain(random_cells(n, g), epochs=2, asked=128, device=device, **SIZES)
    seconds = float(np.diff(trained.history["seconds"])[-1])
    return alone(f"an epoch of pretraining, {n} cells x {g} genes, {device}", seconds)


def forward(n, g):
    """Seconds to embed every gene of `n` cells, without gradients."""
    from perturbcore.embeddings.cell_models.cells import CellTransformer

    cells = random_cells(n, g)
    encoder = CellTransformer(cells.genes, cells.mean, cells.sd, **SIZES)
    values = torch.from_numpy(cells.values)
    with torch.no_grad():
        encoder(values[:2])
        _, seconds = timed(lambda: [encoder(part) for part in values.split(16)])
    return alone(f"all genes of {n} cells x {g} genes", seconds)


def tuning(kind, n_perturbations, g):
    """Seconds per epoch over perturbations, batch 8, validation included."""
    cells = random_cells(200, g)
    encoder = pretrain(cells, epochs=1, **SIZES).encoder
    model = kind(
        encoder, cells, hidden=(1024, 2048), name="CT", modality="Expression", lrs=(1e-3,),
        batch_sizes=(8,), epochs=3,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    names = cells.genes[rng.permutation(g)[: n_perturbations + 1]]
    obs = pd.DataFrame({"perturbation": names, "cell_line": "line"})
    Y = rng.normal(size=(len(names), g)).astype(np.float32)
    responses = make_responses(Y, obs, list(cells.genes), dataset="random")
    fold = Fold.of(add_folds(responses, 5), 0)
    _, seconds = timed(lambda: model.fit(fold).predict(fold))
    size = f"{len(names) - 1} perturbations x {g} genes"
    return alone(f"an epoch of {model.predictor}, {size}", seconds / 3)


def alone(task, seconds):
    return row(task, "none: nothing else does it", seconds, ours_peak_mb=peak_mb())


def cases(options):
    """Yield the rows."""
    device = "gpu" if options.device == "cuda" else "cpu"
    genes, cells = ([250, 500], 64) if options.small else ([250, 1000, 4000], 256)
    for g in genes:
        yield pretraining(cells, g, device)
        yield forward(cells, g)
    for g in genes:
        for kind in (Indexing, InSilicoKO):
            yield tuning(kind, 64 if options.small else 240, g)


if __name__ == "__main__":
    main(__doc__, cases)
