"""ECCITE-seq of THP-1 cells with raw counts, guides and replicates (Papalexi et al. 2021)."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.catalogue import fetch
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.sets._effects import responses_of
from perturbcore.data.sets._read import member, read_r
from perturbcore.data.sets.base import Card, Dataset

SOURCE = "papalexi"
OBJECT = "lowmoi_example_data"
CONTROL = "non-targeting"
NOTES = (
    "Raw UMI counts, but of 299 chosen genes only: a cell's total count is the total over these "
    "genes, so normalised values are noisier than in the whole screen.",
    "Batches are the three biological replicates; lanes are not in the file.",
    "25 related targets (interferon and PD-L1 regulation) suffice for effects and noise ceilings, "
    "not for ranking embeddings; of the 26th, CD274, the file has no cell.",
    "The file has gRNA counts, not assignments: a cell is given to the gRNA with most UMIs and "
    "dropped where that one has too small a share of them. Without that filter the assignment has "
    "2,386 control cells.",
)


def load(
    min_fraction: float = 0.8,
    control: str = "global",
    batches: str = "all",
    n_folds: int = 5,
    seed: int = 0,
    effects: bool = True,
    path=None,
) -> Dataset:
    """Load the screen and its batch-aware effects.

    Parameters
    ----------
    min_fraction : float
        Least share of a cell's gRNA UMIs that its leading gRNA must have, in [0, 1). A cell whose
        two leading gRNAs tie has no assignment.
    control, batches : str
        Variant of the effect; see `perturbcore.data.effects.ba_ate`.
    n_folds, seed : int
        See `perturbcore.data.folds.assign_folds`.
    effects : bool
        Whether to compute responses too.
    path : path, optional
        Another copy of the file; the catalogue's otherwise.

    Returns
    -------
    Dataset
        ``screen``: counts, cells x 299 genes; ``obs`` also has `guide` and `guide_umis`.

    References
    ----------
    Papalexi et al. 2021; the threshold of 0.8 is the default of Barry et al. 2024 for screens with
    one gRNA a cell.
    """
    if not 0 <= min_fraction < 1:
        raise ParameterError(f"min_fraction={min_fraction} is not in [0, 1)")
    path = path or fetch(SOURCE, progress=False)
    counts, genes, guide_counts, guides, targets, replicate = _read(path)
    card = Card()
    n_targets = len(set(targets) - {CONTROL})
    card.step(
        "file",
        cells=counts.shape[0],
        perturbations=n_targets,
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
    cells = AnnData(counts[keep], obs=obs, var=pd.DataFrame(index=genes))
    screen = declare_screen(
        cells,
        dataset="papalexi",
        perturbation="perturbation",
        batch="batch",
        cell_line="cell_line",
        control=CONTROL,
        scale="counts",
        identifier="symbol",
    )
    card.step_of(
        "one gRNA a cell",
        screen,
        note=f"{int((~keep).sum()):,} cells dropped: leading gRNA below {min_fraction:g} of UMIs, "
        f"or tied; {int(screen.obs['is_control'].sum()):,} control cells",
    )
    return Dataset(
        name="papalexi",
        title="Papalexi THP-1 (ECCITE-seq, raw counts)",
        task="lfc",
        screen=screen,
        responses=responses_of(screen, control=control, batches=batches, n_folds=n_folds, seed=seed)
        if effects
        else None,
        card=card.frame(),
        sources=(SOURCE,),
        citations=("papalexi2021", "barry2024"),
        notes=NOTES,
    )


def leading_guide(counts: sp.csr_matrix):
    """Find the gRNA with most UMIs in every cell.

    Parameters
    ----------
    counts : (n_cells, n_guides) sparse matrix
        gRNA UMI counts.

    Returns
    -------
    guide, umis : (n_cells,) int arrays
        Column of the leading gRNA and its count.
    share : (n_cells,) float array
        Its share of the cell's gRNA UMIs; 0 where the cell has none.
    tied : (n_cells,) bool array
        Whether another gRNA has as many.
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
    data = read_r(path, OBJECT)
    counts, genes = _matrix(path, data, "response_matrix")
    guide_counts, guides = _matrix(path, data, "grna_matrix")
    table = member(path, data, "grna_target_data_frame")
    of_guide = dict(
        zip(
            member(path, table, "grna_id").astype(str),
            member(path, table, "grna_target").astype(str),
            strict=True,
        )
    )
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


def _matrix(path, data, name):
    i, j, x, shape, names = (
        member(path, data, name, part) for part in ("i", "j", "x", "Dim", "Dimnames")
    )
    matrix = sp.coo_matrix((x, (i, j)), shape=tuple(int(n) for n in shape))
    return matrix.T.tocsr().astype(np.float32), np.array([str(n) for n in names[0]])
