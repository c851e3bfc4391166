"""Small tables that live in the package: what papers print; each file names its source."""

from functools import cache
from importlib.resources import files
from io import StringIO

import pandas as pd

from perturbcore.core.errors import InputError

FOLDER = files("perturbcore.data.published") / "files"


@cache
def _read(name: str) -> tuple[str, pd.DataFrame]:
    file = FOLDER / f"{name}.csv"
    if not file.is_file():
        known = sorted(f.name.removesuffix(".csv") for f in FOLDER.iterdir())
        raise InputError(f"no facts named {name!r}; there are {', '.join(known)}")
    lines = file.read_text("utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    source = " ".join(line.lstrip("# ").rstrip() for line in head)
    body = StringIO("\n".join(lines[len(head) :]))
    return source, pd.read_csv(body, keep_default_na=False, na_values=[""])


def facts(name: str) -> pd.DataFrame:
    """Read one table of ``published/files``, as printed by its paper."""
    return _read(name)[1].copy()


def source_of(name: str) -> str:
    """Say in one line where the facts of a table come from."""
    return _read(name)[0]
