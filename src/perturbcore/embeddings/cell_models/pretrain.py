"""Masked-expression pretraining of the cell transformer on control cells."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.utils.extmath import randomized_svd

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import ParameterError
from perturbcore.core.training import Batches, Learner, cosine_after_warmup, fit
from perturbcore.embeddings.cell_models.cells import LARGEST, CellTransformer
from perturbcore.embeddings.cell_models.tokens import ControlCells

MASKED, HELD_OUT = 0.5, 0.1  # share of the genes masked, share of the cells held out


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A frozen encoder; squared error of held-out cells' masked genes, in their variances."""

    encoder: CellTransformer
    history: pd.DataFrame
    error: float
    error_of_mean: float
    seconds: float


class MaskedExpression(Learner):
    """Predict masked genes from the other genes of the cell; error in standard deviations."""

    def __init__(self, encoder: CellTransformer, lr: float, steps: int):
        super().__init__()
        self.encoder, self.lr, self.steps = encoder, lr, steps

    def loss(self, batch) -> dict:
        """Mean squared error of the masked genes."""
        query = batch["query"]
        embedded = self.encoder(batch["values"], batch["line"], query, batch["visible"])
        truth = self.encoder.standardised(batch["values"], batch["line"])[:, query]
        return {"loss": (self.encoder.predict(embedded, query) - truth).square().mean()}

    def optimizer(self):
        """AdamW without weight decay."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.0, fused=True)

    def schedule(self, optimizer):
        """Warm up over a tenth of the batches, then fall to zero."""
        return cosine_after_warmup(optimizer, max(1, self.steps // 10), self.steps)


def pretrain(
    cells: ControlCells, *, dim: int = 64, heads: int = 4, layers: int = 2, latents: int = 32,
    epochs: int = 5, batch_size: int = 32, lr: float = 3e-3, asked: int = 128, seed: int = 0,
    folder: Path | None = None, device: str = "auto",
) -> Pretrained:  # fmt: skip
    """Train a cell transformer to fill in masked genes of control cells; see `CellTransformer`.

    In each batch a random half of the genes is never read, and `asked` of them are predicted. Gene
    vectors start as principal components; a tenth of the cells is held out to choose the epoch.
    Trained encoders are kept in `folder`: a killed training goes on.
    """
    n, g = cells.values.shape
    n_masked, n_out = int(round(MASKED * g)), int(round(HELD_OUT * n))
    if not 0 < n_masked < g or not 0 < n_out < n or epochs < 1 or asked < 1:
        raise ParameterError(
            f"{g} genes, {n} cells, epochs={epochs} and asked={asked}: masked genes and held-out "
            "cells must leave something on both sides, numbers be at least 1"
        )
    sizes = dict(dim=dim, heads=heads, layers=layers, latents=latents, seed=seed)
    spec = sizes | dict(epochs=epochs, batch_size=batch_size, lr=lr, asked=asked)
    start = components(cells, dim, seed)
    encoder = CellTransformer(cells.genes, cells.mean, cells.sd, start=start, **sizes)
    order = np.random.default_rng([seed, 1]).permutation(n)
    values, line = torch.from_numpy(cells.values), torch.from_numpy(cells.line)

    def batches(rows: np.ndarray, shuffle: bool) -> Batches:
        def make(index, rng):
            genes = rng.permutation(g)
            hidden, visible = genes[:n_masked], np.sort(genes[n_masked:])
            at = torch.from_numpy(rows[index])
            return {
                "values": values[at],
                "line": line[at],
                "query": torch.from_numpy(hidden[:asked].copy()),
                "visible": torch.from_numpy(visible),
            }

        return Batches(len(rows), batch_size, make, seed=seed, shuffle=shuffle)

    train, held_out = batches(np.sort(order[n_out:]), True), batches(np.sort(order[:n_out]), False)
    learner = MaskedExpression(encoder, lr, epochs * len(train))
    of_mean = _error_of_mean(encoder, held_out)
    key = digest(spec, cells.digest, code_digest("perturbcore.embeddings.cell_models.pretrain"))
    kept = Path(folder) / f"cell-transformer-{key}" if folder is not None else None
    done = fit(learner, train, held_out, max_epochs=epochs, folder=kept, key=key, grad_clip=1.0,
               device=device, seed=seed)  # fmt: skip
    encoder.requires_grad_(False).eval()
    best = float(done.history["val"].min())
    return Pretrained(encoder, done.history, best, of_mean, done.seconds)


def components(cells: ControlCells, dim: int, seed: int = 0) -> np.ndarray:
    """Principal components of genes over control cells, (n_genes, dim), of length sqrt(dim)."""
    z = ((cells.values - cells.mean[cells.line]) / cells.sd[cells.line]).clip(-LARGEST, LARGEST)
    size = min(dim, min(z.shape))
    _, s, vt = randomized_svd(z, size, random_state=seed)
    out = np.random.default_rng([seed, 2]).standard_normal((z.shape[1], dim))
    varies = np.ptp(z, axis=0) > 0
    out[varies, :size] = (vt.T * s)[varies]
    if size < dim:
        out[:, size:] *= 0.01
    out *= np.sqrt(dim) / np.linalg.norm(out, axis=1, keepdims=True)
    return out.astype(np.float32)


@torch.no_grad()
def _error_of_mean(encoder, batches: Batches) -> float:
    truth = [encoder.standardised(b["values"], b["line"])[:, b["query"]] for b in batches.epoch(0)]
    errors = [z.square().mean().item() for z in truth]
    return float(np.average(errors, weights=[len(z) for z in truth]))
