"""Masked-expression pretraining of the cell transformer on control cells."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from sklearn.utils.extmath import randomized_svd

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError, ParameterError
from perturbcore.core.training.batches import Batches
from perturbcore.core.training.fit import fit
from perturbcore.core.training.learner import Learner, cosine_after_warmup
from perturbcore.embeddings.cell_models.cells import LARGEST, CellTransformer
from perturbcore.embeddings.cell_models.tokens import ControlCells

STARTS = ("components", "random")
ENCODER = "encoder.safetensors"


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A pretrained encoder and how well it fills in masked genes.

    Attributes
    ----------
    encoder : CellTransformer
        Frozen: no parameter asks for a gradient.
    history : pandas.DataFrame
        One row an epoch; `val` is `error` in that epoch.
    error, error_of_mean : float
        Mean squared error of masked genes in held-out control cells, in units of the variance of each
        gene: of the encoder, and of predicting each gene's mean in the line.
    seconds : float
    """

    encoder: CellTransformer
    history: pd.DataFrame
    error: float
    error_of_mean: float
    seconds: float


class MaskedExpression(Learner):
    """Predict the expression of masked genes from the other genes of the cell."""

    def __init__(self, encoder: CellTransformer, lr: float, steps: int):
        super().__init__()
        self.encoder, self.lr, self.steps = encoder, lr, steps

    def loss(self, batch) -> dict:
        """Mean squared error of the masked genes, in standard deviations."""
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
    cells: ControlCells,
    *,
    dim: int = 64,
    heads: int = 4,
    layers: int = 2,
    latents: int = 32,
    attention: str = "latent",
    start: str = "components",
    epochs: int = 5,
    batch_size: int = 32,
    lr: float = 3e-3,
    masked: float = 0.5,
    asked: int = 128,
    validation: float = 0.1,
    seed: int = 0,
    folder: Path | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Pretrained:
    """Train a cell transformer to fill in masked genes of control cells.

    In each batch a random share of the genes is masked: their values are never read, and the encoder
    predicts `asked` of them from the others. Perturbed cells take no part.

    Parameters
    ----------
    cells : ControlCells
    dim, heads, layers, latents, attention
        See `CellTransformer`.
    start : {"components", "random"}
        Initial gene vectors: principal components of the genes over the same cells (brought to equal
        length), from which masked prediction converges in few epochs; or random numbers.
    epochs, batch_size : int
        Batch size in cells.
    lr : float
        Highest learning rate.
    masked : float
        Share of genes masked, in (0, 1).
    asked : int
        Masked genes predicted in each batch; fewer take less time.
    validation : float
        Share of cells held out to choose the epoch and report the error.
    seed : int
        Weights, held-out cells, batches, masks.
    folder : path, optional
        Where trained encoders are kept, each under its content key; a finished one is loaded and a
        killed training goes on.
    device : str
        "auto", "cpu", "gpu".
    progress : bool

    Returns
    -------
    Pretrained

    Raises
    ------
    ParameterError
        A number is out of range.
    """
    if start not in STARTS:
        raise ParameterError(f"start={start!r} is not one of {', '.join(STARTS)}")
    n, g = cells.values.shape
    n_masked, n_out = int(round(masked * g)), int(round(validation * n))
    if not 0 < n_masked < g or not 0 < n_out < n or epochs < 1 or asked < 1:
        raise ParameterError(
            f"masked={masked}, validation={validation} (of {g} genes, {n} cells), epochs={epochs} and "
            f"asked={asked}: shares must leave something on both sides, numbers be at least 1"
        )
    spec = dict(dim=dim, heads=heads, layers=layers, latents=latents, attention=attention, start=start,
                epochs=epochs, batch_size=batch_size, lr=lr, masked=masked, asked=asked,
                validation=validation, seed=seed)  # fmt: skip
    begin = components(cells, dim, seed) if start == "components" else None
    encoder = CellTransformer(
        cells.genes, cells.mean, cells.sd, cells.lines,
        dim=dim, heads=heads, layers=layers, latents=latents, attention=attention, seed=seed, start=begin,
    )  # fmt: skip
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
               device=device, seed=seed, progress=progress)  # fmt: skip
    encoder.requires_grad_(False).eval()
    if kept is not None and not (kept / ENCODER).exists():
        save_encoder(encoder, kept / ENCODER)
    return Pretrained(
        encoder, done.history, float(done.history["val"].min()), of_mean, done.seconds
    )


def components(cells: ControlCells, dim: int, seed: int = 0) -> np.ndarray:
    """Principal components of genes over control cells, every gene's vector of length sqrt(dim).

    Parameters
    ----------
    cells : ControlCells
    dim : int
        Components; where there are fewer cells or genes, and for genes that never vary, the rest is
        filled with normal random numbers.
    seed : int

    Returns
    -------
    (n_genes, dim) float32 array
    """
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
    parts = list(batches.epoch(0))
    truth = [encoder.standardised(b["values"], b["line"])[:, b["query"]] for b in parts]
    return float(
        np.average([z.square().mean().item() for z in truth], weights=[len(z) for z in truth])
    )


def save_encoder(encoder: CellTransformer, path: Path) -> None:
    """Write an encoder to one safetensors file, its genes, lines and sizes in the header."""
    about = {"genes": list(encoder.genes), "lines": list(encoder.lines), "config": encoder.config}
    save_file(
        {k: v.contiguous() for k, v in encoder.state_dict().items()},
        path,
        metadata={"perturbcore": json.dumps(about)},
    )


def load_encoder(path: Path) -> CellTransformer:
    """Read an encoder that `save_encoder` wrote.

    Raises
    ------
    InputError
        The file is not there, or is not such an encoder.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; perturbcore.embeddings.cell_models.pretrain.pretrain makes one"
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["perturbcore"])
        weights = load_file(path)
        encoder = CellTransformer(about["genes"], weights["mean"].numpy(), weights["sd"].numpy(),
                                  about["lines"], **about["config"])  # fmt: skip
        encoder.load_state_dict(weights)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not an encoder of cells ({error}); pretrain it again") from error
    return encoder.requires_grad_(False).eval()
