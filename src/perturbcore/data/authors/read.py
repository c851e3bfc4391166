"""Responses in the authors' layout: read as those of this project, and made from raw cells."""

import re
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.authors.layout import HOW_TO_GET, Layout, data_root, file_of, layout_of
from perturbcore.data.authors.raw import raw_folder, raw_screens
from perturbcore.data.deg import deg_labels
from perturbcore.data.effects import ba_ate
from perturbcore.data.read import check_table, existing, numbers, read_h5ad, refuse
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
            notes.append(f"{path.name}: {int((~keep).sum())} rows without gene or fold are dropped")
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


DRUG_METADATA = (
    "pubchem_cid", "targets", "moa-broad", "moa-fine", "human-approved", "clinical-trials",
    "gpt-notes-approval", "canonical_smiles",
)  # fmt: skip


def effects_of_raw(
    dataset: str, folder, *, batches: str = "all", totals: str = "all", **raw
) -> AnnData:
    """Compute the published log fold-changes from raw cells, in the documented layout.

    `batches`: of `perturbcore.data.effects.ba_ate`; `totals`: whether the total count of a cell of
    a chemical screen is over "all" genes (normalise, then filter) or those "kept" (the reverse).
    """
    layout = layout_of(dataset)
    first = check_choice("totals", totals, ("all", "kept")) == "kept"

    def effects(screen: AnnData) -> AnnData:
        genes = screen.uns["perturbcore"].get("genes")
        how = dict(control=layout.control, batches=batches, genes=genes)
        return ba_ate(screen, min_cells=1, **how)

    return _of_raw(layout, folder, effects, filter_first=first, **raw)


def labels_of_raw(
    dataset: str, folder, *, test: str = "welch", min_cells: int | None = None, **raw
) -> AnnData:
    """Compute the published labels of differential expression from raw cells."""
    layout = layout_of(dataset)
    if "deg" not in layout.files:
        raise ParameterError(f"the published benchmark has no labels for '{dataset}'")
    least = layout.min_cells if min_cells is None else int(min_cells)
    how = dict(variant=layout.min_cells_of, test=test)

    def labels(screen: AnnData) -> AnnData:
        if not layout.chemical:
            return deg_labels(screen, min_cells=least, **how)
        enough = (screen.obs["n_drug_plate"] > least).to_numpy()
        if not (enough & ~screen.obs["is_control"].to_numpy(dtype=bool)).any():
            raise InputError(f"{dataset}: no drug has > {least} cells on a plate; lower min_cells")
        # cells were counted here; what is left must only have a variance
        return deg_labels(screen[np.flatnonzero(enough)].copy(), min_cells=1, **how)

    out = _of_raw(layout, folder, labels, filter_first=True, **raw)
    out.X = np.asarray(out.X).astype(np.int8)
    return out


def _of_raw(layout: Layout, folder, make: Callable[[AnnData], AnnData], **how) -> AnnData:
    """Make responses of every raw screen and lay them out as documented."""
    screens = raw_screens(layout.name, folder, **how)
    parts = [_documented(layout, make(screen), screen) for screen in screens]
    if not parts:
        raise InputError(f"{folder}: no line of '{layout.name}' is left after published exclusions")
    out = anndata.concat(parts, join="inner") if len(parts) > 1 else parts[0]
    if layout.name == "tahoe":
        _add_metadata(out, raw_folder("tahoe", folder) / "drug_metadata.parquet")
    return out


def _documented(layout: Layout, made: AnnData, screen: AnnData) -> AnnData:
    """Give responses the columns and row names of the documented layout."""
    obs = made.obs[["perturbation", "cell_line"]].astype(str)
    out = obs.set_axis(["drug" if layout.chemical else "gene_id", "cell_line"], axis=1)
    symbol = next((c for c in ("symbol", "gene") if c in screen.obs), None)
    if layout.chemical:
        out["dose"] = float(screen.uns["perturbcore"]["dose"])
    elif symbol:
        names = screen.obs.groupby("perturbation", observed=True)[symbol].first().astype(str)
        out["symbol"] = names.reindex(obs["perturbation"]).to_numpy()
    counts = [c for c in ("n_cells", "n_batches") if c in made.obs]
    out[counts] = made.obs[counts]
    out.index = pd.Index(obs["perturbation"] + "_" + obs["cell_line"], dtype=str, name=None)
    if layout.only_line:
        # the published rows lie in the order of the symbols, and the folds are drawn on that order
        order = np.argsort(out["symbol"].to_numpy(), kind="stable")
        out, made = out.iloc[order].drop(columns="cell_line"), made[order]
        out["test_split"] = norman_folds(len(out))
        out.index = pd.Index(out["gene_id"].to_numpy(), dtype=str)
    X = np.asarray(made.layers["deg"] if "deg" in made.layers else made.X)
    return AnnData(X, obs=out, var=pd.DataFrame(index=made.var_names.copy()))


def _add_metadata(out: AnnData, path: Path) -> None:
    table = pd.read_parquet(existing(path))
    check_table(table, ("drug", "pubchem_cid"), path)
    table["drug"] = table["drug"].astype(str).str.strip()
    table = table.drop_duplicates("drug").set_index("drug")
    for column in [c for c in DRUG_METADATA if c in table]:
        values = table[column].reindex(out.obs["drug"])
        if not pd.api.types.is_numeric_dtype(values):
            # text columns must be text throughout, or they cannot be written
            values = values.astype("string").fillna("").astype(object)
        out.obs[column] = values.to_numpy()


def norman_folds(n: int) -> np.ndarray:
    """Fold of each of n rows, in the order of their symbols: a legacy permutation, cut in parts."""
    folds = np.empty(n, dtype=int)
    order = np.random.RandomState(42).permutation(n)  # noqa: NPY002 the published draw is legacy
    for fold, part in enumerate(np.array_split(order, 5)):
        folds[part] = fold
    return folds


def add_stored_folds(table: AnnData, dataset: str, source) -> AnnData:
    """Take the folds of a file of the layout, or of ``tahoe_splits_drug.csv``, in place."""
    layout, source = layout_of(dataset), Path(source)
    key = "drug" if layout.chemical else "gene_id"
    csv = source.suffix == ".csv"
    on = [key] if csv or layout.only_line else [key, "cell_line"]
    folds = pd.read_csv(existing(source), dtype=str) if csv else read_h5ad(source, on).obs
    by_column = [c for c in folds if FOLD_COLUMN.match(str(c))]
    columns = ["test_split"] if layout.splits == "test_split" else by_column or ["fold_0"]
    check_table(folds, (*on, *columns), source)
    folds = folds[[*on, *columns]].astype({c: str for c in on})
    folds[key] = folds[key].str.strip()
    folds = folds.drop_duplicates(on).set_index(on)
    wanted = pd.MultiIndex.from_frame(table.obs[on].astype(str))
    stored = folds.reindex(wanted if len(on) > 1 else wanted.get_level_values(0))
    lost = stored[columns[0]].isna().to_numpy()
    if lost.any():
        raise InputError(f"{source}: no fold for {int(lost.sum())} rows, such as {wanted[lost][0]}")
    for column in columns:
        table.obs[column] = stored[column].to_numpy()
    return table
