"""ECCITE-seq of THP-1 cells with raw counts, guides and replicates (Papalexi et al. 2021)."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.data.catalogue import fetch
from perturbcore.data.read import member, read_r
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.sets._make import controls_said, responses_of
from perturbcore.data.sets.base import Card, Dataset, make_dataset

CONTROL = "non-targeting"
MIN_FRACTION = 0.8  # of UMIs that the leading gRNA of a cell must have


def load(n_folds: int = 5, seed: int = 0) -> Dataset:
    """Load the cells with one gRNA, and their effects."""
    path = fetch("papalexi")
    cells, guide_counts, guides, targets = _read(path)
    card = Card()
    note = f"{len(guides)} gRNAs, {int((targets == CONTROL).sum())} of them non-targeting"
    counts = dict(cells=cells.n_obs, genes=cells.n_vars, batches=cells.obs["batch"].nunique())
    card.step("file", note=note, perturbations=len(set(targets) - {CONTROL}), **counts)
    guide, umis, share, tied = leading_guide(guide_counts)
    cells.obs = cells.obs.assign(
        perturbation=targets[guide], guide=guides[guide], guide_umis=umis, cell_line="THP-1"
    )
    keep = ~tied & (share >= MIN_FRACTION)
    screen = declare_screen(cells[keep].copy(), dataset="papalexi", control=CONTROL, scale="counts")
    dropped = f"{int((~keep).sum()):,} cells dropped: leading gRNA below {MIN_FRACTION:g} of UMIs"
    card.step_of("one gRNA a cell", screen, f"{dropped}, or tied; {controls_said(screen)}")
    responses = responses_of(screen, n_folds, seed)
    return make_dataset(responses, card, screen=screen)


def leading_guide(counts: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the gRNA with most UMIs in every cell: its column, count, share, and whether it ties."""
    guide = np.asarray(counts.argmax(axis=1)).ravel()
    umis = counts.max(axis=1).toarray().ravel()
    total = np.asarray(counts.sum(axis=1)).ravel()
    share = np.divide(umis, total, out=np.zeros(len(total)), where=total > 0)
    rows = np.repeat(np.arange(len(umis)), np.diff(counts.indptr))
    leads = np.bincount(rows, counts.data == umis[rows], minlength=len(umis))
    return guide, umis.astype(np.int64), share, leads > 1


def _read(path) -> tuple[AnnData, sp.csr_matrix, np.ndarray, np.ndarray]:
    """Cells with their replicate as batch; gRNA counts per cell, names and targets of gRNAs."""
    data = read_r(path, "lowmoi_example_data")
    counts, genes = _matrix(path, data, "response_matrix")
    guide_counts, guides = _matrix(path, data, "grna_matrix")
    table = member(path, data, "grna_target_data_frame")
    ids, names = (member(path, table, c).astype(str) for c in ("grna_id", "grna_target"))
    targets = pd.Series(list(names), index=list(ids))[guides].to_numpy()
    replicate = np.asarray(member(path, data, "extra_covariates", "bio_rep").astype(str))
    obs = pd.DataFrame({"batch": replicate}, index=[f"cell{i + 1}" for i in range(len(replicate))])
    cells = AnnData(counts, obs=obs, var=pd.DataFrame(index=genes))
    return cells, guide_counts, guides, targets


def _matrix(path, data, name: str):
    """Return a sparse R matrix, turned to cells in rows, and the names of its columns."""
    parts = ("i", "j", "x", "Dim", "Dimnames")
    i, j, x, shape, names = (member(path, data, name, part) for part in parts)
    matrix = sp.coo_matrix((x, (i, j)), shape=tuple(int(n) for n in shape))
    return matrix.T.tocsr().astype(np.float32), np.array([str(n) for n in names[0]])
