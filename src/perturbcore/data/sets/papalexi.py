"""ECCITE-seq of THP-1 cells with raw counts, guides and replicates (Papalexi et al. 2021)."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.catalogue import fetch
from perturbcore.data.read import member, read_r
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.sets._make import responses_of
from perturbcore.data.sets.base import Card, Dataset, card_of

CONTROL = "non-targeting"


def load(
    min_fraction: float = 0.8,
    control: str = "global",
    batches: str = "all",
    n_folds: int = 5,
    seed: int = 0,
    path=None,
) -> Dataset:
    """Load the screen and its batch-aware effects.

    `min_fraction`: least share of a cell's gRNA UMIs that its leading gRNA must have, in [0,
    1). A cell whose two leading gRNAs tie has no assignment; `control, batches`: variant of the
    effect; see `perturbcore.data.effects.ba_ate`; `path`: another copy of the file; the
    catalogue's otherwise.

    Returns ``screen``: counts, cells x 299 genes; ``obs`` also has `guide` and `guide_umis`.

    Papalexi et al. 2021; the threshold of 0.8 is the default of Barry et al. 2024 for screens
    with one gRNA per cell.
    """
    if not 0 <= min_fraction < 1:
        raise ParameterError(f"min_fraction={min_fraction} is not in [0, 1)")
    path = path or fetch("papalexi", progress=False)
    counts, genes, guide_counts, guides, targets, replicate = _read(path)
    card = Card()
    card.step(
        "file",
        cells=counts.shape[0],
        perturbations=len(set(targets) - {CONTROL}),
        genes=counts.shape[1],
        batches=len(set(replicate)),
        note=f"{len(guides)} gRNAs, {int((targets == CONTROL).sum())} of them non-targeting",
    )
    guide, umis, share, tied = leading_guide(guide_counts)
    keep = (share > 0) & ~tied & (share >= min_fraction)
    if not keep.any():
        raise InputError(f"{path}: no cell passes min_fraction={min_fraction}; lower it")
    obs = pd.DataFrame(
        {
            "perturbation": targets[guide],
            "batch": replicate,
            "cell_line": "THP-1",
            "guide": guides[guide],
            "guide_umis": umis,
        },
        index=[f"cell{i + 1}" for i in range(counts.shape[0])],
    )[keep]
    screen = declare_screen(
        AnnData(counts[keep], obs=obs, var=pd.DataFrame(index=genes)),
        dataset="papalexi",
        control=CONTROL,
        scale="counts",
    )
    card.step_of(
        "one gRNA a cell",
        screen,
        note=f"{int((~keep).sum()):,} cells dropped: leading gRNA below {min_fraction:g} of UMIs, "
        f"or tied; {int(screen.obs['is_control'].sum()):,} control cells",
    )
    responses = responses_of(screen, control=control, batches=batches, n_folds=n_folds, seed=seed)
    return Dataset(
        name="papalexi",
        task="lfc",
        screen=screen,
        responses=responses,
        card=card.frame(),
        **card_of("papalexi"),
    )


def leading_guide(counts: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the gRNA with most UMIs in every cell.

    Returns per cell: the column of the leading gRNA, its count, its share of the cell's gRNA UMIs
    (0 where the cell has none), and whether another gRNA has as many.
    """
    counts = sp.csr_matrix(counts)
    guide = np.asarray(counts.argmax(axis=1)).ravel()
    umis = counts.max(axis=1).toarray().ravel()
    total = np.asarray(counts.sum(axis=1)).ravel()
    share = np.divide(umis, total, out=np.zeros(len(total)), where=total > 0)
    leads = counts.copy()
    leads.data = (leads.data == np.repeat(umis, np.diff(leads.indptr))).astype(np.int64)
    tied = np.asarray(leads.sum(axis=1)).ravel() > 1
    return guide, umis.astype(np.int64), share, tied


def _read(path):
    data = read_r(path, "lowmoi_example_data")
    counts, genes = _matrix(path, data, "response_matrix")
    guide_counts, guides = _matrix(path, data, "grna_matrix")
    table = member(path, data, "grna_target_data_frame")
    ids, names = (member(path, table, c).astype(str) for c in ("grna_id", "grna_target"))
    of_guide = dict(zip(ids, names, strict=True))
    unknown = [g for g in guides if g not in of_guide]
    if unknown:
        raise InputError(f"{path}: gRNA '{unknown[0]}' is not in column 'grna_id'")
    replicate = np.asarray(member(path, data, "extra_covariates", "bio_rep").astype(str))
    if not counts.shape[0] == guide_counts.shape[0] == len(replicate):
        raise InputError(
            f"{path}: response_matrix, grna_matrix and extra_covariates have "
            f"{counts.shape[0]}, {guide_counts.shape[0]} and {len(replicate)} cells"
        )
    targets = np.array([of_guide[g] for g in guides])
    return counts, genes, guide_counts, guides, targets, replicate


def _matrix(path, data, name: str):
    """Return a sparse R matrix, turned to cells in rows, and the names of its columns."""
    parts = ("i", "j", "x", "Dim", "Dimnames")
    i, j, x, shape, names = (member(path, data, name, part) for part in parts)
    matrix = sp.coo_matrix((x, (i, j)), shape=tuple(int(n) for n in shape))
    return matrix.T.tocsr().astype(np.float32), np.array([str(n) for n in names[0]])
