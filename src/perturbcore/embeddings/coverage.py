"""How the ids of an embedding meet those of a screen: coverage, conversion, older names."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, check_choice
from perturbcore.data.identifiers import convert
from perturbcore.data.read import check_table
from perturbcore.embeddings.base import Embedding, some, strip_version

# Ways of writing an id that would make more of them match.
NEAR = {
    "after trimming blanks": str.strip,
    "ignoring case": str.casefold,
    "without the Ensembl version (strip_versions=True)": strip_version,
}


def coverage_table(embeddings: Iterable[Embedding], responses: AnnData) -> pd.DataFrame:
    """Count the perturbations of each cell line that have an embedding.

    Returns columns embedding, modality, cell_line, dim, n_perturbations, n_covered, coverage,
    missing (up to five ids), hint (what would make more ids match).
    """
    check_table(responses.obs, ("perturbation", "cell_line"), "responses: obs")
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
                hints.append(f"ids are {e.identifier}, perturbations {declared}: use convert_ids")
            for how, rule in NEAR.items():
                known = {rule(k) for k in e.ids} if len(missing) else ()
                if n := sum(rule(str(i)) in known for i in missing):
                    hints.append(f"{n} more would match {how}")
            n, covered = len(wanted), len(wanted) - len(missing)
            share = covered / n if n else np.nan
            about = (e.name, e.modality, line, e.dim)
            rows.append((*about, n, covered, share, some(missing), "; ".join(hints)))
    names = "embedding modality cell_line dim n_perturbations n_covered coverage missing hint"
    return pd.DataFrame(rows, columns=names.split())


def covered_by_all(responses: AnnData, embeddings: Iterable[Embedding]) -> AnnData:
    """Keep rows whose perturbation has a vector in every embedding (Hasanaj et al. 2025)."""
    ids, line = (responses.obs[c].astype(str) for c in ("perturbation", "cell_line"))
    kept = np.ones(len(ids), dtype=bool)
    for e in embeddings:
        elsewhere = e.cell_line is not None and line != e.cell_line
        kept &= (ids.isin(e.ids) | elsewhere).to_numpy()
    if not kept.any():
        raise InputError("no perturbation has a vector in every embedding; leave one out")
    return responses[kept].copy()


def convert_ids(
    embedding: Embedding, to: str = "symbol", *, duplicates: str = "error"
) -> Embedding:
    """Rename the ids of an embedding by the catalogue's gene table.

    Ids that lead to none or several have no row; where several become one, `duplicates` is
    ``error``, or ``mean`` to average; `to` is ``symbol``, ``ensembl`` or ``entrez``.
    """
    check_choice("duplicates", duplicates, ("error", "mean"))
    own, where = embedding.identifier, f"embedding {embedding.name!r}"
    report = convert(embedding.ids, own, to).reindex(embedding.ids)
    done = report["value"].notna().to_numpy()
    if not done.any():
        raise InputError(
            f"{where}: none of its {len(done)} {own} ids ({some(embedding.ids)}) "
            f"leads to a single {to} id in the map; is its identifier declared rightly?"
        )
    values = report["value"][done].astype(str).to_numpy()
    names, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared = names[counts > 1]
    if len(shared) and duplicates == "error":
        from_ = [f"{n} ({some(embedding.ids[done][values == n], 3)})" for n in shared[:4]]
        raise InputError(
            f"{where}: {len(shared)} {to} ids come from several {own} ids: {some(from_, 3)}; "
            'pass duplicates="mean" to average them, or drop rows first'
        )
    X = np.zeros((len(names), embedding.dim))
    np.add.at(X, codes, embedding.X[done].astype(np.float64))
    X /= counts[:, None]
    missing, ambiguous = ((report["status"] == s).sum() for s in ("missing", "ambiguous"))
    text = (
        f"{embedding.source}; ids converted from {own} to {to}: {missing} not in the map, "
        f"{ambiguous} ambiguous, {len(shared)} averaged"
    )
    return replace(embedding, ids=pd.Index(names), X=X, identifier=to, source=text)


def add_aliases(embedding: Embedding, aliases: pd.Series) -> Embedding:
    """Let ids of an older naming find the vector of today's id (`aliases`: older -> today)."""
    added = aliases[~aliases.index.isin(embedding.ids) & aliases.isin(embedding.ids)].sort_index()
    rows = embedding.ids.get_indexer(pd.Index(added.to_numpy(), dtype=object))
    return replace(
        embedding,
        ids=embedding.ids.append(pd.Index(added.index, dtype=object)),
        X=np.concatenate([embedding.X, embedding.X[rows]]),
        source=f"{embedding.source}; {len(added)} older ids added",
    )
