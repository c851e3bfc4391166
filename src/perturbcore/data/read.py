"""Read foreign files loudly: a wrong one is named with its column and value, never half read."""

import csv
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.core.tables import check_table, filled

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
