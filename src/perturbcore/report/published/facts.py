"""Small facts that live in the package: what the papers print, and which methods their figures show.

Every file names its source in comment lines at its top.
"""

from functools import cache
from importlib.resources import files

import pandas as pd

from perturbcore.core.errors import InputError

FACTS = (
    "cole2026_methods",
    "cole2026_medians",
    "cole2026_tahoe_lfc_read_off",
    "bendidi2024_table2",
    "bendidi2024_tables3_10",
    "csendes2025",
    "wu2025_table1",
    "claims",
)


def _text(name: str) -> tuple[list[str], str]:
    if name not in FACTS:
        raise InputError(f"no facts named {name!r}; there are {', '.join(FACTS)}")
    lines = files("perturbcore.report.published").joinpath("data", f"{name}.csv").read_text("utf-8")
    head = []
    rest = lines.split("\n")
    while rest and rest[0].startswith("#"):
        head.append(rest.pop(0).lstrip("# ").rstrip())
    return head, "\n".join(rest)


@cache
def _table(name: str) -> pd.DataFrame:
    from io import StringIO

    return pd.read_csv(StringIO(_text(name)[1]), keep_default_na=False, na_values=[""])


def facts(name: str) -> pd.DataFrame:
    """Table of facts kept in the package.

    Parameters
    ----------
    name : str
        One of `FACTS`.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    InputError
        If there is no such table.
    """
    return _table(name).copy()


def source_of(name: str) -> str:
    """Where the facts of a table come from, in one line.

    Parameters
    ----------
    name : str
        One of `FACTS`.

    Returns
    -------
    str
    """
    return " ".join(_text(name)[0])


def bendidi2024() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table 2 and Tables 3 to 10 of Bendidi et al. 2024.

    Returns
    -------
    table2 : pandas.DataFrame
        dataset, task, task_name, metric, model, value.
    appendix : pandas.DataFrame
        table, dataset, model, postprocessing, metric, unit, mean, sd.
    """
    return facts("bendidi2024_table2"), facts("bendidi2024_tables3_10")


def csendes2025() -> pd.DataFrame:
    """Numbers of Csendes et al. 2025: dataset, model, feature, subgroup, metric, value, source.

    Returns
    -------
    pandas.DataFrame
        Values marked "read off a notebook figure" are approximate.
    """
    return facts("csendes2025")


def wu2025() -> pd.DataFrame:
    """Table 1 of Wu et al. 2025 (PerturbQA): task, method, cell_line, auc_per_gene.

    Returns
    -------
    pandas.DataFrame
        Task "de": is the gene differentially expressed; "dir": given that, is it up.
    """
    return facts("wu2025_table1")
