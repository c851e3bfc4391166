"""Drawing cells: who is measured in which batch, and negative-binomial counts for each."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from tqdm import tqdm

from perturbcore.data.simulate.model import LIBRARY_SD, Model

CONTROL = "control"
_CHUNK = 2048


def draw_batches(model: Model, n_batches: int, seed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw batch shifts, and shares of control and perturbed cells that are confounded with them.

    Shifts are (n_cell_lines, n_batches, n_genes), log rate; shares (n_cell_lines, n_batches) sum
    to 1 over batches.
    """
    rng = np.random.default_rng(seed)
    n_lines, n_genes = model.baseline.shape
    shift = np.empty((n_lines, n_batches, n_genes))
    control, perturbed = (np.empty((n_lines, n_batches)) for _ in range(2))
    ramp = np.linspace(-1.0, 1.0, n_batches) if n_batches > 1 else np.zeros(1)
    for line in range(n_lines):
        position = rng.permutation(ramp)
        own = rng.normal(0.0, 0.7, (n_batches, n_genes))
        # batches late on the axis hold many perturbed and few control cells: pooling is biased
        moved = position[:, None] * model.batch_axis[line] + own
        shift[line] = model.settings.batch_effect * moved
        shift[line] -= shift[line].mean(0)
        control[line] = np.exp(-0.9 * position) / np.exp(-0.9 * position).sum()
        perturbed[line] = np.exp(0.4 * position) / np.exp(0.4 * position).sum()
    return shift, control, perturbed


def draw_design(model: Model, control_share, perturbed_share, seed) -> pd.DataFrame:
    """Draw one row per cell: integer codes of line, perturbation (-1 for control) and batch."""
    frames = []
    few, many = model.settings.cells_per_perturbation
    for line, stream in enumerate(seed.spawn(len(model.cell_lines))):
        rng = np.random.default_rng(stream)
        n_batches, n = control_share.shape[1], len(model.perturbations)
        n_cells = rng.integers(few, many + 1, n)
        share = rng.dirichlet(8.0 * n_batches * perturbed_share[line], n)
        counts = rng.multinomial(n_cells, share)
        spare = model.settings.n_control_cells - n_batches
        controls = 1 + rng.multinomial(spare, control_share[line])
        counts = np.concatenate([controls[None], counts])
        pert = np.repeat(np.arange(-1, n), counts.sum(1))
        batch = np.concatenate([np.repeat(np.arange(n_batches), row) for row in counts])
        order = rng.permutation(len(pert))
        frames.append(
            pd.DataFrame({"line": line, "perturbation": pert[order], "batch": batch[order]})
        )
    return pd.concat(frames, ignore_index=True)


def draw_cells(
    model: Model, design: pd.DataFrame, shift: np.ndarray, seed, progress: bool = False
) -> sp.csr_matrix:
    """Draw int32 counts of the cells of a design; at most 2,048 cells are ever dense."""
    n_cells, n_genes = len(design), len(model.genes)
    line, pert, batch = (design[c].to_numpy() for c in ("line", "perturbation", "batch"))
    moved = (model.baseline[:, None, :] + shift).astype(np.float32)
    shape = np.float32(1.0 / model.settings.dispersion)
    blocks = []
    starts = range(0, n_cells, _CHUNK)
    streams = seed.spawn(len(starts))
    for start, stream in zip(tqdm(starts, "cells", disable=not progress), streams, strict=True):
        rows = slice(start, min(start + _CHUNK, n_cells))
        rng = np.random.default_rng(stream)
        n = rows.stop - rows.start
        rate = rng.standard_normal((n, len(model.loadings)), dtype=np.float32) @ model.loadings
        rate += moved[line[rows], batch[rows]]
        treated = np.flatnonzero(pert[rows] >= 0)
        rate[treated] += model.effects[line[rows][treated], pert[rows][treated]]
        np.exp(rate, out=rate)
        library = rng.lognormal(np.log(model.settings.library_size), LIBRARY_SD, n)
        rate *= (library / rate.sum(1, dtype=np.float64)).astype(np.float32)[:, None]
        rate *= rng.standard_gamma(shape, rate.shape, dtype=np.float32)
        rate /= shape
        counts = rng.poisson(rate).astype(np.int32)
        r, c = np.nonzero(counts)
        kept = rng.random(len(c), dtype=np.float32) >= model.dropout.astype(np.float32)[c]
        r, c = r[kept], c[kept]
        # a cell with no count at all would never have been called a cell
        empty = np.flatnonzero(np.bincount(r, minlength=n) == 0)
        if len(empty):
            best = rate[empty].argmax(1)
            counts[empty, best] = np.maximum(counts[empty, best], 1)
            r, c = np.concatenate([r, empty]), np.concatenate([c, best])
        blocks.append(sp.csr_matrix((counts[r, c], (r, c)), shape=(n, n_genes), dtype=np.int32))
    return sp.vstack(blocks, format="csr", dtype=np.int32)


def as_screen(model: Model, design: pd.DataFrame, counts, dataset: str) -> AnnData:
    """Put counts and labels together as a screen (see `perturbcore.data.screens`)."""
    labels = np.array([*model.perturbations, CONTROL], dtype=object)
    n_batches = design["batch"].max() + 1
    width = max(2, len(str(n_batches)))
    names = np.array([f"batch{b + 1:0{width}d}" for b in range(n_batches)], dtype=object)
    obs = pd.DataFrame(
        {
            "perturbation": labels[design["perturbation"].to_numpy()],
            "batch": names[design["batch"].to_numpy()],
            "cell_line": np.array(model.cell_lines, dtype=object)[design["line"].to_numpy()],
            "is_control": (design["perturbation"] < 0).to_numpy(),
        },
        index=[f"cell{i + 1:06d}" for i in range(len(design))],
    )
    screen = AnnData(counts, obs=obs, var=pd.DataFrame(index=pd.Index(model.genes, dtype=object)))
    about = {"scale": "counts", "dataset": dataset, "identifier": "symbol", "simulated": True}
    screen.uns["perturbcore"] = about
    return screen
