"""Responses of raw cells, written in the authors' layout."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.core.tables import check_table
from perturbcore.data.authors.layout import Layout, layout_of
from perturbcore.data.authors.raw import raw_folder, raw_screens
from perturbcore.data.authors.read import FOLD_COLUMN
from perturbcore.data.deg import deg_labels
from perturbcore.data.effects.ba_ate import ba_ate
from perturbcore.data.read import existing, read_h5ad

DRUG_METADATA = (
    "pubchem_cid", "targets", "moa-broad", "moa-fine", "human-approved", "clinical-trials",
    "gpt-notes-approval", "canonical_smiles",
)  # fmt: skip


def effects_of_raw(
    dataset: str, folder, *, batches: str = "all", totals: str = "all", progress=True, **raw
) -> AnnData:
    """Compute the published log fold-changes from raw cells, in the documented layout."""
    layout = layout_of(dataset)
    first = check_choice("totals", totals, ("all", "kept")) == "kept"

    def effects(screen: AnnData) -> AnnData:
        genes = screen.uns["perturbcore"].get("genes")
        how = dict(control=layout.control, batches=batches, genes=genes, progress=progress)
        return ba_ate(screen, min_cells=1, **how)

    return _of_raw(layout, folder, effects, filter_first=first, **raw)


def labels_of_raw(
    dataset: str, folder, *, test: str = "welch", min_cells: int | None = None, progress=True, **raw
) -> AnnData:
    """Compute the published labels of differential expression from raw cells."""
    layout = layout_of(dataset)
    if "deg" not in layout.files:
        raise ParameterError(f"the published benchmark has no labels for '{dataset}'")
    least = layout.min_cells if min_cells is None else int(min_cells)
    how = dict(variant=layout.min_cells_of, test=test, progress=progress)

    def labels(screen: AnnData) -> AnnData:
        if not layout.chemical:
            return deg_labels(screen, min_cells=least, **how)
        enough = (screen.obs["n_drug_plate"] > least).to_numpy()
        if not (enough & ~screen.obs["is_control"].to_numpy(dtype=bool)).any():
            raise InputError(
                f"{dataset}: no drug has more than {least} cells on a plate; lower min_cells"
            )
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
        raise InputError(
            f"{folder}: no cell line of '{layout.name}' is left after the published exclusions"
        )
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


def norman_folds(n: int, n_folds: int = 5, seed: int = 42) -> np.ndarray:
    """Fold of each of n rows, in the order of their symbols: a legacy permutation, cut in parts."""
    folds = np.empty(n, dtype=int)
    order = np.random.RandomState(seed).permutation(n)  # noqa: NPY002 the published draw is legacy
    for fold, part in enumerate(np.array_split(order, n_folds)):
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
