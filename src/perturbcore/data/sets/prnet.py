"""L1000 level-3 chemical screen of HT115 cells on two replicate plates (PRnet's example)."""

import pandas as pd

from perturbcore.data.catalogue import fetch
from perturbcore.data.read import read_h5ad
from perturbcore.data.sets._make import make_wells, responses_of_wells
from perturbcore.data.sets.base import Card, Dataset, constants_of, make_dataset

CONTROL = "DMSO"
COLUMNS = constants_of("prnet")["columns"]  # of the file, and what they are here


def load(n_folds: int = 5, seed: int = 0) -> Dataset:
    """Load the wells and plate-matched effects of the drugs that lie on both plates.

    Names registered as two structures are one perturbation: no near copy is in training.
    """
    raw, card = read_h5ad(fetch("prnet"), COLUMNS), Card()
    obs = raw.obs[list(COLUMNS)].rename(columns=COLUMNS).astype(str)
    obs["is_control"] = obs["perturbation"] == CONTROL
    obs["smiles"] = obs["smiles"].mask(obs["is_control"], "")
    obs.index = obs.index.astype(str)
    about = dict(dataset="prnet", scale="log2", identifier="drug")
    wells = make_wells(raw.X, obs, raw.var_names, **about)
    treated = ~wells.obs["is_control"].to_numpy()
    drugs = _drugs(wells.obs[treated])
    several = int((drugs["n_structures"] > 1).sum())
    note = f"{several} names with two registered structures are one perturbation each"
    card.step_of("file", wells, f"cells are wells; {note}")
    keep = drugs.index[drugs["n_plates"] == wells.obs["batch"].nunique()]
    wells = wells[~treated | wells.obs["perturbation"].isin(keep).to_numpy()].copy()
    note = f"{len(drugs) - len(keep)} drugs on one plate only dropped"
    card.step_of("both plates", wells, note)
    responses = responses_of_wells(wells, control="matched", n_folds=n_folds, seed=seed)
    card.responses(responses, "mean over plates of the difference to its DMSO wells")
    return make_dataset(responses, card, replicates=wells, extras={"drugs": drugs.loc[keep]})


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
            "n_structures": len(structures),
            "n_plates": part["batch"].nunique(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("perturbation")
