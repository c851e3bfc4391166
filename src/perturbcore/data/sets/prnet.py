"""L1000 level-3 chemical screen of HT115 cells, two replicate plates (the demonstration data of PRnet)."""

from types import MappingProxyType

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.catalogue import fetch
from perturbcore.data.folds import add_folds
from perturbcore.data.responses import make_responses
from perturbcore.data.sets._read import read_h5ad
from perturbcore.data.sets.base import Card, Dataset

SOURCE = "prnet"
CONTROL = "DMSO"
COLUMNS = ("pert_iname", "pert_id", "pert_type", "rna_plate", "dose", "cell_type", "SMILES")
NOTES = (
    "Values are log2 expression of 978 landmark genes (level 3: normalised within the plate), not "
    "counts: an effect is a difference of log2 expression to the DMSO wells of the same plate.",
    "One cell line (HT115), 6 hours, one well of a drug on each of two plates, 9 and 11 DMSO wells: "
    "two replicates are all there is to estimate an experimental error from.",
    "Doses differ between drugs (80 nM to 160 µM, half of them at 10 µM) and are not modelled.",
    "The file names no targets.",
)


def load(
    both_plates: bool = True,
    control: str = "matched",
    n_folds: int = 5,
    seed: int = 0,
    path=None,
) -> Dataset:
    """Load the wells of both plates and the plate-matched effects of the drugs.

    Parameters
    ----------
    both_plates : bool
        Keep only the drugs that lie on both plates. A drug on one plate has no replicate, so that
        resampling plates would give it an experimental error of nearly nothing.
    control : {"matched", "global"}
        Whether a drug's well is compared with the DMSO wells of its own plate, or of both.
    n_folds, seed : int
        Folds are by drug; see `perturbcore.data.folds.assign_folds`.
    path : path, optional
        Another copy of the file; the catalogue's otherwise.

    Returns
    -------
    Dataset
        ``responses``: task "lfc", log2 (``uns["perturbcore"]["scale"] == "log2"``); `n_cells` counts
        wells. ``replicates``: wells x genes with their DMSO wells. ``extras``: "drugs", a DataFrame
        indexed by perturbation (smiles, targets and mechanism, which are empty, dose in micromolar,
        pert_ids, n_structures); "agreement", see `replicate_agreement`.

    Raises
    ------
    InputError
        The file is damaged or is another version.
    ParameterError
        `control` is neither of the two.

    Notes
    -----
    Five names were registered as two structures each, differing in stereo-chemistry, one of them at
    one dose only. They are one perturbation here (their wells are averaged, a plate first), so that
    no near copy of a test drug is in training; its structure is the one with more wells, then the one
    with more stereo-centres written. The card counts them.

    References
    ----------
    Qi et al. 2024; Subramanian et al. 2017.
    """
    if control not in ("matched", "global"):
        raise ParameterError(f"control={control!r}: choose 'matched' (Eq. 4) or 'global' (Eq. 6)")
    path = path or fetch(SOURCE, progress=False)
    wells = _wells(path)
    card = Card()
    treated = ~wells.obs["is_control"].to_numpy()
    drugs = _drugs(wells.obs[treated])
    several = int((drugs["n_structures"] > 1).sum())
    note = (
        f"cells are wells; {several} names with two registered structures are one perturbation each"
    )
    _step(card, "file", wells, note)
    plates = wells.obs[treated].groupby("perturbation")["batch"].nunique()
    if both_plates:
        keep = plates.index[plates == wells.obs["batch"].nunique()]
        wells = wells[~treated | wells.obs["perturbation"].isin(keep).to_numpy()].copy()
        drugs = drugs.loc[keep]
        _step(
            card, "both plates", wells, f"{len(plates) - len(keep)} drugs on one plate only dropped"
        )
    profiles = plate_effects(wells, control)
    responses = add_folds(_responses(profiles, wells, control), n_folds, seed)
    agreement = replicate_agreement(profiles)
    card.step(
        "responses",
        perturbations=responses.n_obs,
        genes=responses.n_vars,
        note=f"mean over plates of the difference to {'its' if control == 'matched' else 'all'} DMSO wells",
    )
    return Dataset(
        name="prnet",
        title="L1000 drugs (PRnet's two plates)",
        task="lfc",
        responses=responses,
        replicates=wells,
        card=card.frame(),
        sources=(SOURCE,),
        citations=("qi2024", "subramanian2017"),
        notes=(*NOTES, agreement["sentence"]),
        extras=MappingProxyType({"drugs": drugs, "agreement": MappingProxyType(agreement)}),
    )


def plate_effects(wells: AnnData, control: str = "matched") -> pd.DataFrame:
    """Mean effect of each drug on each plate, indexed by (plate, perturbation), columns genes."""
    X = pd.DataFrame(np.asarray(wells.X, dtype=np.float64), columns=wells.var_names)
    obs = wells.obs
    treated = ~obs["is_control"].to_numpy()
    base = X[~treated].groupby(obs["batch"].to_numpy()[~treated]).mean()
    if control == "global":
        base.loc[:] = base.to_numpy().mean(axis=0)
    means = X[treated].groupby(
        [obs["batch"].to_numpy()[treated], obs["perturbation"].to_numpy()[treated]]
    )
    means = means.mean().rename_axis(["batch", "perturbation"])
    return means - base.loc[means.index.get_level_values("batch")].to_numpy()


def replicate_agreement(profiles: pd.DataFrame) -> dict:
    """Correlate the effects of the two plates, of the same drug and of different ones.

    Parameters
    ----------
    profiles : DataFrame
        Of `plate_effects`.

    Returns
    -------
    dict
        same, other: mean Pearson correlation over genes; centred_same, centred_other: the same after
        the mean effect of the plate is taken away; n: drugs on both plates; sentence.
    """
    plates = profiles.index.get_level_values("batch").unique()[:2]
    first, second = (profiles.loc[p] for p in plates)
    both = first.index.intersection(second.index)
    out = {"n": len(both)}
    for name, shift in (("", 0), ("centred_", 1)):
        z = [
            _rows(p.loc[both].to_numpy() - shift * p.loc[both].to_numpy().mean(axis=0))
            for p in (first, second)
        ]
        r = z[0] @ z[1].T
        out[f"{name}same"] = float(np.diag(r).mean())
        out[f"{name}other"] = float((r.sum() - np.trace(r)) / (r.size - len(both)))
    out["sentence"] = (
        f"Most drugs are near noise: the effects of one drug on the two plates correlate by "
        f"{out['same']:.2f} on average ({out['n']} drugs), those of two different drugs by {out['other']:.2f}."
    )
    return out


def _rows(X) -> np.ndarray:
    X = X - X.mean(axis=1, keepdims=True)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def _step(card, name, wells, note):
    obs = wells.obs
    card.step(
        name,
        cells=wells.n_obs,
        perturbations=obs.loc[~obs["is_control"], "perturbation"].nunique(),
        genes=wells.n_vars,
        batches=obs["batch"].nunique(),
        note=note,
    )


def _wells(path) -> AnnData:
    raw = read_h5ad(path, COLUMNS)
    X = np.asarray(raw.X.toarray() if hasattr(raw.X, "toarray") else raw.X, dtype=np.float32)
    if not np.isfinite(X).all():
        raise InputError(f"{path}: X has NaN or infinity; is this another version of the file?")
    obs = raw.obs[list(COLUMNS)].astype({c: str for c in COLUMNS if c != "dose"})
    control = (obs["pert_iname"] == CONTROL).to_numpy()
    for plate, part in obs.groupby("rna_plate"):
        if not (part["pert_iname"] == CONTROL).any():
            raise InputError(f"{path}: column 'pert_iname' has no '{CONTROL}' on plate '{plate}'")
    table = pd.DataFrame(
        {
            "perturbation": np.where(control, "control", obs["pert_iname"]),
            "batch": obs["rna_plate"].to_numpy(),
            "cell_line": obs["cell_type"].to_numpy(),
            "is_control": control,
            "dose": obs["dose"].astype(float).to_numpy(),
            "smiles": np.where(control, "", obs["SMILES"]),
            "pert_id": obs["pert_id"].to_numpy(),
        },
        index=obs.index.astype(str),
    )
    out = AnnData(X, obs=table, var=pd.DataFrame(index=raw.var_names.astype(str)))
    out.uns["perturbcore"] = {
        "dataset": "prnet",
        "scale": "log2",
        "identifier": "drug",
        "simulated": False,
    }
    return out


def _drugs(obs: pd.DataFrame) -> pd.DataFrame:
    rows = {}
    for name, part in obs.groupby("perturbation", sort=True):
        found = part.groupby("smiles").size().reset_index(name="wells")
        found["stereo"] = found["smiles"].str.count(r"@|/|\\")
        best = found.sort_values(["wells", "stereo", "smiles"], ascending=[False, False, True])
        rows[name] = {
            "smiles": best["smiles"].iloc[0],
            "targets": "",
            "mechanism": "",
            "dose": float(part["dose"].median()),
            "pert_ids": ";".join(sorted(part["pert_id"].unique())),
            "n_structures": len(found),
            "n_plates": part["batch"].nunique(),
        }
    out = pd.DataFrame.from_dict(rows, orient="index")
    out.index.name = "perturbation"
    return out


def _responses(profiles: pd.DataFrame, wells: AnnData, control: str) -> AnnData:
    effects = profiles.groupby(level="perturbation").mean()
    obs = wells.obs[~wells.obs["is_control"].to_numpy()].groupby("perturbation")
    table = pd.DataFrame(
        {
            "cell_line": obs["cell_line"].first(),
            "n_cells": obs.size(),
            "n_batches": obs["batch"].nunique(),
        }
    ).loc[effects.index]
    out = make_responses(
        effects.to_numpy(), table.rename_axis("perturbation").reset_index(), effects.columns,
        dataset="prnet", task="lfc", identifier="drug",
    )  # fmt: skip
    out.uns["perturbcore"].update(scale="log2", control=control)
    return out
