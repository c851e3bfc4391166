"""L1000 shRNA knock-downs of one plate with replicate wells (cmapR's example)."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.catalogue import fetch
from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.data.sets._read import member, read_r
from perturbcore.data.sets.base import Card, Dataset

SOURCE = "l1000_kd"
OBJECT = "kd_gct"
TREATED, VECTOR = "trt_sh", "ctl_vector"
NOTES = (
    "Values are robust z-scores within the plate, not log expression: an effect is a difference of "
    "mean z-scores between the wells of a target and the vector wells.",
    "Each target is hit by one hairpin, so off-target effects of its seed are part of the effect.",
    "Replicate wells lie side by side on one plate: position effects are shared by replicates, and "
    "there is no second batch.",
    "81 unrelated targets carry little that passes from one to another: expect no embedding to "
    "beat the train mean here.",
    "The file does not say the cell line; the plate's name, LITMUS.KD017, is that of a benchmark "
    "plate in A549 (Blasco et al. 2021).",
)


def load(
    n_folds: int = 5, seed: int = 0, untreated: bool = False, hairpins: bool = False, path=None
) -> Dataset:
    """Load the plate as replicate wells and as mean differences to the control wells.

    Parameters
    ----------
    n_folds, seed : int
        See `perturbcore.data.folds.assign_folds`.
    untreated : bool
        Whether the 8 untreated wells count as controls beside the 32 vector wells.
    hairpins : bool
        Whether to keep, by the symbol of their annotated target, the 4 hairpins that the file names
        by hairpin id only.
    path : path, optional
        Another copy of the file; the catalogue's otherwise.

    Returns
    -------
    Dataset
        ``responses``: task "lfc", z-scores (``uns["perturbcore"]["scale"] == "zscore"``); `n_cells`
        counts wells. Perturbations are current symbols; ``obs`` also has `entrez` and the older
        `symbol_in_file`. ``replicates``: wells x genes with their controls, same scale.

    References
    ----------
    Subramanian et al. 2017; Enache et al. 2019.
    """
    path = path or fetch(SOURCE, progress=False)
    z, wells, genes = _read(path)
    card = Card()

    def step(name, table, note=""):
        targets = table.loc[table["pert_type"] == TREATED, "pert_mfc_desc"].nunique()
        plates = table["pert_plate"].nunique()
        card.step(
            name,
            cells=len(table),
            perturbations=targets,
            genes=len(genes),
            batches=plates,
            note=note,
        )

    step("file", wells, "cells are wells; 976 landmark genes")
    treated = wells["pert_type"] == TREATED
    unnamed = treated & wells["pert_iname"].str.lower().str.startswith("trcn")
    if not hairpins:
        z, wells, dropped = z[~unnamed.to_numpy()], wells[~unnamed], wells[unnamed]
        step(
            "named targets",
            wells,
            f"{dropped['pert_iname'].nunique()} hairpins without a target's name dropped",
        )
    kinds = [TREATED, VECTOR, *(["ctl_untrt"] if untreated else [])]
    keep = wells["pert_type"].isin(kinds).to_numpy()
    z, wells = z[keep], wells[keep]
    control = (wells["pert_type"] != TREATED).to_numpy()
    if not control.any():
        raise InputError(f"{path}: column 'pert_type' has no '{VECTOR}': no control wells")
    step("controls", wells, f"{int(control.sum())} control wells ({', '.join(kinds[1:])})")
    replicates = _replicates(z, wells, control, genes)
    responses = add_folds(_responses(replicates), n_folds, seed)
    per = responses.obs["n_cells"]
    card.step(
        "responses",
        perturbations=responses.n_obs,
        genes=responses.n_vars,
        note=f"mean over {per.min()} to {per.max()} wells minus the mean of the control wells",
    )
    return Dataset(
        name="l1000_kd",
        title="L1000 knock-downs (one plate, z-scores)",
        task="lfc",
        responses=responses,
        replicates=replicates,
        card=card.frame(),
        sources=(SOURCE,),
        citations=("subramanian2017", "enache2019", "blasco2021"),
        notes=NOTES,
    )


def _read(path):
    gct = read_r(path, OBJECT)
    z = np.asarray(member(path, gct, "mat"), dtype=np.float32).T
    wells = member(path, gct, "cdesc")
    genes = member(path, gct, "rdesc", "pr_gene_symbol").astype(str).to_numpy()
    for column in ("id", "pert_type", "pert_iname", "pert_mfc_desc", "pert_univ_id", "pert_plate"):
        member(path, gct, "cdesc", column)
        wells[column] = wells[column].astype(str)
    if z.shape != (len(wells), len(genes)):
        raise InputError(
            f"{path}: mat is {z.shape[1]} x {z.shape[0]}, but there are {len(genes)} row and "
            f"{len(wells)} column descriptions"
        )
    order = [str(i) for i in member(path, gct, "cid")]
    if list(wells["id"]) != order:
        raise InputError(f"{path}: the rows of cdesc are not in the order of mat's columns")
    if not np.isfinite(z).all():
        raise InputError(f"{path}: mat has NaN or infinity; is this another version of the file?")
    return z, wells, genes


def _replicates(z, wells, control, genes) -> AnnData:
    obs = pd.DataFrame(
        {
            "perturbation": np.where(control, "control", wells["pert_mfc_desc"]),
            "batch": wells["pert_plate"].to_numpy(),
            "cell_line": "A549",
            "is_control": control,
            "entrez": np.where(control, "", wells["pert_univ_id"]),
            "symbol_in_file": wells["pert_iname"].to_numpy(),
        },
        index=wells["id"].to_numpy(),
    )
    out = AnnData(z, obs=obs, var=pd.DataFrame(index=pd.Index(genes)))
    out.uns["perturbcore"] = {
        "dataset": "l1000_kd",
        "scale": "zscore",
        "identifier": "symbol",
        "simulated": False,
    }
    return out


def _responses(replicates: AnnData) -> AnnData:
    obs = replicates.obs
    control = obs["is_control"].to_numpy()
    base = replicates.X[control].mean(axis=0, dtype=np.float64)
    grouped = obs[~control].groupby("perturbation", sort=True)
    effects = [
        replicates[rows].X.mean(axis=0, dtype=np.float64) for rows in grouped.groups.values()
    ]
    table = pd.DataFrame(
        {
            "cell_line": grouped["cell_line"].first(),
            "n_cells": grouped.size(),
            "n_batches": grouped["batch"].nunique(),
            "entrez": grouped["entrez"].first(),
            "symbol_in_file": grouped["symbol_in_file"].first(),
        }
    ).reset_index()
    out = make_responses(
        np.stack(effects) - base, table, replicates.var_names, dataset="l1000_kd", task="lfc"
    )
    out.uns["perturbcore"]["scale"] = "zscore"
    return out
