"""Read foreign files loudly: a wrong one is named with its column and value, never half read."""

import csv
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata.io import read_elem, sparse_dataset

from perturbcore.core.errors import InputError

RENAME = "rename it, or fetch the file again"


def filled() -> Any:
    """Make the schema of a column without missing or empty values."""
    import pandera.pandas as pa  # half a second, which a command without tables does not pay

    return pa.Column(None, pa.Check(lambda values: values != "", error="empty"))


def check_table(
    table: pd.DataFrame,
    columns: Iterable[str] | Mapping[str, Any],
    where,
    *,
    unique: Sequence[str] = (),
    way_out: str = RENAME,
) -> None:
    """Refuse a table that lacks a column, has a wrong value in one, or a row twice.

    `where`: what to call the table; `way_out`: what to do about a missing column.
    """
    import pandera.pandas as pa

    if not isinstance(columns, Mapping):
        columns = {name: pa.Column(nullable=True) for name in columns}
    schema = pa.DataFrameSchema(dict(columns), unique=list(unique) or None)
    try:
        schema.validate(table.reset_index(drop=True), lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        absent = cases.loc[cases["check"] == "column_in_dataframe", "failure_case"]
        if len(absent):
            there = ", ".join(map(str, table.columns))
            raise InputError(
                f"{where}: no column '{absent.iloc[0]}' (it has: {there}); {way_out}"
            ) from None
        first = cases.loc[cases["index"].astype(int).idxmin()]
        at, column, check = int(first["index"]), first["column"], first["check"]
        numbered = isinstance(table.index, pd.RangeIndex)
        row = f"row {at + 1}" if numbered else f"row '{table.index[at]}'"
        if check == "multiple_fields_uniqueness":
            values = ", ".join(f"{c} '{table[c].iloc[at]}'" for c in unique)
            problem = f"two rows have {values}; average or drop one"
        elif check in ("not_nullable", "empty"):
            problem = f"column '{column}' is empty in {row}; is the table cut off? fill or drop it"
        else:
            problem = f"column '{column}' has '{first['failure_case']}' in {row}: {check}"
        raise InputError(f"{where}: {problem}") from None


GAPS = ("", "na", "nan", "null", "none", "n/a", "<na>")  # words for no value


def read_csv(path, columns) -> pd.DataFrame:
    """Read the named columns of a comma-separated file as strings; refuse an empty value."""
    path = existing(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table ({error}); fetch it again") from error
    check_table(table, {column: filled() for column in columns}, path)
    if table.empty:
        raise InputError(f"{path}: it has no rows; fetch it again")
    return table[list(columns)]


def read_text(path, separator: str) -> pd.DataFrame:
    """Read a delimited text file, its first column as text; decimal numbers make no header."""
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            first = next(csv.reader(handle, delimiter=separator), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a text table ({error})") from None
    header = None if _is_data(first[1:]) else 0
    how = dict(header=header, converters={0: str}, keep_default_na=False)
    try:
        return pd.read_csv(path, sep=separator, index_col=False, encoding="utf-8-sig", **how)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty: it has no columns") from None
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}); is it cut off?") from None


def _is_data(cells: list[str]) -> bool:
    try:
        values = [float(c) for c in cells]
    except ValueError:
        return False
    return bool(values) and any("." in c for c in cells)


def read_table(path) -> pd.DataFrame:
    """Read ``.parquet``, ``.csv``, ``.tsv`` or ``.txt`` (comma, else tab) as a data frame."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.suffix == ".parquet":
        try:
            return pd.read_parquet(path)
        except Exception as error:  # pyarrow raises many kinds for a broken file
            raise InputError(f"{path} cannot be read ({error}); fetch it again") from None
    with open(path, encoding="utf-8-sig", errors="replace") as handle:
        line = handle.readline()
    return read_text(path, "\t" if "\t" in line else ",")


def read_r(path, name: str) -> Any:
    """Return one object of an R data file, or say that the file is cut or has no such object."""
    import rdata

    path = existing(path)
    try:
        with warnings.catch_warnings():
            # classes that R packages define come as plain records, which is what is wanted
            warnings.simplefilter("ignore", UserWarning)
            objects = rdata.read_rda(path)
    except Exception as error:  # rdata, gzip, bz2 and lzma each have their own for a cut file
        raise InputError(f"{path}: not a whole R data file ({error}); fetch it again") from error
    if name not in objects:
        raise InputError(f"{path}: no object '{name}' (it has: {', '.join(objects)})")
    return objects[name]


def read_h5ad(path, obs=(), *, backed: bool = False) -> anndata.AnnData:
    """Read an h5ad file whose `obs` has the named columns, or say what is wrong with it."""
    path = existing(path)
    try:
        adata = anndata.read_h5ad(path, backed="r" if backed else None)
    except Exception as error:  # h5py and anndata raise many kinds on a truncated file
        raise InputError(f"{path}: not a readable .h5ad file ({error}); fetch it again") from error
    check_table(adata.obs, list(obs), f"{path}: obs")
    return adata


def read_zarr(path, *, backed: bool = False) -> anndata.AnnData:
    """Read a zarr folder that anndata wrote; `backed`: its matrix stays on disk."""
    import zarr

    try:
        if not backed:
            return anndata.read_zarr(path)
        root = zarr.open(str(path), mode="r")
        X = sparse_dataset(root["X"]) if isinstance(root["X"], zarr.Group) else root["X"]
        parts = {name: read_elem(root[name]) for name in ("obs", "var", "uns") if name in root}
        return anndata.AnnData(X, **parts)
    except Exception as error:  # zarr and anndata raise many kinds on a broken folder
        raise InputError(f"{path}: not a readable .zarr folder ({error}); copy it again") from error


def member(path, record: Any, *names: str) -> Any:
    """Return a part of an R record (list, data frame or S4 object), by name, step by step."""
    for name in names:
        try:
            record = record[name] if hasattr(record, "__getitem__") else getattr(record, name)
        except (KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{path}: no part '{name}' where it was expected ({'$'.join(names)}); "
                "is this another version of the file?"
            ) from error
    return record


def existing(path) -> Path:
    """Return the path of a file that is there."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def refuse(wrong, column: str, values: pd.Series, path, problem: str) -> None:
    """Name file, column, value and row of the first value that is `wrong`, and the problem."""
    if np.any(wrong):
        row = int(np.argmax(np.asarray(wrong)))
        value = values.iloc[row]
        what = "is empty" if pd.isna(value) or value == "" else f"has '{value}'"
        raise InputError(f"{path}: column '{column}' {what} in row {row + 1}{problem}")


def numbers(values: pd.Series, column: str, path, *, whole: str = "") -> pd.Series:
    """Read a column as numbers; `whole` says what they must be where only 0, 1, ... are right."""
    out = pd.to_numeric(values.astype(str), errors="coerce")
    wrong = out.isna() | ((out != out.round()) | (out < 0) if whole else False)
    refuse(wrong, column, values, path, f": {whole}" if whole else ", not a number")
    return out
