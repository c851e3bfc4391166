"""Responses in the authors' layout, with their stored folds, as the responses of this project."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.core.tables import check_table
from perturbcore.data.authors.layout import HOW_TO_GET, Layout, data_root, file_of, layout_of
from perturbcore.data.read import numbers, read_h5ad, refuse
from perturbcore.data.responses import dense, make_responses

FOLD_COLUMN = re.compile(r"^fold_(\d+)$")


def read_authors_responses(dataset: str, task: str = "lfc", root=None, *, path=None) -> AnnData:
    """Read the responses of one data set; rows keep the order of the file."""
    layout = layout_of(dataset)
    path = file_of(dataset, task, root) if path is None else Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of the authors' data; {HOW_TO_GET}")
    adata = read_h5ad(path, layout.columns)
    if adata.X is None:
        raise InputError(f"{path}: it has no X; fetch it again")
    obs = adata.obs.reset_index(drop=True)
    notes: list[str] = []
    rows = np.flatnonzero(_usable(layout, obs, task, path, notes))
    obs = obs.iloc[rows].reset_index(drop=True)
    folds = _test_split if layout.splits == "test_split" else _fold_columns
    new = pd.DataFrame(
        {
            "perturbation": _perturbations(layout, obs, path, notes),
            "cell_line": layout.only_line or obs["cell_line"].astype(str),
            "fold": folds(layout, obs, path, notes),
        }
    )
    for column in ("symbol", "drug", "dose"):
        if column in obs:
            new[column] = obs[column].astype(str).to_numpy()
    X = dense(adata.X[rows])
    if X.dtype.kind not in "fiub":
        raise InputError(f"{path}: X has values of type {X.dtype}, not numbers")
    simulated = adata.uns.get("perturbcore", {}).get("simulated", False)
    about = dict(dataset=dataset, task=task, identifier=layout.identifier, simulated=simulated)
    try:
        out = make_responses(X, new, adata.var_names.astype(str), **about)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
    out.uns["perturbcore"]["notes"] = notes
    return out


def read_control_profiles(dataset: str, root=None) -> pd.DataFrame | None:
    """Read the mean log1p profile of the control cells of each line; None without the file."""
    layout = layout_of(dataset)
    path = data_root(root) / layout.controls
    if not layout.controls or not path.is_file():
        return None
    adata, control = read_h5ad(path, ("gene", "cell_line")), layout.raw["control"]
    rows = np.flatnonzero(adata.obs["gene"].astype(str) == control)
    if not len(rows):
        raise InputError(f"{path}: column 'gene' never says '{control}': it has no control profile")
    table = pd.DataFrame(dense(adata.X[rows]), columns=adata.var_names.astype(str))
    return table.groupby(adata.obs["cell_line"].astype(str).to_numpy()[rows]).mean()


def _usable(layout: Layout, obs: pd.DataFrame, task: str, path: Path, notes: list) -> np.ndarray:
    """Say which rows take part: those with labels, of the published dose."""
    keep = np.ones(len(obs), dtype=bool)
    if task == "deg" and layout.splits == "test_split":
        # two genes that share a symbol have rows without obs there, which the published task drops
        columns = [c for c in (layout.perturbation, "test_split") if c in obs]
        keep = obs[columns].notna().all(axis=1).to_numpy()
        if not keep.all():
            notes.append(
                f"{path.name}: {int((~keep).sum())} rows without a gene or fold are dropped"
            )
    if layout.dose is not None and "dose" in obs:
        if obs.duplicated(list({"cell_line", layout.perturbation, "drug"})).any():
            dose = pd.to_numeric(obs["dose"].astype(str), errors="coerce")
            keep &= (dose == layout.dose).to_numpy()
            notes.append(
                f"{path.name}: of several doses only {layout.dose:g} is kept "
                f"({int(keep.sum())} of {len(obs)} rows)"
            )
    if not keep.any():
        why = "" if layout.dose is None else f": column 'dose' never equals {layout.dose:g}"
        raise InputError(f"{path}: no row is left{why}")
    return keep


def _perturbations(layout: Layout, obs: pd.DataFrame, path: Path, notes: list) -> np.ndarray:
    column = layout.perturbation
    values = obs[column]
    refuse(values.isna(), column, values, path, "; give it a name, or drop the row")
    if column != "pubchem_cid":
        return values.astype(str).to_numpy()
    number = numbers(values, column, path, whole="a PubChem CID is a whole number")
    cid = number.astype("int64").astype(str)
    shared = cid[pd.DataFrame({"line": obs["cell_line"], "cid": cid}).duplicated()].unique()
    if len(shared):
        notes.append(
            f"{path.name}: drugs share PubChem CID {', '.join(shared[:5])}: each is a perturbation "
            "of its own, with the same embedding"
        )
    return np.where(cid.isin(shared), cid + " (" + obs["drug"].astype(str) + ")", cid)


def _test_split(layout: Layout, obs: pd.DataFrame, path: Path, notes: list) -> np.ndarray:
    other = "'perturbcore paper responses --folds' takes it from another file"
    check_table(obs, ["test_split"], f"{path}: obs", way_out=other)
    folds = numbers(obs["test_split"], "test_split", path, whole="a fold is 0, 1, ...")
    return folds.astype(int).to_numpy()


def _fold_columns(layout: Layout, obs: pd.DataFrame, path: Path, notes: list) -> np.ndarray:
    names = sorted((c for c in obs if FOLD_COLUMN.match(str(c))), key=lambda c: int(c[5:]))
    check_table(obs, ["fold_0", "fold_1", *names], f"{path}: obs")
    tests = obs[names].astype(str) == "test"
    for column in names:
        if not tests[column].any():
            raise InputError(f"{path}: column '{column}' never says 'test'")
    often = tests.sum(axis=1).to_numpy()
    if (often > 1).any():
        row = int((often > 1).argmax())
        raise InputError(
            f"{path}: row {row + 1} ('{obs[layout.perturbation].iloc[row]}', "
            f"{obs['cell_line'].iloc[row]}) says 'test' in several columns: "
            f"{', '.join(tests.columns[tests.iloc[row]])}"
        )
    if (often == 0).any():
        notes.append(f"{path.name}: {int((often == 0).sum())} rows are in no fold's test set")
    number = np.array([int(c[5:]) for c in names])
    return np.where(often == 1, number[tests.to_numpy().argmax(axis=1)], -1)
