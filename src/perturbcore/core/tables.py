"""Schemas of tables at the borders: what is wrong is named with its column, value and row."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError

RENAME = "rename it, or fetch the file again"


def filled() -> Any:
    """Make the schema of a column without missing or empty values."""
    import pandera.pandas as pa  # half a second, which a command without tables does not pay

    return pa.Column(None, pa.Check(lambda values: values != "", error="empty"))


def at_least(low: float, what: str) -> Any:
    """Make the schema of an optional column of finite numbers from `low`; `what` they must be."""
    import pandera.pandas as pa

    def right(values):
        number = pd.to_numeric(values, errors="coerce")
        return np.isfinite(number) & (number >= low)

    check = pa.Check(right, error=what, ignore_na=False)
    return pa.Column(None, check, required=False, nullable=True)


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
