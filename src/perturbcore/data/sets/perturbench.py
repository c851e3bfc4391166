"""Two subsampled screens of PerturBench's development file: Norman and McFaline-Figueroa."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.catalogue import fetch
from perturbcore.data.read import read_h5ad
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.sets._make import responses_of
from perturbcore.data.sets.base import Card, Dataset, card_of, check_choice

CONTROL = "control"


def load(
    part: str = "norman",
    control: str = "global",
    batches: str = "all",
    n_folds: int = 5,
    seed: int = 0,
    path=None,
) -> Dataset:
    """Load the single perturbations of one of the two screens.

    `part`: "norman" (K562, 8 batches) or "mcfaline" (A172, T98G and U87MG, one batch each);
    `control, batches`: variant of the effect; see `perturbcore.data.effects.ba_ate`; `path`:
    another copy of the file; the catalogue's otherwise.

    Returns ``screen``: log1p values, cells x 500 genes.

    Norman et al. 2019; McFaline-Figueroa et al. 2024; Wu et al. 2024 (PerturBench).
    """
    about = card_of(check_choice("part", part, ("norman", "mcfaline")))
    label = about.pop("label")
    path = path or fetch("perturbench_devel", progress=False)
    cells = read_h5ad(path, ("condition", "dataset", "cell_type"))
    card = Card()
    _step(card, "file", cells, "both screens")
    cells = cells[(cells.obs["dataset"] == label).to_numpy()]
    if cells.n_obs == 0:
        raise InputError(f"{path}: column 'dataset' has no '{label}'")
    _step(card, "this screen", cells)
    condition = cells.obs["condition"].astype(str)
    double = condition.str.contains("+", regex=False).to_numpy()
    cells = cells[~double]
    obs = pd.DataFrame(
        {
            "perturbation": condition[~double],
            "batch": _gem_group(cells.obs_names, path) if part == "norman" else "1",
            "cell_line": cells.obs["cell_type"].astype(str).replace({"k562": "K562"}),
        },
        index=cells.obs_names,
    )
    X = sp.csr_matrix(cells.X, dtype=np.float32)
    screen = declare_screen(
        AnnData(X, obs=obs, var=pd.DataFrame(index=cells.var_names.astype(str))),
        dataset=part,
        control=CONTROL,
        scale="log1p",
    )
    dropped = f"{condition[double].nunique()} doubles ({int(double.sum()):,} cells) dropped; "
    card.step_of(
        "single perturbations",
        screen,
        note=(dropped if double.any() else "")
        + f"{int(screen.obs['is_control'].sum()):,} control cells",
    )
    responses = responses_of(screen, control=control, batches=batches, n_folds=n_folds, seed=seed)
    return Dataset(
        name=part, task="lfc", screen=screen, responses=responses, card=card.frame(), **about
    )


def _gem_group(names: pd.Index, path) -> pd.Series:
    suffix = pd.Series(names, index=names).str.extract(r"-(\d+)$")[0]
    if suffix.isna().any():
        raise InputError(
            f"{path}: cell '{suffix.index[suffix.isna()][0]}' has no GEM group at the end of its "
            "barcode ('-1', '-2', ...)"
        )
    return suffix


def _step(card: Card, name: str, cells: AnnData, note: str = "") -> None:
    conditions = set(cells.obs["condition"].astype(str)) - {CONTROL}
    card.step(name, cells=cells.n_obs, perturbations=len(conditions), genes=cells.n_vars, note=note)
