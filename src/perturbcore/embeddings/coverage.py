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
            wanted, hints = groups.get(line, pd.Index([], dtype=object)), []
            missing = wanted[~wanted.isin(e.ids)]
            if line not in groups:
                hints.append(f"no responses of cell line {line!r}; lines are {', '.join(groups)}")
            elif declared and declared != e.identifier:
                hints.append(
                    f"ids are {e.identifier}, perturbations are {declared}: use convert_ids"
                )
            for how, rule in NEAR.items():
                known = {rule(k) for k in e.ids} if len(missing) else ()
                if n := sum(rule(str(i)) in known for i in missing):
                    hints.append(f"{n} more would match {how}")
            n, covered = len(wanted), len(wanted) - len(missing)
            share = covered / n if n else np.nan
            rows.append(
                [e.name, e.modality, line, e.dim, n, covered, share, some(missing)]
                + ["; ".join(hints)]
            )
    names = "embedding modality cell_line dim n_perturbations n_covered coverage missing hint"
    return pd.DataFrame(rows, columns=names.split())
