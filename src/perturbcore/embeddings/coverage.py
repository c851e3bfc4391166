"""How many perturbations an embedding covers, and why it does not cover more."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding, some, strip_version


def coverage_table(embeddings: Iterable[Embedding], responses) -> pd.DataFrame:
    """How many perturbations of each cell line have an embedding.

    Parameters
    ----------
    embeddings
        Those bound to a cell line get one row, the others one row a cell line.
    responses
        AnnData with ``obs`` columns ``perturbation`` and ``cell_line``.

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
        str(line): pd.Index(group.astype(str).to_numpy(), dtype=object).unique()
        for line, group in responses.obs.groupby("cell_line", observed=True)["perturbation"]
    }
    declared = responses.uns.get("perturbcore", {}).get("identifier")
    rows = []
    for embedding in embeddings:
        own = [embedding.cell_line] if embedding.cell_line is not None else list(groups)
        for line in own:
            wanted = groups.get(line, pd.Index([], dtype=object))
            missing = wanted[~wanted.isin(embedding.ids)]
            covered = len(wanted) - len(missing)
            rows.append(
                {
                    "embedding": embedding.name,
                    "modality": embedding.modality,
                    "cell_line": line,
                    "dim": embedding.dim,
                    "n_perturbations": len(wanted),
                    "n_covered": covered,
                    "coverage": covered / len(wanted) if len(wanted) else np.nan,
                    "missing": some(missing),
                    "hint": _hint(embedding, wanted, declared, line, list(groups)),
                }
            )
    return pd.DataFrame(rows)


def check_coverage(embedding: Embedding, ids: Iterable[str], minimum: int = 1) -> int:
    """Count covered ids, or stop when they are too few.

    Raises
    ------
    InputError
        If fewer than `minimum` ids have an embedding; the message says what would match.
    """
    wanted = pd.Index(list(ids), dtype=object).unique()
    covered = int(wanted.isin(embedding.ids).sum())
    if covered < minimum:
        hint = _hint(embedding, wanted, None, "", []) or (
            "check that both sides use the same identifier (symbol, ensembl, entrez), "
            "and convert with convert_ids"
        )
        raise InputError(
            f"embedding {embedding.name!r} covers {covered} of {len(wanted)} perturbations "
            f"(at least {minimum} needed); it has ids such as {some(embedding.ids)}, the screen "
            f"has {some(wanted)}: {hint}"
        )
    return covered


def _hint(embedding, wanted, declared, line, lines) -> str:
    if not len(wanted) and line not in lines:
        return f"no responses of cell line {line!r}; lines are {', '.join(lines)}"
    parts = []
    if declared and declared != embedding.identifier:
        parts.append(
            f"ids are {embedding.identifier}, perturbations are {declared}: use convert_ids"
        )
    words = {
        "whitespace": "after trimming blanks",
        "case": "ignoring case",
        "version": "without the Ensembl version (strip_versions=True)",
    }
    for kind, count in near_matches(embedding, wanted).items():
        if count:
            parts.append(f"{count} more would match {words[kind]}")
    return "; ".join(parts)


def near_matches(embedding: Embedding, ids: Iterable[str]) -> dict[str, int]:
    """Count the missing ids that would match if they were written a little differently.

    Returns
    -------
    dict
        ``whitespace``, ``case`` and ``version``: how many of the ids without an embedding would
        have one after trimming blanks, ignoring case, or dropping an Ensembl version suffix.
    """
    missing = pd.Index(list(ids), dtype=object).unique().difference(embedding.ids)
    rules = {"whitespace": str.strip, "case": str.casefold, "version": strip_version}
    return {name: _count(rule, missing, embedding.ids) for name, rule in rules.items()}


def _count(rule, missing: pd.Index, known: pd.Index) -> int:
    changed = {rule(k) for k in known}
    return sum(rule(str(i)) in changed for i in missing)
