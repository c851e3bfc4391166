"""Responses in the authors' layout, with their stored folds, as the responses of this project."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.authors.layout import Layout, file_of, layout_of, require
from perturbcore.data.read import read_h5ad
from perturbcore.data.responses import make_responses

FOLD_COLUMN = re.compile(r"^fold_(\d+)$")


def read_authors_responses(dataset: str, task: str = "lfc", root=None, *, path=None) -> AnnData:
    """Read the responses of one data set.

    Parameters
    ----------
    dataset : {"essential", "norman", "sciplex", "tahoe"}
    task : {"lfc", "deg"}
    root : path, optional
        Folder of the layout; see `perturbcore.data.authors.layout.data_root`.
    path : path, optional
        This file instead.

    Returns
    -------
    AnnData, (cell line, perturbation) x genes
        See `perturbcore.data.responses`. Rows keep the order of the file, which decides the published
        inner folds. obs: `fold` (-1 where no fold tests the row), for chemicals `drug` and `dose`.
        A drug is named by what its embeddings are indexed by: its name (Sci-Plex) or PubChem CID as
        an integer in text (Tahoe); drugs that share a CID within a cell line are "<CID> (<drug>)".
        ``uns["perturbcore"]["notes"]``: one line for everything that was dropped or is unusual.

    Raises
    ------
    InputError
        The file is absent, unreadable, or not of this layout; the message names file and column.
    """
    layout = layout_of(dataset)
    path = require(file_of(dataset, task, root) if path is None else Path(path))
    adata = read_h5ad(path, layout.columns)
    if adata.X is None:
        raise InputError(f"{path}: it has no X; fetch it again")
    obs = adata.obs.reset_index(drop=True)
    notes: list[str] = []
    keep = _usable(layout, obs, task, path, notes)
    rows = np.flatnonzero(keep)
    obs = obs.iloc[rows].reset_index(drop=True)
    new = pd.DataFrame(
        {
            "perturbation": _perturbations(layout, obs, path, notes),
            "cell_line": layout.only_line or obs["cell_line"].astype(str),
            "fold": _folds(layout, obs, path, notes),
        }
    )
    for column in ("symbol", "drug", "dose"):
        if column in obs:
            new[column] = obs[column].astype(str).to_numpy()
    X = adata.X[rows]
    X = X.toarray() if sp.issparse(X) else np.asarray(X)
    if X.dtype.kind not in "fiub":
        raise InputError(f"{path}: X has values of type {X.dtype}, not numbers")
    simulated = bool(adata.uns.get("perturbcore", {}).get("simulated", False))
    try:
        out = make_responses(
            X,
            new,
            adata.var_names.astype(str),
            dataset=dataset,
            task=task,
            identifier=layout.identifier,
            simulated=simulated,
        )
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
    out.uns["perturbcore"]["notes"] = notes
    return out


def _usable(layout: Layout, obs: pd.DataFrame, task: str, path: Path, notes: list) -> np.ndarray:
    """Say which rows take part: those with labels, of the published dose."""
    keep = np.ones(len(obs), dtype=bool)
    if task == "deg" and layout.splits == "test_split":
        # two genes that share a symbol have rows without obs there, which the published task drops
        lost = obs[layout.perturbation].isna().to_numpy()
        if "test_split" in obs:
            lost |= obs["test_split"].isna().to_numpy()
        if lost.any():
            notes.append(f"{path.name}: {int(lost.sum())} rows without a gene or fold are dropped")
        keep &= ~lost
    if "dose" in obs and layout.dose is not None:
        by = ["cell_line", layout.perturbation, "drug"]
        if obs.duplicated(list(dict.fromkeys(by))).any():
            dose = pd.to_numeric(obs["dose"].astype(str), errors="coerce")
            keep &= (dose == layout.dose).to_numpy()
            notes.append(
                f"{path.name}: of several doses only {layout.dose:g} is kept "
                f"({int(keep.sum())} of {len(obs)} rows)"
            )
    if not keep.any():
        raise InputError(
            f"{path}: no row is left"
            + (f": column 'dose' never equals {layout.dose:g}" if layout.dose is not None else "")
        )
    return keep


def _perturbations(layout: Layout, obs: pd.DataFrame, path: Path, notes: list) -> np.ndarray:
    column = layout.perturbation
    values = obs[column]
    if values.isna().any():
        row = int(values.isna().to_numpy().argmax())
        what = f" (drug '{obs['drug'].iloc[row]}')" if "drug" in obs else ""
        raise InputError(f"{path}: column '{column}' is empty in row {row + 1}{what}")
    if column != "pubchem_cid":
        return values.astype(str).to_numpy()
    number = pd.to_numeric(values.astype(str), errors="coerce")
    wrong = number.isna() | (number != number.round())
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise InputError(
            f"{path}: column 'pubchem_cid' has '{values.iloc[row]}' in row {row + 1}: a PubChem CID "
            "is a whole number"
        )
    cid = number.astype("int64").astype(str)
    shared = cid[pd.DataFrame({"line": obs["cell_line"], "cid": cid}).duplicated()].unique()
    if len(shared):
        notes.append(
            f"{path.name}: drugs share PubChem CID {', '.join(shared[:5])}: each is a perturbation of "
            "its own, with the same embedding"
        )
    drug = obs["drug"].astype(str)
    return np.where(cid.isin(shared), cid + " (" + drug + ")", cid)


def _folds(layout: Layout, obs: pd.DataFrame, path: Path, notes: list) -> np.ndarray:
    if layout.splits == "test_split":
        return _test_split(obs, path)
    names = sorted((c for c in obs if FOLD_COLUMN.match(str(c))), key=lambda c: int(c[5:]))
    if len(names) < 2:
        raise InputError(
            f"{path}: obs needs the columns 'fold_0', 'fold_1', ... of the stored folds (it has: "
            f"{', '.join(map(str, obs.columns))})"
        )
    tests = np.stack([(obs[c].astype(str) == "test").to_numpy() for c in names], axis=1)
    for column, hit in zip(names, tests.any(axis=0), strict=True):
        if not hit:
            raise InputError(f"{path}: column '{column}' never says 'test'")
    often = tests.sum(axis=1)
    if (often > 1).any():
        row = int((often > 1).argmax())
        which = [c for c, t in zip(names, tests[row], strict=True) if t]
        raise InputError(
            f"{path}: row {row + 1} ('{obs[layout.perturbation].iloc[row]}', "
            f"{obs['cell_line'].iloc[row]}) says 'test' in several columns: {', '.join(which)}"
        )
    if (often == 0).any():
        notes.append(f"{path.name}: {int((often == 0).sum())} rows are in no fold's test set")
    number = np.array([int(c[5:]) for c in names])
    return np.where(often == 1, number[tests.argmax(axis=1)], -1)


def _test_split(obs: pd.DataFrame, path: Path) -> np.ndarray:
    if "test_split" not in obs:
        raise InputError(
            f"{path}: obs has no column 'test_split' (it has: {', '.join(map(str, obs.columns))}); "
            "'perturbcore paper responses --folds' takes it from another file"
        )
    text = obs["test_split"].astype(object)
    number = pd.to_numeric(text.where(text.notna(), None), errors="coerce")
    wrong = number.isna() | (number != number.round()) | (number < 0)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise InputError(
            f"{path}: column 'test_split' has '{text.iloc[row]}' in row {row + 1}: a fold is 0, 1, ..."
        )
    return number.astype(int).to_numpy()
