"""Reading plain tables, with errors that name file, line and column."""

import csv
from pathlib import Path

import pandas as pd

from perturbcore.core.errors import InputError


def read_text(path, separator: str, header: bool | None = None) -> pd.DataFrame:
    """Read a delimited text file; the first column stays text, nothing is taken for missing.

    With ``header=None`` the first line names the columns, unless all its cells behind the first are
    numbers and at least one of them has a decimal point.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            first = next(csv.reader(handle, delimiter=separator), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a text table ({error})") from None
    if header is None:
        header = not _is_data(first[1:])
    how = dict(header=0 if header else None, converters={0: str}, keep_default_na=False)
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
