"""How many perturbations an embedding covers, and why it does not cover more."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding, some, strip_version

# Ways of writing an id that would make more of them match.
NEAR = {
    "after trimming blanks": str.strip,
    "ignoring case": str.casefold,
    "without the Ensembl version (strip_versions=True)": strip_version,
}


def coverage_table(embeddings: Iterable[Embedding], responses: AnnData) -> pd.DataFrame:
    """How many perturbations of each cell line have an embedding.

    Parameters
    ----------
    embeddings
        Those bound to a cell line get one row, the others one row per cell line.
    responses
        With ``obs`` columns ``perturbation`` and ``cell_line``.

    Returns
    -------
    pandas.DataFrame
        Columns embedding, modality, cell_line, dim, n_perturbations, n_covered, coverage,
        missing (up to five ids), hint (what would make more ids match; empty if nothing would).
    """
    for column in ("perturbation", "cell_line"):
        if column not in responses.obs:
            raise InputError(
                f"responses have no obs column {column!r}; columns: {list(responses.obs.columns)}"
            )
    groups = {
        str(line): pd.Index(group.astype(str), dtype=object).unique()
        for line, group in responses.obs.groupby("cell_line", observed=True)["perturbation"]
    }
    declared = responses.uns.get("perturbcore", {}).get("identifier")
    rows = []
    for e in embeddings:
        for line in [e.cell_line] if e.cell_line is not None else groups:
            wanted = groups.get(line, pd.Index([], dtype=object))
            missing = wanted[~wanted.isin(e.ids)]
            covered = len(wanted) - len(missing)
            hints = [] if line in groups else [_no_line(line, groups)]
            if declared and declared != e.identifier and line in groups:
                hints.append(
                    f"ids are {e.identifier}, perturbations are {declared}: use convert_ids"
                )
            for how, rule in NEAR.items():
                known = {rule(k) for k in e.ids} if len(missing) else ()
                if n := sum(rule(str(i)) in known for i in missing):
                    hints.append(f"{n} more would match {how}")
            rows.append(
                {
                    "embedding": e.name,
                    "modality": e.modality,
                    "cell_line": line,
                    "dim": e.dim,
                    "n_perturbations": len(wanted),
                    "n_covered": covered,
                    "coverage": covered / len(wanted) if len(wanted) else np.nan,
                    "missing": some(missing),
                    "hint": "; ".join(hints),
                }
            )
    return pd.DataFrame(rows)


def _no_line(line: str, lines: Iterable[str]) -> str:
    return f"no responses of cell line {line!r}; lines are {', '.join(lines)}"
