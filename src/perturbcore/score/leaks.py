"""What could make a score too good: looked for in responses, folds and embeddings, and said."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.data.folds import is_control, merged, parts_of, same_perturbation
from perturbcore.data.responses import cell_lines, dense, rows_of
from perturbcore.embeddings.linalg import unit

COLUMNS = ["check", "kind", "found", "example"]
KINDS = ("leak", "choice", "kept together", "not checked")
# responses as alike as this (cosine about the mean response) are one measurement twice
EQUAL = 0.9999
FEWEST_VALUES = 50  # labels of fewer genes can be equal without being copied
# share of the variance of the responses' main components that only a copy of them explains
COPY = 0.9
FEWEST_ROWS, MOST_ROWS, COMPONENTS = 20, 240, 10


def leak_report(
    responses: AnnData,
    embeddings: Iterable[Any] = (),
    *,
    smiles: Mapping[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Look for what would let a model see a test perturbation in training.

    `smiles`: of drugs; `aliases`: today's name of an older one. An embedding is called a copy of
    the responses where its first components explain more than 0.9 of the variance of theirs.
    Returns one row per check: `check`, `kind` ("leak"; "choice" of the protocol; "kept together":
    found, and harmless; "not checked"), `found` (how many), `example`.

    Examples
    --------
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> report = pc.leak_report(pc.load_dataset("simulated", **sizes).responses)
    >>> int(report.loc[report["kind"] == "leak", "found"].sum())
    0
    """
    identifier = responses.uns["perturbcore"]["identifier"]
    names, number = (responses.obs[c].to_numpy() for c in ("perturbation", "fold"))
    fold = pd.Series(number.astype(int), names.astype(str)).groupby(level=0).first()
    find = partial(same_perturbation, fold.index, identifier)
    same = find()
    apart = fold.groupby(same).transform("nunique") > 1
    rows = [
        ("names of one perturbation in different folds", "leak", merged(same[apart])),
        ("names of one perturbation in one fold", "kept together", merged(same[~apart])),
        ("labels of controls among the perturbations", "leak", list(filter(is_control, names))),
        ("equal responses under two names in different folds", "leak", _equal(responses, fold)),
    ]
    tables = {"equal structures": ("smiles", smiles, "drug")}
    tables["older symbols and Ensembl ids of a gene"] = ("aliases", aliases, "symbol ensembl")
    for what, (option, table, kinds) in tables.items():
        if identifier in kinds:
            asked: Any = {option: table}
            wider = find(**asked)
            known = wider[(fold.groupby(wider).transform("nunique") > 1) & ~apart]
            kind = "leak" if table is not None else "not checked"
            rows.append((f"{what} in different folds", kind, merged(known)))
    rows.append(
        ("combinations that share a part across folds", "choice", _sharing(fold, identifier))
    )
    near = _copies(responses, embeddings)
    copies = [f"{name} ({value:.2f})" for name, value in near.items() if value > COPY]
    if near and not copies:
        closest = max(near, key=lambda name: near[name])
        said = f"none; the nearest is {closest} ({near[closest]:.2f})"
    counted = [(c, k, len(found), "; ".join(found[:3])) for c, k, found in rows]
    table = pd.DataFrame(counted, columns=COLUMNS)
    last = (len(copies), "; ".join(copies)) if copies or not near else (0, said)
    table.loc[len(table)] = ["embeddings that are a copy of the responses",
                             "leak" if near else "not checked", *last]  # fmt: skip
    return table


def leaks_said(table: pd.DataFrame) -> str:
    """Say in one sentence what a leak report found."""
    leaks = table[(table["kind"] == "leak") & (table["found"] > 0)]
    choices = table[(table["kind"] == "choice") & (table["found"] > 0)]
    done = int((table["kind"] != "not checked").sum())
    if leaks.empty:
        said = f"No leak was found by {done} checks of names, folds, responses and embeddings."
    else:
        each = [f"{c} ({n}: {e})" for c, n, e in leaks[["check", "found", "example"]].to_numpy()]
        said = f"**Leaks found: {'; '.join(each)}.** Scores may be too good."
    for check, found in choices[["check", "found"]].to_numpy():
        said += f" Of the protocol, as published: {check} ({found})."
    return said


def _equal(responses: AnnData, fold: pd.Series) -> list[str]:
    """List pairs of names in different folds that have one response in a cell line."""
    found: dict[str, None] = {}
    for line in cell_lines(responses):
        rows = rows_of(responses, line)
        X, names = dense(rows.X).astype(np.float32), rows.obs["perturbation"].astype(str).to_numpy()
        own = fold.loc[names].to_numpy()
        X_unit = unit(X - X.mean(axis=0))
        K = X_unit @ X_unit.T
        K[(X != 0).sum(axis=1) < FEWEST_VALUES] = 0
        for i, j in np.argwhere(np.triu(K > EQUAL, 1) & (own[:, None] != own)):
            found[f"{names[i]!r} = {names[j]!r}"] = None
    return list(found)


def _sharing(fold: pd.Series, identifier: str) -> list[str]:
    """List combinations of which a part is in another fold, alone or in another combination."""
    where: dict = {}
    parts = parts_of(fold.index, identifier)
    for name, own in parts.items():
        for part in own:
            where.setdefault(part, set()).add(fold[name])
    return [n for n, own in parts.items() if len(own) > 1 and any(len(where[p]) > 1 for p in own)]


def _copies(responses: AnnData, embeddings: Iterable[Any]) -> dict[str, float]:
    """Share of the responses that each embedding explains, at most over the lines it serves."""
    out: dict[str, float] = {}
    embeddings = list(embeddings)
    for line in cell_lines(responses):
        rows = rows_of(responses, line)
        X, names = dense(rows.X), pd.Index(rows.obs["perturbation"].astype(str))
        for e in embeddings:
            at = e.ids.get_indexer(names)
            here = np.flatnonzero(at >= 0)
            here = here[:: max(1, -(-len(here) // MOST_ROWS))]
            if len(here) >= FEWEST_ROWS and e.cell_line in (None, line):
                value = _explained(X[here], e.X[at[here]])
                out[e.name] = max(value, out.get(e.name, 0.0))
    return out


def _explained(X: np.ndarray, E: np.ndarray) -> float:
    """Explain the main components of X (n, g) by those of E (n, d): adjusted R squared."""
    n = len(X)
    target, size = _components(X, min(COMPONENTS, n // 5))
    basis, _ = _components(E, n // 2)
    if not size.sum():
        return 0.0
    left = 1 - (np.square(basis.T @ target).sum(axis=0) * size).sum() / size.sum()
    return float(1 - left * (n - 1) / (n - basis.shape[1] - 1))


def _components(A: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the principal directions of the rows, (n, k), and the variance of each."""
    A = np.asarray(A, dtype=np.float64)
    A = A - A.mean(axis=0)
    size, axes = np.linalg.eigh(A @ A.T)
    kept = np.arange(len(A))[::-1][:most]
    kept = kept[size[kept] > 1e-10 * max(size[-1], 1e-300)]
    return axes[:, kept], size[kept]
