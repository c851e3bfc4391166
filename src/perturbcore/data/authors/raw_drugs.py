"""The authors' raw chemical screens, as documented, declared as screens of this project.

Sci-Plex: a UMI matrix in text (1-based gene, cell, count; a file ``*UMI.count.matrix*``), its genes
(``*gene.annotations*``: id, name), its cells (``*cell.annotations*``, in the order of the matrix)
and what was done to them (``*pData*``: `cell_type`, `product_name`, `plate_oligo`, `dose`); or all
of it as ``*.h5ad`` with these columns of obs and `gene_name` of var. Kept genes:
``mart_export_protein_coding.txt``, column `Gene name`.

Tahoe: a ``.h5ad`` a cell line below ``raw`` (obs `cell_line`, `plate`, `drug`,
`drugname_drugconc`, `pass_filter`). Kept genes: ``tahoe_coding_non_mt_genes.txt``, a symbol a line.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.read import read_csv, read_h5ad
from perturbcore.data.screens.declare import declare_screen

VEHICLE, SOLVENT = "Vehicle", "DMSO_TF"
SCIPLEX_COLUMNS = {"cell_type": "cell_line", "product_name": "drug", "plate_oligo": "plate"}
# too few cells, and drugs without a structure of their own, in the published data
TAHOE_LINES_DROPPED = ("CVCL_1571", "CVCL_1531", "CVCL_1715", "CVCL_1577", "CVCL_1716")
TAHOE_DRUGS_DROPPED = ("Trametinib (DMSO_TF solvate)", "Sacubitril/Valsartan", "Verteporfin")
SYMBOLS = ("gene_name", "gene_symbol", "symbol", "gene_short_name")


def sciplex(folder: Path, dose: float, filter_first: bool) -> Iterator[AnnData]:
    """Yield the Sci-Plex screen: one dose and the vehicle, batches are plates."""
    cells, path = _sciplex_cells(folder)
    cells.obs = cells.obs.rename(columns=SCIPLEX_COLUMNS)
    _need(cells.obs, ("cell_line", "drug", "plate", "dose"), path)
    cells = cells[cells.obs["cell_line"].notna().to_numpy()]
    listed = read_csv(folder / "mart_export_protein_coding.txt", ("Gene name",))["Gene name"]
    keep = _symbols(cells, path).isin(set(listed)).to_numpy()
    drug = cells.obs["drug"].astype(str).str.strip()
    obs = pd.DataFrame(
        {
            "drug": drug,
            "cell_line": cells.obs["cell_line"].astype(str),
            "plate": cells.obs["plate"].astype(str),
            "dose": _numbers(cells.obs["dose"], "dose", path),
        }
    )
    vehicle = (drug == VEHICLE).to_numpy()
    yield _chemical(cells, obs, keep, vehicle, dose, filter_first, "sciplex", path)


def tahoe(folder: Path, dose: float, filter_first: bool) -> Iterator[AnnData]:
    """Yield the Tahoe screens, one a file: one dose and the solvent, batches are plates."""
    inside = folder / "raw" if (folder / "raw").is_dir() else folder
    files = [f for f in sorted(inside.glob("*.h5ad")) if not f.name.startswith("tahoe_")]
    if not files:
        raise InputError(f"{inside}: no .h5ad file of raw cells (one a cell line)")
    listed = folder / "tahoe_coding_non_mt_genes.txt"
    if not listed.is_file():
        raise InputError(f"{listed}: no such file: the list of kept gene symbols, one a line")
    genes = {
        line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()
    }
    for path in files:
        cells = read_h5ad(path, ("cell_line", "plate", "drug", "drugname_drugconc", "pass_filter"))
        full = (cells.obs["pass_filter"].astype(str) == "full").to_numpy()
        line = cells.obs["cell_line"].astype(str)
        drug = cells.obs["drug"].astype(str).str.strip()
        full &= (
            ~line.isin(TAHOE_LINES_DROPPED).to_numpy() & ~drug.isin(TAHOE_DRUGS_DROPPED).to_numpy()
        )
        if not full.any():
            continue
        cells, line, drug = cells[full], line[full], drug[full]
        keep = _symbols(cells, path).isin(genes).to_numpy()
        parsed = {
            t: _concentration(t, path) for t in cells.obs["drugname_drugconc"].astype(str).unique()
        }
        amount = cells.obs["drugname_drugconc"].astype(str).map(parsed).astype(float)
        obs = pd.DataFrame(
            {
                "drug": drug,
                "cell_line": line,
                "plate": cells.obs["plate"].astype(str),
                "dose": amount,
            }
        )
        solvent = (amount == 0).to_numpy()
        yield _chemical(cells, obs, keep, solvent, dose, filter_first, "tahoe", path)


def _chemical(cells, obs, genes, control, dose, filter_first, dataset, path) -> AnnData:
    if not genes.any():
        raise InputError(f"{path}: none of its genes is in the list of kept genes")
    known = {float(d) for d in obs["dose"][~control]}
    if dose not in known:
        raise InputError(f"{path}: column 'dose' never equals {dose:g}; it has {sorted(known)[:8]}")
    # cells of a drug on a plate, over all doses: the published filter of the labels counts them so
    n = obs.groupby(["cell_line", "plate", "drug"])["drug"].transform("size").to_numpy()
    rows = np.flatnonzero(control | (obs["dose"] == dose).to_numpy())
    obs = obs.assign(n_drug_plate=n).iloc[rows].copy()
    obs.loc[control[rows], "drug"] = VEHICLE if dataset == "sciplex" else SOLVENT
    both = obs[~control[rows]].drop_duplicates(["cell_line", "plate"])[["cell_line", "plate"]]
    have = obs[control[rows]].drop_duplicates(["cell_line", "plate"])[["cell_line", "plate"]]
    bare = both.merge(have, how="left", indicator=True).query("_merge == 'left_only'")
    if len(bare):
        raise InputError(
            f"{path}: plate '{bare['plate'].iloc[0]}' of {bare['cell_line'].iloc[0]} has no controls"
        )
    names = pd.Index(cells.var_names.astype(str))
    columns = np.flatnonzero(genes) if filter_first else np.arange(len(names))
    X = cells.X[rows]
    X = (sp.csr_matrix(X) if sp.issparse(X) else np.asarray(X))[:, columns]
    screen = declare_screen(
        AnnData(X, obs=obs, var=pd.DataFrame(index=names[columns])),
        dataset=dataset,
        perturbation="drug",
        batch="plate",
        cell_line="cell_line",
        control=VEHICLE if dataset == "sciplex" else SOLVENT,
        scale="counts",
        identifier="drug",
        unmatched="keep",
    )
    screen.uns["perturbcore"]["genes"] = list(names[genes])
    screen.uns["perturbcore"]["dose"] = float(dose)
    return screen


def _sciplex_cells(folder: Path) -> tuple[AnnData, Path]:
    matrix = _one(folder, "*UMI.count.matrix*")
    if matrix is None:
        files = [f for f in sorted(folder.glob("*.h5ad")) if "filtered" not in f.name]
        files = [f for f in files if "embeddings" not in f.name]
        if len(files) != 1:
            raise InputError(
                f"{folder}: neither a file *UMI.count.matrix* nor one .h5ad file of raw cells "
                f"({len(files)} found)"
            )
        return read_h5ad(files[0]), files[0]
    genes = _table(_one(folder, "*gene.annotations*", "the genes of the matrix"))
    barcodes = _table(_one(folder, "*cell.annotations*", "the cells of the matrix"))
    about_path = _one(folder, "*pData*", "what was done to the cells")
    about = _table(about_path, header=0)
    _need(about, ("cell", *SCIPLEX_COLUMNS, "dose"), about_path)
    about = about.set_index("cell")
    if about.index.has_duplicates:
        raise InputError(
            f"{about_path}: column 'cell' has '{about.index[about.index.duplicated()][0]}' twice"
        )
    try:
        entries = pd.read_csv(matrix, sep=r"\s+", header=None, names=["gene", "cell", "count"])
        entries = entries.astype({"gene": int, "cell": int})
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(
            f"{matrix}: not three columns of numbers ({error}); fetch it again"
        ) from error
    for column, size in (("gene", len(genes)), ("cell", len(barcodes))):
        if not entries[column].between(1, size).all():
            bad = entries[column][~entries[column].between(1, size)].iloc[0]
            raise InputError(f"{matrix}: column '{column}' has {bad}; it counts from 1 to {size}")
    X = sp.csr_matrix(
        (entries["count"].astype(np.float32), (entries["cell"] - 1, entries["gene"] - 1)),
        shape=(len(barcodes), len(genes)),
    )
    obs = about.reindex(barcodes[0].astype(str)).rename_axis(index=None)
    var = pd.DataFrame({"gene_name": genes[1].to_numpy()}, index=genes[0].astype(str).to_numpy())
    return AnnData(X, obs=obs, var=var), matrix


def _one(folder: Path, pattern: str, what: str = "") -> Path | None:
    found = sorted(folder.glob(pattern))
    if len(found) == 1:
        return found[0]
    if not found and not what:
        return None
    raise InputError(
        f"{folder}: {len(found)} files {pattern}" + (f" ({what}); one is needed" if what else "")
    )


def _table(path: Path, header=None) -> pd.DataFrame:
    try:
        # written by R: fields in quotes, and without a name for the first (row names) column
        table = pd.read_csv(
            path,
            sep=r"\s+",
            header=header,
            quotechar='"',
            index_col=False if header is None else None,
        )
    except (
        ValueError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
    ) as error:
        raise InputError(f"{path}: not a readable table ({error}); fetch it again") from error
    if header is None and len(table) and str(table.iloc[0, 0]) in ("id", "gene_id", "cell"):
        table = table.iloc[1:].reset_index(drop=True)
    return table


def _symbols(cells: AnnData, path: Path) -> pd.Series:
    for column in SYMBOLS:
        if column in cells.var:
            return cells.var[column].astype(str)
    return pd.Series(cells.var_names.astype(str), index=cells.var_names)


def _concentration(text: str, path: Path) -> float:
    try:
        return float(ast.literal_eval(text)[0][1])
    except (ValueError, SyntaxError, IndexError, TypeError) as error:
        raise InputError(
            f"{path}: column 'drugname_drugconc' has {text!r}, not like [('DMSO_TF', 0.0, 'uM')]"
        ) from error


def _numbers(values: pd.Series, column: str, path: Path) -> pd.Series:
    out = pd.to_numeric(values.astype(str), errors="coerce")
    if out.isna().any():
        raise InputError(
            f"{path}: column '{column}' has '{values[out.isna()].iloc[0]}', not a number"
        )
    return out


def _need(obs: pd.DataFrame, columns, path: Path) -> None:
    missing = [c for c in columns if c not in obs]
    if missing:
        have = ", ".join(map(str, obs.columns))
        raise InputError(f"{path}: no column '{missing[0]}' (it has: {have})")
