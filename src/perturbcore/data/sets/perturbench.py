"""Two subsampled screens of PerturBench's development file: Norman and McFaline-Figueroa."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.catalogue import fetch
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.sets._effects import responses_of
from perturbcore.data.sets._read import read_h5ad
from perturbcore.data.sets.base import Card, Dataset

SOURCE = "perturbench_devel"
CONTROL = "control"
COLUMNS = ("condition", "dataset", "cell_type")
PARTS = {
    "norman": ("norman19", "Norman K562 (CRISPRa, development subset)", "norman2019"),
    "mcfaline": ("mcfaline23", "McFaline-Figueroa glioma (CRISPRi, subset)", "mcfaline2024"),
}
CELL_LINES = {"k562": "K562"}
NOTES = (
    "At most 100 cells a condition and cell line, drawn by the file's authors for development: "
    "far noisier than the whole screens, and not comparable with numbers on them.",
    "Values are already normalised and log1p, for 500 variable genes chosen over both screens.",
    "Doubles are left out: an embedding of a single gene says nothing of a pair by itself.",
)
BATCH_NOTES = {
    "norman": "Batches are the 8 GEM groups, read from the suffix of the cell barcode.",
    "mcfaline": "The file has no batch for these cells: each cell line is taken as one batch.",
}


def load(
    part: str = "norman",
    control: str = "global",
    batches: str = "all",
    n_folds: int = 5,
    seed: int = 0,
    effects: bool = True,
    path=None,
) -> Dataset:
    """Load the single perturbations of one of the two screens.

    Parameters
    ----------
    part : str
        "norman" (K562, 8 batches) or "mcfaline" (A172, T98G and U87MG, one batch each).
    control, batches : str
        Variant of the effect; see `perturbcore.data.effects.ba_ate`.
    n_folds, seed : int
        See `perturbcore.data.folds.assign_folds`; never more folds than perturbations.
    effects : bool
        Whether to compute responses too.
    path : path, optional
        Another copy of the file; the catalogue's otherwise.

    Returns
    -------
    Dataset
        ``screen``: log1p values, cells x 500 genes.

    References
    ----------
    Norman et al. 2019; McFaline-Figueroa et al. 2024; Wu et al. 2024 (PerturBench).
    """
    if part not in PARTS:
        raise ParameterError(f"no part '{part}'; there are: {', '.join(PARTS)}")
    label, title, citation = PARTS[part]
    path = path or fetch(SOURCE, progress=False)
    cells = read_h5ad(path, COLUMNS)
    card = Card()
    _step(card, "file", cells, "both screens")
    cells = cells[(cells.obs["dataset"] == label).to_numpy()]
    if cells.n_obs == 0:
        raise InputError(f"{path}: column 'dataset' has no '{label}'")
    _step(card, "this screen", cells)
    double = cells.obs["condition"].astype(str).str.contains("+", regex=False).to_numpy()
    n_doubles = cells.obs["condition"][double].nunique()
    cells = cells[~double]
    line = cells.obs["cell_type"].astype(str)
    obs = pd.DataFrame(
        {
            "perturbation": cells.obs["condition"].astype(str),
            "batch": _batches(part, cells, path),
            "cell_line": line.replace(CELL_LINES),
        },
        index=cells.obs_names,
    )
    X = sp.csr_matrix(cells.X, dtype=np.float32)
    screen = declare_screen(
        AnnData(X, obs=obs, var=pd.DataFrame(index=cells.var_names.astype(str))),
        dataset=part,
        perturbation="perturbation",
        batch="batch",
        cell_line="cell_line",
        control=CONTROL,
        scale="log1p",
        identifier="symbol",
    )
    card.step_of(
        "single perturbations",
        screen,
        note=(f"{n_doubles} doubles ({int(double.sum()):,} cells) dropped; " if n_doubles else "")
        + f"{int(screen.obs['is_control'].sum()):,} control cells",
    )
    return Dataset(
        name=part,
        title=title,
        task="lfc",
        screen=screen,
        responses=responses_of(screen, control=control, batches=batches, n_folds=n_folds, seed=seed)
        if effects
        else None,
        card=card.frame(),
        sources=(SOURCE,),
        citations=(citation, "wu2024"),
        notes=(*NOTES, BATCH_NOTES[part]),
    )


def _batches(part: str, cells: AnnData, path):
    if part == "mcfaline":
        return "1"
    suffix = pd.Series(cells.obs_names, index=cells.obs_names).str.extract(r"-(\d+)$")[0]
    if suffix.isna().any():
        raise InputError(
            f"{path}: cell '{suffix.index[suffix.isna()][0]}' has no GEM group at the end of its "
            "barcode ('-1', '-2', ...)"
        )
    return suffix


def _step(card: Card, name: str, cells: AnnData, note: str = "") -> None:
    conditions = set(cells.obs["condition"].astype(str)) - {CONTROL}
    card.step(name, cells=cells.n_obs, perturbations=len(conditions), genes=cells.n_vars, note=note)
