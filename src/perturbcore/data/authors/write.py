"""Responses of raw cells, written in the authors' layout."""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.authors.layout import layout_of
from perturbcore.data.authors.raw import CONTROLS, check_choice, raw_folder, raw_screens
from perturbcore.data.authors.read import FOLD_COLUMN
from perturbcore.data.effects.ba_ate import ba_ate
from perturbcore.data.read import read_csv, read_h5ad

DRUG_METADATA = (
    "pubchem_cid",
    "targets",
    "moa-broad",
    "moa-fine",
    "human-approved",
    "clinical-trials",
    "gpt-notes-approval",
    "canonical_smiles",
)


def effects_of_raw(
    dataset: str,
    folder,
    *,
    batches: str = "all",
    totals: str = "all",
    dose: float | None = None,
    backed: bool = True,
    progress: bool = True,
) -> AnnData:
    """Compute the published log fold-changes from raw cells.

    Parameters
    ----------
    dataset : {"essential", "norman", "sciplex", "tahoe"}
    folder : path
        See `perturbcore.data.authors.raw.raw_screens`.
    batches : {"all", "with_controls"}
        Every batch with perturbed cells, as the published code, or only those with controls too, as
        the paper (Essential; elsewhere each batch has controls).
    totals : {"all", "kept"}
        Chemicals: cells are normalised over all genes, as the published effects are, or over the
        kept ones, as its experimental error is.
    dose : float, optional
        Chemicals: the published dose by default.
    backed : bool
        Essential: leave the cells on disk.
    progress : bool

    Returns
    -------
    AnnData
        Rows and obs columns of the documented layout, without folds (Norman has its folds, whose
        rule is known; see `norman_folds`).

    References
    ----------
    Cole et al. 2026, Methods 4.1.2 and Eq. 1-6; the released preprocessing.
    """
    check_choice("totals", totals, ("all", "kept"))
    parts = []
    for screen in raw_screens(
        dataset, folder, filter_first=totals == "kept", dose=dose, backed=backed
    ):
        about = screen.uns["perturbcore"]
        made = ba_ate(
            screen,
            control=CONTROLS[dataset],
            batches=batches,
            genes=about.get("genes"),
            progress=progress,
        )
        parts.append(_documented(dataset, made, screen))
    return _joined(dataset, parts, folder)


def labels_of_raw(
    dataset: str,
    folder,
    *,
    test: str = "welch",
    min_cells: int | None = None,
    dose: float | None = None,
    backed: bool = True,
    progress: bool = True,
) -> AnnData:
    """Compute the published labels of differential expression from raw cells.

    Parameters
    ----------
    dataset : {"essential", "sciplex", "tahoe"}
    folder : path
    test : {"welch", "student"}
        The published code's test, or the paper's.
    min_cells : int, optional
        Groups must have more cells than this: 30 for a perturbation of Essential, 20 for a drug on a
        plate (over all doses), as in the published code; the paper says 30 everywhere.
    dose, backed, progress
        See `effects_of_raw`.

    Returns
    -------
    AnnData
        X int8 in {-1, 0, 1}; rows and obs columns of the documented layout, without folds.

    References
    ----------
    Cole et al. 2026, Methods 4.1.3; the released preprocessing.
    """
    from perturbcore.data.authors.labels import labels_of_screen

    if "deg" not in layout_of(dataset).files:
        raise ParameterError(f"the published benchmark has no labels for '{dataset}'")
    parts = []
    for screen in raw_screens(dataset, folder, filter_first=True, dose=dose, backed=backed):
        made = labels_of_screen(dataset, screen, test=test, min_cells=min_cells, progress=progress)
        parts.append(_documented(dataset, made, screen))
    out = _joined(dataset, parts, folder)
    out.X = np.asarray(out.X).astype(np.int8)
    return out


def _documented(dataset: str, made: AnnData, screen: AnnData) -> AnnData:
    """Give responses the columns and row names of the documented layout."""
    layout = layout_of(dataset)
    obs = made.obs
    out = pd.DataFrame({"cell_line": obs["cell_line"].astype(str).to_numpy()})
    perturbation = obs["perturbation"].astype(str).to_numpy()
    if layout.identifier == "ensembl":
        out.insert(0, "gene_id", perturbation)
        column = "symbol" if "symbol" in screen.obs else "gene"
        if column in screen.obs:
            names = screen.obs.groupby("perturbation", observed=True)[column].first().astype(str)
            out["symbol"] = names.reindex(perturbation).to_numpy()
    else:
        out.insert(0, "drug", perturbation)
        out["dose"] = float(screen.uns["perturbcore"]["dose"])
    for column in ("n_cells", "n_batches"):
        if column in obs:
            out[column] = obs[column].to_numpy()
    if dataset == "norman":
        # the published rows lie in the order of the symbols, and the folds are drawn on that order
        order = np.argsort(out["symbol"].to_numpy(), kind="stable")
        out, made = out.iloc[order].drop(columns="cell_line"), made[order]
        out["test_split"] = norman_folds(len(out))
    names = perturbation if dataset != "norman" else out["gene_id"].to_numpy()
    out.index = pd.Index(names, dtype=str)
    if dataset != "norman":
        out.index = out.index + "_" + out["cell_line"].to_numpy()
    X = np.asarray(made.layers["deg"] if "deg" in made.layers else made.X)
    return AnnData(X, obs=out, var=pd.DataFrame(index=made.var_names.copy()))


def _joined(dataset: str, parts: list[AnnData], folder) -> AnnData:
    import anndata

    if not parts:
        raise InputError(
            f"{folder}: no cell line of '{dataset}' is left after the published exclusions"
        )
    out = anndata.concat(parts, join="inner") if len(parts) > 1 else parts[0]
    if dataset == "tahoe":
        _add_metadata(out, raw_folder(dataset, folder) / "drug_metadata.parquet")
    return out


def _add_metadata(out: AnnData, path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file: the drug metadata with 'drug' and 'pubchem_cid'")
    table = pd.read_parquet(path)
    for column in ("drug", "pubchem_cid"):
        if column not in table:
            raise InputError(
                f"{path}: no column '{column}' (it has: {', '.join(map(str, table.columns))})"
            )
    table["drug"] = table["drug"].astype(str).str.strip()
    table = table.drop_duplicates("drug").set_index("drug")
    for column in DRUG_METADATA:
        if column in table:
            values = table[column].reindex(out.obs["drug"])
            # text columns must be text throughout, or they cannot be written
            plain = (
                values
                if pd.api.types.is_numeric_dtype(values)
                else values.astype("string").fillna("")
            )
            out.obs[column] = plain.astype(
                object if plain.dtype == "string" else plain.dtype
            ).to_numpy()


def norman_folds(n: int, n_folds: int = 5, seed: int = 42) -> np.ndarray:
    """Fold of each row by the published rule: a legacy permutation cut into nearly equal parts.

    Parameters
    ----------
    n : int
        Rows, in the order of their symbols.
    n_folds, seed : int

    Returns
    -------
    (n,) int array
    """
    folds = np.empty(n, dtype=int)
    order = np.random.RandomState(seed).permutation(n)  # noqa: NPY002 the published draw is legacy
    for fold, part in enumerate(np.array_split(order, n_folds)):
        folds[part] = fold
    return folds


def add_stored_folds(table: AnnData, dataset: str, source) -> AnnData:
    """Take the folds of a file of the layout, or of ``tahoe_splits_drug.csv``, in place.

    Parameters
    ----------
    table : AnnData
        Of `effects_of_raw` or `labels_of_raw`.
    dataset : str
    source : path
        ``.h5ad`` with `test_split` (genes) or `fold_0` ... (drugs) in obs, matched by cell line and
        gene or drug; or ``.csv`` with `drug` and `fold_0` ..., matched by drug.

    Raises
    ------
    InputError
        The file lacks a column, or a row of `table` has no fold in it.
    """
    layout, source = layout_of(dataset), Path(source)
    key = "gene_id" if layout.identifier == "ensembl" else "drug"
    by_line = source.suffix != ".csv" and not layout.only_line
    on = [key, "cell_line"] if by_line else [key]
    if source.suffix == ".csv":
        folds = pd.read_csv(source, dtype=str) if source.is_file() else read_csv(source, on)
    else:
        folds = read_h5ad(source, on).obs
    if layout.splits == "test_split":
        columns = ["test_split"]
    else:
        columns = [c for c in folds if FOLD_COLUMN.match(str(c))]
    missing = [c for c in (*on, *(columns or ["fold_0"])) if c not in folds]
    if missing:
        raise InputError(
            f"{source}: no column '{missing[0]}' (it has: {', '.join(map(str, folds.columns))})"
        )
    folds = folds[[*on, *columns]].astype({c: str for c in on})
    folds[key] = folds[key].str.strip()
    folds = folds.drop_duplicates(on).set_index(on)
    wanted = table.obs[on].astype(str)
    index = pd.MultiIndex.from_frame(wanted) if by_line else pd.Index(wanted[key])
    found = folds.reindex(index)
    lost = found[columns[0]].isna().to_numpy()
    if lost.any():
        raise InputError(f"{source}: no fold for {int(lost.sum())} rows, such as {index[lost][0]}")
    for column in columns:
        table.obs[column] = found[column].to_numpy()
    return table
