"""L1000 shRNA knock-downs of one plate with replicate wells (cmapR's example)."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.data.catalogue import fetch
from perturbcore.data.read import member, read_r
from perturbcore.data.sets._make import make_wells, responses_of_wells
from perturbcore.data.sets.base import Card, Dataset, card_of

TREATED, VECTOR = "trt_sh", "ctl_vector"
COLUMNS = ("id", "pert_type", "pert_iname", "pert_mfc_desc", "pert_univ_id", "pert_plate")


def load(n_folds: int = 5, seed: int = 0, path=None) -> Dataset:
    """Load the plate as replicate wells and as mean differences to the 32 vector wells.

    Four hairpins that the file names by hairpin id only, and the 8 untreated wells, are left
    out.

    `path`: another copy of the file; the catalogue's otherwise.

    Returns ``responses``: task "lfc", z-scores (``uns["perturbcore"]["scale"] == "zscore"``);
    `n_cells` counts wells. Perturbations are current symbols; ``obs`` also has `entrez` and the
    older `symbol_in_file`. ``replicates``: wells x genes with their controls, same scale.

    Subramanian et al. 2017; Enache et al. 2019.
    """
    path = path or fetch("l1000_kd", progress=False)
    z, wells, genes = _read(path)
    card = Card()

    def step(name: str, table: pd.DataFrame, note: str) -> None:
        card.step(
            name,
            cells=len(table),
            perturbations=table.loc[table["pert_type"] == TREATED, "pert_mfc_desc"].nunique(),
            genes=len(genes),
            batches=table["pert_plate"].nunique(),
            note=note,
        )

    step("file", wells, "cells are wells; 976 landmark genes")
    treated = wells["pert_type"] == TREATED
    unnamed = treated & wells["pert_iname"].str.lower().str.startswith("trcn")
    n_unnamed = wells.loc[unnamed, "pert_iname"].nunique()
    step("named targets", wells[~unnamed], f"{n_unnamed} hairpins without a target's name dropped")
    control = wells["pert_type"] == VECTOR
    if not control.any():
        raise InputError(f"{path}: column 'pert_type' has no '{VECTOR}': no control wells")
    keep = ((treated & ~unnamed) | control).to_numpy()
    z, wells, control = z[keep], wells[keep], control[keep].to_numpy()
    step("controls", wells, f"{int(control.sum())} control wells ({VECTOR})")
    obs = pd.DataFrame(
        {
            "perturbation": wells["pert_mfc_desc"].to_numpy(),
            "batch": wells["pert_plate"].to_numpy(),
            "cell_line": "A549",
            "is_control": control,
            "entrez": np.where(control, "", wells["pert_univ_id"]),
            "symbol_in_file": wells["pert_iname"].to_numpy(),
        },
        index=wells["id"].to_numpy(),
    )
    about = dict(dataset="l1000_kd", scale="zscore", identifier="symbol")
    replicates = make_wells(z, obs, genes, path=path, **about)
    extra = ("entrez", "symbol_in_file")
    responses = responses_of_wells(
        replicates, control="global", n_folds=n_folds, seed=seed, keep=extra
    )
    per = responses.obs["n_cells"]
    note = f"mean over {per.min()} to {per.max()} wells minus the mean of the control wells"
    card.responses(responses, note, cells=False)
    return Dataset(
        name="l1000_kd",
        task="lfc",
        responses=responses,
        replicates=replicates,
        card=card.frame(),
        **card_of("l1000_kd"),
    )


def _read(path):
    """Values (wells x genes), the description of each well, and the symbols of the genes."""
    gct = read_r(path, "kd_gct")
    z = np.asarray(member(path, gct, "mat"), dtype=np.float32).T
    genes = member(path, gct, "rdesc", "pr_gene_symbol").astype(str).to_numpy()
    columns = {c: member(path, gct, "cdesc", c).astype(str) for c in COLUMNS}
    wells = pd.DataFrame(columns)
    if z.shape != (len(wells), len(genes)):
        raise InputError(
            f"{path}: mat is {z.shape[1]} x {z.shape[0]}, but there are {len(genes)} row and "
            f"{len(wells)} column descriptions"
        )
    if list(wells["id"]) != [str(i) for i in member(path, gct, "cid")]:
        raise InputError(f"{path}: the rows of cdesc are not in the order of mat's columns")
    return z, wells, genes
