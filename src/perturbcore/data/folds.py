"""Folds are data: made once from names, stored with the responses, checked for leaks."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, LeakError, ParameterError
from perturbcore.data.identity import is_control, merged, same_perturbation


def assign_folds(
    perturbations,
    n_folds: int = 5,
    seed: int = 0,
    *,
    identifier: str = "symbol",
    aliases: Mapping[str, str] | None = None,
    smiles: Mapping[str, str] | None = None,
    doubles: str = "apart",
) -> pd.Series:
    """Assign each perturbation to one fold, whatever the order or number of its rows.

    The distinct perturbations are sorted, permuted with `seed` and cut into `n_folds` nearly equal
    parts, so that one measured in several cell lines lies in the same fold in all of them. Names
    that mean one perturbation share its fold, see `perturbcore.data.identity.same_perturbation`.

    `perturbations`: names, repeats are allowed; `n_folds`: at least 2; `seed`: of the permutation;
    `identifier`: what names are, "symbol", "ensembl", "entrez" or "drug"; `aliases`: today's name
    of an older one; `smiles`: structures by drug; `doubles`: whether combinations that share a gene
    lie "apart" (as published) or "together".

    Returns the fold (0 .. n_folds - 1), indexed by the sorted distinct perturbation.

    Examples
    --------
    >>> pc.assign_folds(["TP53", "MYC", "KRAS", "GATA1", "MYC"], n_folds=2).value_counts().tolist()
    [2, 2]
    """
    names = pd.Index(perturbations)
    if names.hasnans:
        raise InputError("a perturbation name is missing (NaN): name or drop those rows")
    how = dict(aliases=aliases, smiles=smiles, doubles=doubles)
    same = same_perturbation(names.astype(str), identifier, **how)
    names = pd.Index(sorted(set(same)), dtype=object)
    if n_folds < 2 or n_folds > len(names):
        raise ParameterError(
            f"n_folds={n_folds} is not possible with {len(names)} perturbations: "
            f"give a number from 2 to {len(names)}"
        )
    folds = np.empty(len(names), dtype=int)
    order = np.random.default_rng(seed).permutation(len(names))
    for fold, part in enumerate(np.array_split(order, n_folds)):
        folds[part] = fold
    return same.map(pd.Series(folds, index=names)).rename("fold")


def add_folds(responses: AnnData, n_folds: int = 5, seed: int = 0, **how: Any) -> AnnData:
    """Write ``obs["fold"]`` of `responses` in place and return it; see `assign_folds`."""
    obs, about = responses.obs, responses.uns.get("perturbcore", {})
    names = obs["perturbation"].astype(str)
    how = {"identifier": about.get("identifier", "symbol"), **how}
    if "smiles" in obs:
        how.setdefault("smiles", dict(zip(names, obs["smiles"].astype(str), strict=True)))
    obs["fold"] = assign_folds(obs["perturbation"], n_folds, seed, **how).loc[names].to_numpy()
    if twice := merged(same_perturbation(names, **how)):
        about["merged"] = twice
    return responses


def single_genes(name: str) -> list[str]:
    """Return the genes of a single (``A``, ``A+ctrl``) or combined perturbation (``A+B``)."""
    return [part for part in map(str.strip, name.split("+")) if part and not is_control(part)]


def gears_split(perturbations, seed: int = 1, share: float = 0.75) -> pd.Series:
    """Split perturbations by gene: the "simulation" split of GEARS (Roohani et al. 2023).

    A `share` of the perturbed genes is drawn, then a `share` of the combinations of two drawn
    genes: these and the drawn singles are "train". Asked are "unseen_single", and combinations of
    which no, one or both genes were drawn ("combo_seen0" to "combo_seen2"). Draws are those of
    GEARS for the same names and seed. Returns the subgroup by name.
    """
    names = sorted({str(p) for p in perturbations})
    parts = {name: single_genes(name) for name in names}
    genes = np.unique([gene for found in parts.values() for gene in found])
    drawn = set(np.random.RandomState(seed).choice(genes, int(len(genes) * share), replace=False))
    group = {}
    for name, found in parts.items():
        seen = sum(gene in drawn for gene in found)
        single = "train" if seen else "unseen_single"
        group[name] = single if len(found) == 1 else f"combo_seen{seen}"
    both = np.array([name for name in names if group[name] == "combo_seen2"])
    kept = np.random.RandomState(seed).choice(both, int(len(both) * share), replace=False)
    return pd.Series(group | dict.fromkeys(kept, "train"), name="subgroup")


def check_leakage(responses: AnnData, *, joint: bool = False, across: bool = False) -> None:
    """Refuse folds by which a test perturbation would be seen in training.

    `joint`: one model is trained over all lines; `across`: asked is what another line tells.
    """
    obs, shared = responses.obs, responses.uns.get("perturbcore", {}).get("shared_wells")
    if across and shared:
        raise LeakError(
            f"the cell lines of '{responses.uns['perturbcore'].get('dataset', 'these data')}' were "
            "together in each well, so that one line tells of another what the well did to both: "
            "transfer between them cannot be scored; use lines that were treated apart"
        )
    if obs["fold"].isna().any():
        row = obs.index[obs["fold"].isna()][0]
        raise InputError(f"column 'fold' is empty in row '{row}': give every row a fold")
    within = obs.groupby(["cell_line", "perturbation"], observed=True)["fold"].nunique()
    if (within > 1).any():
        line, name = within.index[within > 1][0]
        raise LeakError(
            f"perturbation '{name}' is in {within.max()} folds of cell line '{line}' (column "
            "'fold'): it would be tested on itself; keep all its rows in one fold (add_folds does)"
        )
    if across:
        return
    _check_names(responses)
    moved = obs.groupby("perturbation", observed=True)["fold"].nunique()
    moved = moved[moved > 1]
    if len(moved):
        what = (
            f"{len(moved)} perturbations are in different folds in different cell lines, "
            f"for example '{moved.index[0]}' (column 'fold')"
        )
        if shared:
            raise LeakError(
                f"{what}, but these lines share wells, so that a drug agrees with itself "
                "across lines even where it is inert; use add_folds"
            )
        if joint:
            raise LeakError(f"{what}: a joint model would see them in training; use add_folds")
        warnings.warn(
            f"{what}: harmless for one model per line, a leak for joint models", stacklevel=2
        )


def _check_names(responses: AnnData) -> None:
    """Refuse folds that part two names of one perturbation."""
    about, names = responses.uns.get("perturbcore", {}), responses.obs["perturbation"].astype(str)
    if about.get("published_split"):
        return
    fold = pd.Series(responses.obs["fold"].to_numpy(), names.to_numpy()).groupby(level=0).first()
    same = same_perturbation(fold.index, about.get("identifier", "symbol"))
    for line in merged(same[fold.groupby(same).transform("nunique") > 1]):
        raise LeakError(
            f"{line}: one perturbation by its names, but in different folds (column 'fold'); drop "
            "the column, so that folds are made anew, or rename what is not the same"
        )


def check_disjoint(train, test) -> None:
    """Raise `LeakError` where a test perturbation is also among the training ones."""
    both = pd.Index(train).intersection(pd.Index(test))
    if len(both):
        raise LeakError(
            f"{len(both)} test perturbations are also in training, for example '{both[0]}': "
            "make the folds again with assign_folds"
        )
