"""The authors' embeddings: which there are, what figures call them, and reading them."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.authors.layout import GENE_EMBEDDINGS, Layout, data_root, layout_of
from perturbcore.data.published.names import methods_of, parse_method
from perturbcore.data.responses import cell_lines
from perturbcore.data.sets._read import read_h5ad
from perturbcore.embeddings.base import Embedding

PLACEHOLDER = "CELL_LINE"
BASELINE = re.compile(r"^knn_baseline_(.*)$")
# contextual embeddings made from one data set's control cells serve that data set alone
OWNER = {"_essential_": "essential", "_Norman_": "norman"}


@dataclass(frozen=True)
class Listed:
    """One embedding of the layout.

    Attributes
    ----------
    key : str
        Name in the published rows; the cell line is replaced by CELL_LINE.
    display, modality : str
        What the figures call it; an embedding that no figure shows is called by its key.
    path : Path
    cell_line : str or None
        Line whose control cells it was made from.
    obsm : str or None
        Matrix of a file with several embeddings.
    """

    key: str
    display: str
    modality: str
    path: Path
    cell_line: str | None = None
    obsm: str | None = None


def list_embeddings(dataset: str, lines=None, root=None) -> tuple[list[Listed], list[str]]:
    """List the embeddings that serve a data set, in the order of its figure, then by name.

    Parameters
    ----------
    dataset : str
        See `perturbcore.data.authors.layout.LAYOUTS`.
    lines : sequence of str, optional
        Cell lines of the responses; those of the figures by default.
    root : path, optional

    Returns
    -------
    embeddings : list of Listed
    left_out : list of str
        One line for each embedding of the figures whose file is absent, and for each file that
        names a cell line the responses do not have.
    """
    layout = layout_of(dataset)
    lines = list(layout.lines if lines is None else lines)
    if layout.identifier == "ensembl":
        found, left_out = _genes(layout, lines, root)
    else:
        found, left_out = _drugs(layout, root)
    have = {(e.key, e.cell_line) for e in found}
    shown = shown_embeddings(dataset)
    for key, display in shown.items():
        for line in lines if PLACEHOLDER in key else [None]:
            if (key, line) not in have:
                what = f" of {line}" if line else ""
                left_out.append(
                    f"{dataset}: embedding {display}{what} left out, {key} is not there"
                )
    order = list(shown)
    place = {key: n for n, key in enumerate(order)}
    line_place = {line: n for n, line in enumerate(lines)}
    found.sort(key=lambda e: (place.get(e.key, len(order)), e.key, line_place.get(e.cell_line, -1)))
    return _unique_names(found), left_out


def shown_embeddings(dataset: str) -> dict[str, str]:
    """Map published to display name for the embeddings that the data set's figure shows."""
    out = {}
    for row in methods_of(f"{dataset}_lfc").itertuples():
        match = BASELINE.match(row.method)
        if match and match.group(1) not in ("random", "pca"):
            out[match.group(1)] = row.display
    return out


def describe(dataset: str, key: str) -> tuple[str, str]:
    """Return display name and modality of an embedding by its published name."""
    method = parse_method(f"knn_baseline_{key}", dataset=dataset, task="lfc")
    return method.display, method.modality


def _genes(layout: Layout, lines: list[str], root):
    folder = data_root(root) / GENE_EMBEDDINGS
    found, left_out = [], []
    for path in sorted(folder.glob("*.h5ad")):
        stem = path.stem
        owner = [name for mark, name in OWNER.items() if mark in stem]
        if owner and owner[0] != layout.name:
            continue
        key, line = stem, None
        if "_essential_" in stem:
            before, _, behind = stem.partition("_essential_")
            line = next((c for c in lines if behind.startswith(f"{c}_")), None)
            if line is None:
                left_out.append(
                    f"{layout.name}: {path.name} left out, its cell line has no responses"
                )
                continue
            key = f"{before}_essential_{PLACEHOLDER}{behind[len(line) :]}"
        found.append(Listed(key, *describe(layout.name, key), path, line))
    if not found:
        left_out.append(f"{layout.name}: no .h5ad file in {folder}")
    return found, left_out


def _drugs(layout: Layout, root):
    path = data_root(root) / layout.drug_embeddings
    if not path.is_file():
        return [], [
            f"{layout.name}: drug embeddings left out, {layout.drug_embeddings} is not there"
        ]
    keys = [str(k) for k in read_h5ad(path).obsm]
    return [Listed(k, *describe(layout.name, k), path, None, k) for k in sorted(keys)], []


def _unique_names(found: list[Listed]) -> list[Listed]:
    """Call embeddings by their published name where a display name would stand for two."""
    keys = pd.DataFrame({"display": [e.display for e in found], "key": [e.key for e in found]})
    n = keys.drop_duplicates()["display"].value_counts()
    return [
        e if n[e.display] == 1 else Listed(e.key, e.key, e.modality, e.path, e.cell_line, e.obsm)
        for e in found
    ]


def read_embeddings(
    dataset: str, responses: AnnData, root=None, *, missing_drugs: str = "error", names=None
) -> tuple[list[Embedding], list[str]]:
    """Read the embeddings of a data set, cut to the perturbations of its responses.

    Parameters
    ----------
    dataset : str
    responses : AnnData
        Of `read_authors_responses`.
    root : path, optional
    missing_drugs : {"error", "leave_out", "train_mean"}
        What to do with an embedding that lacks a drug: refuse it as the published code does, leave
        the embedding out, or score the drug by the Train Mean as for genes.
    names : sequence of str, optional
        Only these, by display or published name.

    Returns
    -------
    embeddings : list of Embedding
        float32, named as in the figures; `source` is ``<file>: <published name>``.
    left_out : list of str
        One line for each that is not there or covers nothing.

    Raises
    ------
    InputError
        A file is unreadable, or its values or ids are wrong; the message names it.
    ParameterError
        A name is not among the embeddings.
    """
    if missing_drugs not in ("error", "leave_out", "train_mean"):
        raise ParameterError(
            f"missing_drugs '{missing_drugs}' is not one of: error, leave_out, train_mean"
        )
    lines = cell_lines(responses)
    listed, left_out = list_embeddings(dataset, lines, root)
    if names is not None:
        unknown = set(names) - {n for e in listed for n in (e.display, e.key)}
        if unknown:
            raise ParameterError(
                f"no embedding '{sorted(unknown)[0]}' of {dataset}; there are: "
                f"{', '.join(dict.fromkeys(e.display for e in listed))}"
            )
        listed = [e for e in listed if e.display in names or e.key in names]
    obs = responses.obs
    wanted = pd.Index(sorted(obs["perturbation"].astype(str).unique()))
    out, files = [], {}
    for e in listed:
        if e.obsm is None or e.path not in files:
            files = {e.path: read_h5ad(e.path)}
        made = _cut(e, files[e.path], wanted, responses)
        if made is None:
            left_out.append(
                f"{dataset}: embedding {e.display} left out, it has none of the perturbations"
            )
            continue
        absent = wanted.difference(made.ids) if layout_of(dataset).identifier == "drug" else []
        if len(absent) and missing_drugs == "error":
            raise InputError(
                f"{e.path}: {e.key} has no row for {len(absent)} drugs, such as '{absent[0]}'; the "
                "published code refuses this: missing_drugs='train_mean' or 'leave_out' goes on"
            )
        if len(absent) and missing_drugs == "leave_out":
            left_out.append(
                f"{dataset}: embedding {e.display} left out, it lacks {len(absent)} drugs"
            )
            continue
        out.append(made)
    return out, left_out


def _cut(e: Listed, adata: AnnData, wanted: pd.Index, responses: AnnData) -> Embedding | None:
    ids = pd.Index(adata.obs_names.astype(str))
    if ids.str.fullmatch(r"\d+\.0").all():  # a CID that went through a float
        ids = ids.str.removesuffix(".0")
    # drugs that share a CID are "<CID> (<drug>)" in the responses, and one row here
    plain = wanted.where(wanted.isin(ids), wanted.str.replace(r"^(\d+) \(.*\)$", r"\1", regex=True))
    used = ids.isin(plain)
    if not used.any():
        return None
    if ids[used].has_duplicates:
        twice = ids[used][ids[used].duplicated()][0]
        raise InputError(f"{e.path}: obs_names has '{twice}' twice; keep one row an id")
    X = adata.X if e.obsm is None else adata.obsm[e.obsm]
    if X is None:
        raise InputError(f"{e.path}: it has no X; fetch it again")
    have = plain.isin(ids)
    rows = ids.get_indexer(plain[have])
    X = X.to_numpy() if isinstance(X, pd.DataFrame) else X
    X = X.tocsr()[rows].toarray() if sp.issparse(X) else np.asarray(X)[rows]
    identifier = responses.uns["perturbcore"]["identifier"]
    source = f"{e.path.name}: {e.key}"
    try:
        return Embedding(
            e.display, e.modality, pd.Index(wanted[have]), X, identifier, e.cell_line, source
        )
    except InputError as error:
        raise type(error)(f"{e.path}: {error}") from None
