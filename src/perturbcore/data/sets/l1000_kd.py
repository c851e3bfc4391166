"""L1000 shRNA knock-downs of one plate with replicate wells (cmapR's example)."""

import numpy as np
import pandas as pd

from perturbcore.data.catalogue import fetch
from perturbcore.data.read import member, read_r
from perturbcore.data.sets._make import make_wells, responses_of_wells
from perturbcore.data.sets.base import Card, Dataset, make_dataset

TREATED, VECTOR = "trt_sh", "ctl_vector"
COLUMNS = ("id", "pert_type", "pert_iname", "pert_mfc_desc", "pert_plate")


def load(n_folds: int = 5, seed: int = 0) -> Dataset:
    """Load the plate as replicate wells and as mean differences to the vector wells."""
    path = fetch("l1000_kd")
    gct = read_r(path, "kd_gct")
    z = np.asarray(member(path, gct, "mat"), dtype=np.float32).T
    genes = member(path, gct, "rdesc", "pr_gene_symbol").astype(str).to_numpy()
    wells = pd.DataFrame({c: member(path, gct, "cdesc", c).astype(str) for c in COLUMNS})
    kind, card = wells["pert_type"], Card()
    treated, vector = kind == TREATED, kind == VECTOR
    obs = pd.DataFrame(
        {
            "perturbation": wells["pert_mfc_desc"],
            "batch": wells["pert_plate"],
            "cell_line": "A549",
            "is_control": ~treated,
        }
    ).set_axis(wells["id"].to_numpy())
    about = dict(dataset="l1000_kd", scale="zscore", identifier="symbol")
    every = make_wells(z, obs, genes, **about)
    card.step_of("file", every, "cells are wells; 976 landmark genes")
    unnamed = treated & wells["pert_iname"].str.lower().str.startswith("trcn")
    note = f"{wells.loc[unnamed, 'pert_iname'].nunique()} hairpins without a target's name dropped"
    card.step_of("named targets", every[~unnamed.to_numpy()], note)
    replicates = every[((treated & ~unnamed) | vector).to_numpy()].copy()
    card.step_of("controls", replicates, f"{int(vector.sum())} control wells ({VECTOR})")
    responses = responses_of_wells(replicates, control="global", n_folds=n_folds, seed=seed)
    per = responses.obs["n_cells"]
    note = f"mean over {per.min()} to {per.max()} wells minus the mean of the control wells"
    card.responses(responses, note)
    return make_dataset(responses, card, replicates=replicates)
