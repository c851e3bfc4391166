"""An encoder of cells over all cells of a screen, a batch at a time, on any device."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from anndata import AnnData
from torch import nn
from tqdm import tqdm

from perturbcore.core.errors import ParameterError
from perturbcore.core.files import replaced
from perturbcore.embeddings.cell_models.cells import cells_with
from perturbcore.embeddings.cell_models.tokens import log_normalised

SAVED_EVERY = 50  # batches


def placed(encoder: nn.Module, device: str, dtype: str) -> nn.Module:
    """Put an encoder on a device ("auto": a GPU if there is one), its model in `dtype`."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ParameterError("device='cuda': there is no CUDA device; use cpu or auto")
    encoder = encoder.to(device).requires_grad_(False).eval()
    # ranks and sums need the precision that products can do without
    encoder.model.to(getattr(torch, dtype))
    return encoder


@torch.inference_mode()
def streamed_means(
    encoder: nn.Module, screen: AnnData, rows: np.ndarray, batch_size: int,
    kept: Path | None = None,
) -> np.ndarray:  # fmt: skip
    """Mean of each gene's embeddings over cells that have it (Eq. 10, 11); `kept` goes on."""
    columns = screen.var_names.get_indexer(encoder.genes)
    device = next(encoder.parameters()).device
    start, total, count = _so_far(kept, len(encoder.genes), encoder.dim)
    with tqdm(total=len(rows), initial=start, unit="cell", disable=None) as bar:
        for number, first in enumerate(range(start, len(rows), batch_size), start=1):
            block = log_normalised(screen, rows[first : first + batch_size])[:, columns]
            values = torch.from_numpy(block.toarray()).to(device, torch.float32)
            embedded = encoder(values)
            total += embedded.sum(0, dtype=torch.float64).cpu().numpy()
            count += cells_with(embedded).cpu().numpy()
            done = min(first + batch_size, len(rows))
            if kept is not None and (number % SAVED_EVERY == 0 or done == len(rows)):
                kept.parent.mkdir(parents=True, exist_ok=True)
                with replaced(kept) as path, open(path, "wb") as handle:
                    np.savez(handle, done=done, total=total, count=count)
            bar.update(done - first)
    return (total / np.maximum(count, 1)).astype(np.float32)


def _so_far(kept: Path | None, n: int, d: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Take up the sums of a killed run, or begin with zeros."""
    if kept is not None and kept.is_file():
        try:
            with np.load(kept, allow_pickle=False) as saved:
                return int(saved["done"]), saved["total"], saved["count"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # damaged: begin anew
    return 0, np.zeros((n, d)), np.zeros((n, 1))


@torch.inference_mode()
def knock_outs(encoder: nn.Module, average: np.ndarray, batch_size: int) -> np.ndarray:
    """Change of the mean embedding of all other genes as each is set to zero, (n_genes, d)."""
    device = next(encoder.parameters()).device
    cell = torch.as_tensor(average).to(device, torch.float32).clamp_min(0)
    before = encoder(cell[None])[0].double()
    total, out = before.sum(0), np.zeros((len(cell), encoder.dim), np.float32)
    for at in torch.nonzero(cell)[:, 0].split(batch_size):
        without = cell.repeat(len(at), 1)
        without[torch.arange(len(at)), at] = 0
        after = encoder(without).double()
        own = after[torch.arange(len(at)), at]
        change = (after.sum(1) - own) - (total - before[at])
        out[at.cpu().numpy()] = (change / max(len(cell) - 1, 1)).float().cpu().numpy()
    return out


def input_vectors(encoder: nn.Module) -> np.ndarray:
    """Vectors of the genes in the table that the model starts from, (n_genes, d)."""
    table = encoder.model.get_input_embeddings()
    if table is None:
        raise ParameterError("use='input': this model has no table of input vectors")
    return table.weight[encoder.tokens].float().cpu().numpy()
