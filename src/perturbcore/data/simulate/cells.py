"""Drawing cells: who is measured in which batch, and negative-binomial counts for each."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from tqdm import tqdm

from perturbcore.data.simulate.model import Model

CONTROL = "control"
_CHUNK = 2048


def draw_batches(model: Model, n_batches: int, seed: np.random.SeedSequence) -> dict:
    """Draw batch shifts, and shares of control and perturbed cells that are confounded with them.

    Returns ``shift`` (n_cell_lines, n_batches, n_genes) on the log-rate scale;
    ``control_share`` and ``perturbed_share`` (n_cell_lines, n_batches), each summing to 1 over
    batches.
    """
    rng = np.random.default_rng(seed)
    n_lines, n_genes = len(model.cell_lines), len(model.genes)
    shift = np.empty((n_lines, n_batches, n_genes))
    control = np.empty((n_lines, n_batches))
    perturbed = np.empty((n_lines, n_batches))
    ramp = np.linspace(-1.0, 1.0, n_batches) if n_batches > 1 else np.zeros(1)
    for line in range(n_lines):
        position = rng.permutation(ramp)
        own = rng.normal(0.0, 0.7, (n_batches, n_genes))
        # batches late on the axis hold many perturbed and few control cells: pooling is biased
        shift[line] = model.batch_effect * (position[:, None] * model.batch_axis[line] + own)
        shift[line] -= shift[line].mean(0)
        control[line] = np.exp(-0.9 * position) / np.exp(-0.9 * position).sum()
        perturbed[line] = np.exp(0.4 * position) / np.exp(0.4 * position).sum()
    return {"shift": shift, "control_share": control, "perturbed_share": perturbed}


def draw_design(
    model: Model,
    batches: dict,
    cell_lines: list,
    perturbations: list,
    cells: tuple,
    n_control_cells: int,
    seed: np.random.SeedSequence,
) -> pd.DataFrame:
    """Draw one row a cell: integer codes of line, perturbation (-1 for control) and batch."""
    frames = []
    code = {p: i for i, p in enumerate(model.perturbations)}
    codes = np.array([code[p] for p in perturbations])
    # one stream a line, so that asking for fewer lines leaves the others as they were
    streams = seed.spawn(len(model.cell_lines))
    for name in cell_lines:
        line = model.cell_lines.index(name)
        rng = np.random.default_rng(streams[line])
        n_batches = batches["shift"].shape[1]
        n_cells = rng.integers(cells[0], cells[1] + 1, len(codes))
        share = rng.dirichlet(8.0 * n_batches * batches["perturbed_share"][line], len(codes))
        counts = rng.multinomial(n_cells, share)
        spare = n_control_cells - n_batches
        controls = 1 + rng.multinomial(spare, batches["control_share"][line])
        counts = np.concatenate([controls[None], counts])
        pert = np.repeat(np.concatenate([[-1], codes]), counts.sum(1))
        batch = np.concatenate([np.repeat(np.arange(n_batches), row) for row in counts])
        order = rng.permutation(len(pert))
        frames.append(
            pd.DataFrame({"line": line, "perturbation": pert[order], "batch": batch[order]})
        )
    return pd.concat(frames, ignore_index=True)


def draw_cells(
    model: Model,
    design: pd.DataFrame,
    shift: np.ndarray,
    seed: np.random.SeedSequence,
    progress: bool = False,
) -> sp.csr_matrix:
    """Draw counts, chunk by chunk so that at most 2,048 cells are ever dense.

    `design`: from :func:`draw_design`; `shift` (n_cell_lines, n_batches, n_genes).

    Returns csr_matrix of int32, shape (n_cells, n_genes).
    """
    n_cells, n_genes = len(design), len(model.genes)
    line, pert, batch = (design[c].to_numpy() for c in ("line", "perturbation", "batch"))
    moved = (model.baseline[:, None, :] + shift).astype(np.float32)
    shape = np.float32(1.0 / model.dispersion)
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
        library = rng.lognormal(np.log(model.library_size), model.library_sd, n)
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
        block = sp.csr_matrix((counts[r, c], (r, c)), shape=(n, n_genes), dtype=np.int32)
        blocks.append(block)
    return sp.vstack(blocks, format="csr", dtype=np.int32)


def as_screen(model: Model, design: pd.DataFrame, counts, dataset: str) -> AnnData:
    """Put counts and labels together as a screen (see `perturbcore.data.screens`)."""
    labels = np.array([*model.perturbations, CONTROL], dtype=object)
    lines = np.array(model.cell_lines, dtype=object)
    width = len(str(design["batch"].max() + 1))
    names = [f"batch{b + 1:0{max(2, width)}d}" for b in range(design["batch"].max() + 1)]
    obs = pd.DataFrame(
        {
            "perturbation": labels[design["perturbation"].to_numpy()],
            "batch": np.array(names, dtype=object)[design["batch"].to_numpy()],
            "cell_line": lines[design["line"].to_numpy()],
            "is_control": (design["perturbation"] < 0).to_numpy(),
        },
        index=[f"cell{i + 1:06d}" for i in range(len(design))],
    )
    var = pd.DataFrame(index=pd.Index(model.genes, dtype=object))
    screen = AnnData(X=counts, obs=obs, var=var)
    screen.uns["perturbcore"] = {
        "scale": "counts",
        "dataset": dataset,
        "identifier": "symbol",
        "simulated": True,
    }
    return screen
