"""The authors' embeddings (Cole et al. 2026): which there are, what figures call them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError, check_choice
from perturbcore.data.authors.layout import GENE_EMBEDDINGS, Layout, data_root, layout_of
from perturbcore.data.published.tables import NEUTRAL, methods_of, parse_method
from perturbcore.data.read import read_h5ad
from perturbcore.data.responses import cell_lines
from perturbcore.data.sets.base import Dataset
from perturbcore.embeddings.base import Embedding

PLACEHOLDER = "CELL_LINE"
# contextual embeddings made from one data set's control cells serve that data set alone
OWNER = {"_essential_": "essential", "_Norman_": "norman"}


@dataclass(frozen=True)
class Listed:
    """One embedding of the layout: `key` in the published rows, `display` in figures."""

    key: str
    display: str
    modality: str
    path: Path
    cell_line: str | None = None
    obsm: str | None = None


def own_embeddings(data: Dataset) -> list[Embedding]:
    """Embeddings that a data set brings along (``extras["authors"]``); none for most data sets."""
    own = data.extras.get("authors")
    if not own:
        return []
    return read_embeddings(own["dataset"], data.responses, own["root"])[0]


def list_embeddings(
    dataset: str, lines: Sequence[str] | None = None, root=None
) -> tuple[list[Listed], list[str]]:
    """List the embeddings of a data set in the order of its figure; and what is left out."""
    layout = layout_of(dataset)
    lines = list(layout.lines if lines is None else lines)
    listed, left_out = (_drugs if layout.drug_embeddings else _genes)(layout, lines, root)
    left_out += [
        f"{dataset}: embedding {e.key} is not among the published ones: {NEUTRAL}"
        for e in listed
        if e.modality == NEUTRAL
    ]
    have = {(e.key, e.cell_line) for e in listed}
    rows = methods_of(f"{dataset}_lfc")
    keys = rows["method"].str.extract(r"^knn_baseline_(?!random$|pca$)(.*)$")[0]
    shown = dict(zip(keys[keys.notna()], rows["display"][keys.notna()], strict=True))
    for key, display in shown.items():
        for line in lines if PLACEHOLDER in key else [None]:
            if (key, line) not in have:
                what = f"{display} of {line}" if line else display
                left_out.append(f"{dataset}: embedding {what} left out, {key} is not there")
    place = {key: n for n, key in enumerate([*shown, *lines])}
    listed.sort(key=lambda e: (place.get(e.key, len(shown)), e.key, place.get(e.cell_line, -1)))
    # a display name that would stand for two embeddings gives way to the published ones
    n = Counter(display for display, _ in {(e.display, e.key) for e in listed})
    return [e if n[e.display] == 1 else replace(e, display=e.key) for e in listed], left_out


def _listed(layout: Layout, key: str, *where) -> Listed:
    method = parse_method(f"knn_baseline_{key}", dataset=layout.name, task="lfc")
    return Listed(key, method.display, method.modality, *where)


def _genes(layout: Layout, lines: list[str], root) -> tuple[list[Listed], list[str]]:
    folder = data_root(root) / GENE_EMBEDDINGS
    listed, left_out = [], []
    for path in sorted(folder.glob("*.h5ad")):
        key, line = path.stem, None
        if any(mark in key and owner != layout.name for mark, owner in OWNER.items()):
            continue
        before, contextual, behind = key.partition("_essential_")
        if contextual:
            line = next((c for c in lines if behind.startswith(f"{c}_")), None)
            if line is None:
                why = "its cell line has no responses"
                left_out.append(f"{layout.name}: {path.name} left out, {why}")
                continue
            key = f"{before}{contextual}{PLACEHOLDER}{behind[len(line) :]}"
        listed.append(_listed(layout, key, path, line))
    if not listed:
        left_out.append(f"{layout.name}: no .h5ad file in {folder}")
    return listed, left_out


def _drugs(layout: Layout, lines: list[str], root) -> tuple[list[Listed], list[str]]:
    path = data_root(root) / layout.drug_embeddings
    if not path.is_file():
        return [], [f"{layout.name}: drug embeddings left out, {path.name} is not there"]
    return [_listed(layout, k, path, None, k) for k in sorted(map(str, read_h5ad(path).obsm))], []


def read_embeddings(
    dataset: str, responses: AnnData, root=None, *, missing_drugs: str = "error", names=None
) -> tuple[list[Embedding], list[str]]:
    """Read the embeddings of a data set, cut to the perturbations of its responses.

    `missing_drugs`: refuse an embedding that lacks a drug as the published code does ("error"),
    leave it out ("leave_out"), or score the drug by the Train Mean ("train_mean"); `names`: only
    these. Returned is also a line for each that is not there or covers nothing.
    """
    check_choice("missing_drugs", missing_drugs, ("error", "leave_out", "train_mean"))
    listed, left_out = list_embeddings(dataset, cell_lines(responses), root)
    if names is not None:
        unknown = set(names) - {n for e in listed for n in (e.display, e.key)}
        if unknown:
            raise ParameterError(
                f"no embedding '{sorted(unknown)[0]}' of {dataset}; there are: "
                f"{', '.join(dict.fromkeys(e.display for e in listed))}"
            )
        listed = [e for e in listed if e.display in names or e.key in names]
    wanted = pd.Index(sorted(responses.obs["perturbation"].astype(str).unique()))
    drugs = bool(layout_of(dataset).drug_embeddings)
    made, files = [], {}
    for e in listed:
        if e.path not in files:
            files = {e.path: read_h5ad(e.path)}  # one file at a time stays in memory
        embedding = _cut(e, files[e.path], wanted, responses.uns["perturbcore"]["identifier"])
        absent = wanted.difference(embedding.ids) if drugs and embedding else []
        why = "" if embedding else "it has none of the perturbations"
        if len(absent) and missing_drugs == "error":
            raise InputError(
                f"{e.path}: {e.key} has no row for {len(absent)} drugs, such as '{absent[0]}'; the "
                "published code refuses this: missing_drugs='train_mean' or 'leave_out' goes on"
            )
        if len(absent) and missing_drugs == "leave_out":
            why = f"it lacks {len(absent)} drugs"
        if why:
            left_out.append(f"{dataset}: embedding {e.display} left out, {why}")
        else:
            made.append(embedding)
    return made, left_out


def _cut(e: Listed, adata: AnnData, wanted: pd.Index, identifier: str) -> Embedding | None:
    """Return the rows of the perturbations `wanted`, or None where the file has none of them."""
    ids = pd.Index(adata.obs_names.astype(str))
    if ids.str.fullmatch(r"\d+\.0").all():  # a CID that went through a float
        ids = ids.str.removesuffix(".0")
    # drugs that share a CID are "<CID> (<drug>)" in the responses, and one row here
    plain = wanted.where(wanted.isin(ids), wanted.str.replace(r"^(\d+) \(.*\)$", r"\1", regex=True))
    used = ids[ids.isin(plain)]
    if not len(used):
        return None
    if len(twice := used[used.duplicated()]):
        raise InputError(f"{e.path}: obs_names has '{twice[0]}' twice; keep one row per id")
    X = adata.X if e.obsm is None else adata.obsm[e.obsm]
    if X is None:
        raise InputError(f"{e.path}: it has no X; fetch it again")
    have = plain.isin(ids)
    rows = ids.get_indexer(plain[have])
    X = X.tocsr()[rows].toarray() if sp.issparse(X) else np.asarray(X)[rows]
    source = f"{e.path.name}: {e.key}"
    try:
        return Embedding(e.display, e.modality, wanted[have], X, identifier, e.cell_line, source)
    except InputError as error:
        raise type(error)(f"{e.path}: {error}") from None
