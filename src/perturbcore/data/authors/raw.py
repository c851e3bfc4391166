"""The authors' raw genetic screens, as documented, declared as screens of this project."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.authors import raw_drugs
from perturbcore.data.authors.layout import layout_of
from perturbcore.data.read import read_h5ad
from perturbcore.data.screens.declare import declare_screen
from perturbcore.data.screens.read import read_screen

CONTROL = "non-targeting"
# symbols of the Norman guides that no annotation of its files knows any more
RENAMED = {
    "C19orf26": "ENSG00000099625",
    "KIAA1804": "ENSG00000143674",
    "C3orf72": "ENSG00000206262",
}
# per data set: which controls, and how cells are counted, as in the published code
CONTROLS = {"essential": "global", "norman": "matched", "sciplex": "matched", "tahoe": "matched"}
ERROR_CONTROLS = {**CONTROLS, "norman": "global"}
TRIALS = {"essential": (10, 10), "norman": (10, 10), "sciplex": (10, 20), "tahoe": (10, 20)}


def raw_screens(
    dataset: str,
    folder,
    *,
    filter_first: bool = False,
    dose: float | None = None,
    backed: bool = True,
) -> Iterator[AnnData]:
    """Read the raw cells of a data set, a screen at a time.

    Parameters
    ----------
    dataset : {"essential", "norman", "sciplex", "tahoe"}
    folder : path
        The folder with the raw files, or the root above it. Essential: ``raw_data.h5ad`` (obs
        `gene_id`, `gem_group`, `cell_line`). Norman: ``NormanWeissman2019_filtered.h5ad`` (obs
        `perturbation`, `nperts`, `gemgroup`; var `ensemble_id`) and
        ``GEARS_perturb_processed.h5ad``. Chemicals: see `perturbcore.data.authors.raw_drugs`.
    filter_first : bool
        Chemicals: drop the other genes before cells are normalised (as experimental error and labels
        do) rather than after (as effects do); then `uns["perturbcore"]["genes"]` lists the kept ones.
    dose : float, optional
        Chemicals: dose that is kept; the published one by default.
    backed : bool
        Essential: leave the cells on disk.

    Yields
    ------
    AnnData
        A declared screen; Tahoe one a file, the others one in all.

    Raises
    ------
    InputError
        A file or column is absent; the message names it.
    """
    layout = layout_of(dataset)
    folder = raw_folder(dataset, folder)
    if dataset == "essential":
        yield _essential(folder, backed)
    elif dataset == "norman":
        yield _norman(folder)
    else:
        dose = layout.dose if dose is None else float(dose)
        read = raw_drugs.sciplex if dataset == "sciplex" else raw_drugs.tahoe
        yield from read(folder, dose, filter_first)


def raw_folder(dataset: str, folder) -> Path:
    """Return the folder of a data set's raw files: `folder` itself, or the part of it so called."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return folder / dataset if (folder / dataset).is_dir() else folder


def _essential(folder: Path, backed: bool) -> AnnData:
    return read_screen(
        folder / "raw_data.h5ad",
        backed=backed,
        dataset="essential",
        perturbation="gene_id",
        batch="gem_group",
        cell_line="cell_line",
        control=CONTROL,
        scale="counts",
        identifier="ensembl",
        # the published effects count every batch, whether or not it has control cells
        unmatched="keep",
    )


def _norman(folder: Path) -> AnnData:
    path = folder / "NormanWeissman2019_filtered.h5ad"
    cells = read_h5ad(path, ("perturbation", "nperts", "gemgroup"))
    if "ensemble_id" not in cells.var:
        raise InputError(f"{path}: var has no column 'ensemble_id'")
    kept = read_h5ad(folder / "GEARS_perturb_processed.h5ad").var
    ids = cells.var["ensemble_id"].astype(str)
    genes = ids.isin(set(kept.index.astype(str))).to_numpy()
    if not genes.any():
        raise InputError(
            f"{path}: no 'ensemble_id' is among the genes of GEARS_perturb_processed.h5ad, such as "
            f"'{kept.index[0]}'"
        )
    nperts = pd.to_numeric(cells.obs["nperts"].astype(str), errors="coerce")
    if nperts.isna().any():
        bad = cells.obs["nperts"][nperts.isna()].iloc[0]
        raise InputError(f"{path}: column 'nperts' has '{bad}', not a number")
    single = (nperts <= 1).to_numpy()
    symbol = cells.obs["perturbation"].astype(str)[single]
    control = (nperts == 0).to_numpy()[single]
    known = dict(zip(cells.var_names.astype(str), ids, strict=True))
    if "gene_name" in kept:
        names = kept["gene_name"].astype(str)
        known |= dict(zip(names, names.index.astype(str), strict=True))
    target = symbol.map(known | RENAMED)
    lost = target.isna().to_numpy() & ~control
    if lost.any():
        raise InputError(
            f"{path}: column 'perturbation': no Ensembl id for {sorted(set(symbol[lost]))[:5]}; the "
            "gene tables of the two files do not know them"
        )
    obs = pd.DataFrame(
        {
            "gene_id": np.where(control, CONTROL, target),
            "symbol": symbol.to_numpy(),
            "gemgroup": cells.obs["gemgroup"].to_numpy()[single],
        },
        index=cells.obs_names[single],
    )
    X = cells.X[np.flatnonzero(single)][:, np.flatnonzero(genes)]
    X = sp.csr_matrix(X) if sp.issparse(X) else np.asarray(X)
    var = pd.DataFrame(index=pd.Index(ids[genes].to_numpy(), dtype=str))
    if var.index.has_duplicates:
        raise InputError(f"{path}: 'ensemble_id' has {var.index[var.index.duplicated()][0]} twice")
    return declare_screen(
        AnnData(X, obs=obs, var=var),
        dataset="norman",
        perturbation="gene_id",
        batch="gemgroup",
        cell_line_value=layout_of("norman").only_line,
        control=CONTROL,
        scale="counts",
        identifier="ensembl",
        unmatched="keep",
    )


def check_choice(name: str, value: str, allowed) -> str:
    """Refuse a choice that is not among those allowed."""
    if value not in allowed:
        raise ParameterError(f"{name} '{value}' is not one of: {', '.join(allowed)}")
    return value
