"""Small tables that live in the package: what papers print, which methods their figures show.

Every file names its source in comment lines at its top.
"""

from functools import cache
from importlib.resources import files
from io import StringIO

import pandas as pd

from perturbcore.core.errors import InputError

FACTS = (
    "cole2026_methods",
    "cole2026_rows",
    "cole2026_medians",
    "cole2026_tahoe_lfc_read_off",
    "cole2026_cross_context",
    "bendidi2024_table2",
    "bendidi2024_tables3_10",
    "csendes2025",
    "wu2025_table1",
)


@cache
def _read(name: str) -> tuple[str, pd.DataFrame]:
    if name not in FACTS:
        raise InputError(f"no facts named {name!r}; there are {', '.join(FACTS)}")
    file = files("perturbcore.data.published").joinpath("files", f"{name}.csv")
    lines = file.read_text("utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    body = StringIO("\n".join(lines[len(head) :]))
    source = " ".join(line.lstrip("# ").rstrip() for line in head)
    return source, pd.read_csv(body, keep_default_na=False, na_values=[""])


def facts(name: str) -> pd.DataFrame:
    """Read one table of `FACTS`, as printed by its paper; raises InputError for another name."""
    return _read(name)[1].copy()


def source_of(name: str) -> str:
    """Say in one line where the facts of a table come from."""
    return _read(name)[0]
