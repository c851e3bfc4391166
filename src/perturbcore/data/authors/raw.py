"""The authors' raw screens, as documented, declared as screens of this project.

Essential: ``raw_data.h5ad``; Norman: ``NormanWeissman2019_filtered.h5ad`` and
``GEARS_perturb_processed.h5ad``; Sci-Plex: the files of GEO (``*UMI.count.matrix*`` and beside it)
and ``mart_export_protein_coding.txt``; Tahoe: a ``.h5ad`` per cell line below ``raw`` and
``tahoe_coding_non_mt_genes.txt``.
"""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.authors.layout import Layout, layout_of
from perturbcore.data.read import check_table, existing, numbers, read_csv, read_h5ad, refuse
from perturbcore.data.screens.declare import declare_screen, read_screen

TAHOE_COLUMNS = ("cell_line", "plate", "drug", "drugname_drugconc", "pass_filter")
SYMBOLS = ("gene_name", "gene_symbol", "symbol", "gene_short_name")


def raw_screens(
    dataset: str,
    folder,
    *,
    filter_first: bool = False,
    dose: float | None = None,
    backed: bool = True,
) -> Iterator[AnnData]:
    """Read the raw cells of a data set; `filter_first`: drop other genes, then normalise."""
    layout = layout_of(dataset)
    folder = raw_folder(dataset, folder)
    if dataset == "essential":
        yield read_screen(folder / "raw_data.h5ad", backed=backed, **layout.declared)
    elif dataset == "norman":
        yield _norman(folder, layout)
    else:
        dose = layout.dose if dose is None else float(dose)
        for part in (_sciplex if dataset == "sciplex" else _tahoe)(folder, layout):
            yield _chemical(layout, *part, dose=dose, filter_first=filter_first)


def raw_folder(dataset: str, folder) -> Path:
    """Return the folder of a data set's raw files: `folder` itself, or the part of it so called."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return folder / dataset if (folder / dataset).is_dir() else folder


def _norman(folder: Path, layout: Layout) -> AnnData:
    path = folder / "NormanWeissman2019_filtered.h5ad"
    cells = read_h5ad(path, ("perturbation", "nperts", "gemgroup"))
    check_table(cells.var, ["ensemble_id"], f"{path}: var")
    gears = read_h5ad(folder / "GEARS_perturb_processed.h5ad").var
    ids = cells.var["ensemble_id"].astype(str)
    kept = ids.isin(set(gears.index.astype(str))).to_numpy()
    if not kept.any():
        raise InputError(
            f"{path}: no 'ensemble_id' is among the genes of GEARS_perturb_processed.h5ad, such as "
            f"'{gears.index[0]}'"
        )
    if ids[kept].duplicated().any():
        raise InputError(f"{path}: 'ensemble_id' has {ids[kept][ids[kept].duplicated()][0]} twice")
    known = dict(zip(cells.var_names.astype(str), ids, strict=True))
    if "gene_name" in gears:
        known |= dict(zip(gears["gene_name"].astype(str), gears.index.astype(str), strict=True))
    n = numbers(cells.obs["nperts"], "nperts", path).to_numpy()
    cells = cells[n <= 1]
    symbol = cells.obs["perturbation"].astype(str)
    target = symbol.map(known | layout.renamed).mask(n[n <= 1] == 0, layout.raw["control"])
    if target.isna().any():
        lost = sorted(set(symbol[target.isna()]))
        warnings.warn(
            f"{path}: column 'perturbation': {len(lost)} symbols have no Ensembl id in the gene "
            f"tables of the two files and are kept under their own name, such as {lost[0]}; no "
            "embedding by Ensembl id has them",
            stacklevel=2,
        )
    obs = pd.DataFrame(
        {"gene_id": target.fillna(symbol), "symbol": symbol, "gemgroup": cells.obs["gemgroup"]}
    )
    var = pd.DataFrame(index=pd.Index(ids[kept].to_numpy(), dtype=str))
    screen = AnnData(_csr(cells.X[:, np.flatnonzero(kept)]), obs=obs, var=var)
    return declare_screen(screen, **layout.declared)


def _sciplex(folder: Path, layout: Layout) -> Iterator[tuple]:
    matrix = _one(folder, "*UMI.count.matrix*", "the counts")
    genes = _table(_one(folder, "*gene.annotations*", "the genes of the matrix"), names=range(3))
    if genes[2].notna().any():  # row names come first
        genes = genes.iloc[:, 1:].set_axis([0, 1], axis=1)
    about_path = _one(folder, "*pData*", "what was done to the cells")
    about = _table(about_path, header=0)
    check_table(about, ("cell", *layout.columns_of_cells, "dose"), about_path)
    refuse(about["cell"].duplicated(), "cell", about["cell"], about_path, ", where it is not first")
    barcodes = about[["cell"]].set_axis([0], axis=1)
    if any(folder.glob("*cell.annotations*")):
        barcodes = _table(_one(folder, "*cell.annotations*", "the cells of the matrix"))
    entries = _table(matrix).iloc[:, :3].set_axis(["gene", "cell", "count"], axis=1)
    for column, size in (("gene", len(genes)), ("cell", len(barcodes))):
        counted = f"it counts from 1 to {size}"
        index = numbers(entries[column], column, matrix, whole=counted)
        refuse(~index.between(1, size), column, index, matrix, f": {counted}")
    X = sp.csr_matrix(
        (entries["count"].astype(np.float32), (entries["cell"] - 1, entries["gene"] - 1)),
        shape=(len(barcodes), len(genes)),
    )
    obs = about.set_index("cell").rename(columns=layout.columns_of_cells)
    obs = obs.reindex(barcodes[0].astype(str)).rename_axis(index=None)
    var = pd.DataFrame({"gene_name": genes[1].to_numpy()}, index=genes[0].astype(str).to_numpy())
    cells = AnnData(X, obs=obs, var=var)
    cells = cells[cells.obs["cell_line"].notna().to_numpy()]
    listed = read_csv(folder / "mart_export_protein_coding.txt", ("Gene name",))["Gene name"]
    dose = numbers(cells.obs["dose"], "dose", matrix)
    vehicle = cells.obs["drug"].astype(str).str.strip() == layout.raw["control"]
    yield cells, dose, vehicle.to_numpy(), set(listed), matrix


def _tahoe(folder: Path, layout: Layout) -> Iterator[tuple]:
    inside = folder / "raw" if (folder / "raw").is_dir() else folder
    files = [f for f in sorted(inside.glob("*.h5ad")) if not f.name.startswith("tahoe_")]
    if not files:
        raise InputError(f"{inside}: no .h5ad file of raw cells (one per cell line)")
    lines = existing(folder / "tahoe_coding_non_mt_genes.txt").read_text(encoding="utf-8")
    listed = {line.strip() for line in lines.splitlines()} - {""}
    for path in files:
        cells = read_h5ad(path, TAHOE_COLUMNS)
        obs = cells.obs[list(TAHOE_COLUMNS)].astype(str)
        keep = (obs["pass_filter"] == "full") & ~obs["cell_line"].isin(layout.lines_dropped)
        keep &= ~obs["drug"].str.strip().isin(layout.drugs_dropped)
        if keep.any():
            text = obs["drugname_drugconc"][keep]
            dose = text.map({t: _concentration(t, path) for t in text.unique()}).astype(float)
            yield cells[keep.to_numpy()], dose, (dose == 0).to_numpy(), listed, path


def _chemical(
    layout: Layout,
    cells: AnnData,
    doses: pd.Series,
    control: np.ndarray,
    listed: set[str],
    path: Path,
    *,
    dose: float,
    filter_first: bool,
) -> AnnData:
    """Declare one dose and the vehicle; batches are plates."""
    column = next((c for c in SYMBOLS if c in cells.var), None)
    symbols = cells.var[column] if column else cells.var_names.to_series()
    genes = symbols.astype(str).isin(listed).to_numpy()
    if not genes.any():
        raise InputError(f"{path}: none of its genes is in the list of kept genes")
    known = sorted({float(d) for d in doses[~control]})
    if dose not in known:
        raise InputError(f"{path}: column 'dose' never equals {dose:g}; it has {known[:8]}")
    obs = cells.obs[["drug", "cell_line", "plate"]].astype(str).assign(dose=doses)
    obs["drug"] = obs["drug"].str.strip()
    # cells of a drug on a plate, over all doses: the published filter of the labels counts them so
    n = obs.groupby(["cell_line", "plate", "drug"])["drug"].transform("size")
    rows = np.flatnonzero(control | (obs["dose"] == dose).to_numpy())
    obs = obs.assign(n_drug_plate=n).iloc[rows].copy()
    obs.loc[control[rows], "drug"] = layout.raw["control"]
    plates = pd.MultiIndex.from_frame(obs[["cell_line", "plate"]])
    bare = plates[~control[rows]].difference(plates[control[rows]])
    if len(bare):
        raise InputError(f"{path}: plate '{bare[0][1]}' of {bare[0][0]} has no controls")
    names = pd.Index(cells.var_names.astype(str))
    columns = np.flatnonzero(genes) if filter_first else np.arange(len(names))
    X, var = _csr(cells.X[rows])[:, columns], pd.DataFrame(index=names[columns])
    screen = declare_screen(AnnData(X, obs=obs, var=var), **layout.declared)
    screen.uns["perturbcore"].update(genes=list(names[genes]), dose=float(dose))
    return screen


def _csr(X):
    return sp.csr_matrix(X) if sp.issparse(X) else np.asarray(X)


def _one(folder: Path, pattern: str, what: str) -> Path:
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        raise InputError(f"{folder}: {len(paths)} files {pattern} ({what}); one is needed")
    return paths[0]


def _table(path: Path, header=None, names=None) -> pd.DataFrame:
    # written by R: fields in quotes, and without a name for the first (row names) column
    how = dict(sep=r"\s+", header=header, names=names, quotechar='"')
    try:
        table = pd.read_csv(path, index_col=False if header is None else None, **how)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path}: not a readable table ({error}); fetch it again") from error
    if header is None and len(table) and str(table.iloc[0, 0]) in ("id", "gene_id", "cell"):
        table = table.iloc[1:].reset_index(drop=True)
    return table


def _concentration(text: str, path: Path) -> float:
    try:
        return float(ast.literal_eval(text)[0][1])
    except (ValueError, SyntaxError, IndexError, TypeError) as error:
        raise InputError(
            f"{path}: column 'drugname_drugconc' has {text!r}, not like [('DMSO_TF', 0.0, 'uM')]"
        ) from error
