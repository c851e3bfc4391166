"""L1000 level-3 chemical screen of HT115 cells on two replicate plates (PRnet's example)."""

from types import MappingProxyType

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.catalogue import fetch
from perturbcore.data.read import read_h5ad
from perturbcore.data.sets._make import make_wells, responses_of_wells, well_effects
from perturbcore.data.sets.base import Card, Dataset, card_of, check_choice

CONTROL = "DMSO"
COLUMNS = ("pert_iname", "pert_id", "pert_type", "rna_plate", "dose", "cell_type", "SMILES")


def load(control: str = "matched", n_folds: int = 5, seed: int = 0, path=None) -> Dataset:
    """Load the wells of both plates and the plate-matched effects of the drugs.

    Only drugs that lie on both plates are kept: one on one plate has no replicate, so that
    resampling plates would give it an experimental error of nearly nothing.

    `control`: whether a drug's well is compared with the DMSO wells of its own plate (Eq. 4),
    or of both (Eq. 6); `n_folds, seed`: folds are by drug; see
    `perturbcore.data.folds.assign_folds`; `path`: another copy of the file; the catalogue's
    otherwise.

    Returns ``responses``: task "lfc", log2 (``uns["perturbcore"]["scale"]``); `n_cells` counts
    wells. ``replicates``: wells x genes with their DMSO wells. ``extras["drugs"]``: a DataFrame
    indexed by perturbation (smiles, targets and mechanism, which are empty, dose in micromolar,
    pert_ids, n_structures).

    Five names were registered as two structures each, differing in stereo-chemistry, one of
    them at one dose only. They are one perturbation here (their wells are averaged, first
    within a plate), so that no near copy of a test drug is in training; its structure is the
    one with more wells, then the one with more stereo-centres written. The card counts them.

    Qi et al. 2024; Subramanian et al. 2017.
    """
    check_choice("control", control, ("matched", "global"))
    path = path or fetch("prnet", progress=False)
    wells = _wells(path)
    card = Card()
    treated = ~wells.obs["is_control"].to_numpy()
    drugs = _drugs(wells.obs[treated])
    several = int((drugs["n_structures"] > 1).sum())
    note = f"{several} names with two registered structures are one perturbation each"
    card.step_of("file", wells, f"cells are wells; {note}")
    plates = wells.obs[treated].groupby("perturbation")["batch"].nunique()
    keep = plates.index[plates == wells.obs["batch"].nunique()]
    wells = wells[~treated | wells.obs["perturbation"].isin(keep).to_numpy()].copy()
    note = f"{len(plates) - len(keep)} drugs on one plate only dropped"
    card.step_of("both plates", wells, note)
    responses = responses_of_wells(wells, control=control, n_folds=n_folds, seed=seed)
    which = "its" if control == "matched" else "all"
    note = f"mean over plates of the difference to {which} DMSO wells"
    card.responses(responses, note, cells=False)
    about = card_of("prnet")
    about["notes"] += (replicate_agreement(well_effects(wells, control)),)
    return Dataset(
        name="prnet",
        task="lfc",
        responses=responses,
        replicates=wells,
        card=card.frame(),
        extras=MappingProxyType({"drugs": drugs.loc[keep]}),
        **about,
    )


def replicate_agreement(effects: pd.DataFrame) -> str:
    """Say how the effects of the two plates correlate, of the same drug and of different ones."""
    first, second = (effects.loc[p] for p in effects.index.unique("batch")[:2])
    drugs = first.index.intersection(second.index)
    n = len(drugs)
    r = np.corrcoef(first.loc[drugs], second.loc[drugs])[:n, n:]
    other = (r.sum() - np.trace(r)) / (r.size - n)
    return (
        f"Most drugs are near noise: the effects of one drug on the two plates correlate by "
        f"{np.diag(r).mean():.2f} on average ({n} drugs), "
        f"those of two different drugs by {other:.2f}."
    )


def _wells(path) -> AnnData:
    raw = read_h5ad(path, COLUMNS)
    obs = raw.obs[list(COLUMNS)].astype({c: str for c in COLUMNS if c != "dose"})
    control = obs["pert_iname"] == CONTROL
    without = ~control.groupby(obs["rna_plate"]).any()
    if without.any():
        plate = without.index[without][0]
        raise InputError(f"{path}: column 'pert_iname' has no '{CONTROL}' on plate '{plate}'")
    table = pd.DataFrame(
        {
            "perturbation": obs["pert_iname"],
            "batch": obs["rna_plate"],
            "cell_line": obs["cell_type"],
            "is_control": control,
            "dose": obs["dose"].astype(float),
            "smiles": obs["SMILES"].mask(control, ""),
            "pert_id": obs["pert_id"],
        },
    ).set_axis(obs.index.astype(str))
    about = dict(dataset="prnet", scale="log2", identifier="drug")
    return make_wells(raw.X, table, raw.var_names, path=path, **about)


def _drugs(obs: pd.DataFrame) -> pd.DataFrame:
    rows = {}
    for name, part in obs.groupby("perturbation", sort=True):
        structures = part.groupby("smiles").size().reset_index(name="wells")
        structures["stereo"] = structures["smiles"].str.count(r"@|/|\\")
        best = structures.sort_values(["wells", "stereo", "smiles"], ascending=[False, False, True])
        rows[name] = {
            "smiles": best["smiles"].iloc[0],
            "targets": "",
            "mechanism": "",
            "dose": float(part["dose"].median()),
            "pert_ids": ";".join(sorted(part["pert_id"].unique())),
            "n_structures": len(structures),
            "n_plates": part["batch"].nunique(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("perturbation")
