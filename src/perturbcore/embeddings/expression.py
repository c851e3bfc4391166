"""Embeddings of genes from control cells: how they vary, what a cell model makes of them."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from pydantic import Field
from sklearn.decomposition import PCA

from perturbcore.core.digest import code_digest, digest
from perturbcore.core.errors import InputError
from perturbcore.data.screens.declare import normalise
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.cell_models.tokens import control_cells, drawn_controls
from perturbcore.embeddings.language_model import find_model
from perturbcore.embeddings.linalg import DENSE, NOISE, fix_signs
from perturbcore.embeddings.registry import Dim, register

Cells = Annotated[int, Field(ge=2)]


@register("expression", kind="screen", modality="Expression")
def expression_embeddings(
    screen: AnnData,
    *,
    source: str = "control cells",
    cell_line: str | None = None,
    dim: Dim = 128,
    max_cells: Cells = 10_000,
    seed: int = 0,
):
    """Principal components of genes over the control cells of each cell line, or of `cell_line`.

    No perturbed cell is looked at; of each line at most `max_cells` are drawn. Genes that no drawn
    cell expresses are left out and counted in ``source``. Cole et al. 2026, section 4.5.1, "PCA".
    """
    identifier = screen.uns.get("perturbcore", {}).get("identifier", "symbol")
    lines = None if cell_line is None else [cell_line]
    made = []
    for line, rows, n_all in drawn_controls(screen, lines, max_cells, seed):
        genes, X = _gene_components(normalise(screen[rows]).X, screen.var_names, dim, seed)
        silent = screen.n_vars - len(genes)
        note = f"; {silent} genes silent in them have no vector" if silent else ""
        text = f"{source} of {line}; {len(rows)} of {n_all} cells, PCA, {X.shape[1]} dimensions"
        made.append(Embedding("PCA", "Expression", genes, X, identifier, line, text + note))
    return made


def _gene_components(cells: sp.csr_matrix, names: pd.Index, dim: int, seed: int):
    order = np.argsort(np.asarray(names).astype(str), kind="stable")
    matrix = cells.T.tocsr()[order].astype(np.float64)
    keep = matrix.getnnz(axis=1) > 0
    matrix, genes = matrix[np.flatnonzero(keep)], pd.Index(np.asarray(names)[order][keep])
    size = min(dim, min(matrix.shape) - 1)
    if size < 1:
        raise InputError(f"{matrix.shape[0]} expressed genes are too few for an embedding")
    small = min(matrix.shape) <= max(DENSE, dim)
    # arpack centres inside the iteration, so that the matrix stays sparse
    pca = PCA(size, svd_solver="full" if small else "arpack", random_state=seed)
    X = pca.fit_transform(matrix.toarray() if small else matrix)
    kept = pca.singular_values_ > NOISE * pca.singular_values_[0]
    return genes, fix_signs(np.ascontiguousarray(X[:, kept]))


MODALITY = "Cell model"


@register("cell_model", kind="screen", modality=MODALITY, prepare=find_model)
def cell_model(
    screen: AnnData, *, source: str = "control cells", cell_line: str | None = None,
    models: Path | None = None, model: str = "",
    encoding: Literal["rank", "values", "bins"] = "rank",
    use: Literal["cells", "knock-out", "input"] = "cells",
    max_cells: Annotated[int, Field(ge=2)] | None = None, batch_size: Dim = 32,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32", seed: int = 0,
):  # fmt: skip
    """Embed genes by what a cell foundation model makes of control cells, line by line.

    `model`: a folder with a saved transformer and its genes; `encoding`: how it reads expression,
    see `perturbcore.embeddings.cell_models.huggingface.load_huggingface`; `use`: "cells", a gene's
    embedding averaged over the control cells that have it; "knock-out", what setting it to zero in
    the average control cell changes in the mean embedding of all genes; "input", the model's own
    table of gene vectors; `max_cells`: a random part; `device`, `dtype`: where, and with which
    numbers, the model computes. Sums are kept in the folder `models`: a killed run goes on. Cole et
    al. 2026, section 4.5.1, Eq. 10 and 11.
    """
    from perturbcore.embeddings.cell_models import huggingface

    cells = control_cells(screen, seed=seed)
    encoder = huggingface.load_huggingface(model, cells, encoding=encoding)
    own = cells.take(encoder.genes)
    encoder, kept = huggingface.placed(encoder, device, dtype), Path(models or ".")
    made = []
    lines = None if cell_line is None else [cell_line]
    for line, rows, n_all in drawn_controls(screen, lines, max_cells or screen.n_obs, seed):
        if use == "input":
            X = huggingface.input_vectors(encoder)
        elif use == "knock-out":
            X = huggingface.knock_outs(encoder, own.mean[own.position(line)], batch_size)
        else:
            given = [model, encoding, dtype, line, rows, encoder.genes, screen.X.shape]
            key = digest(given, cells.digest, code_digest("perturbcore.embeddings.expression"))
            part = kept / f"cell-model-{key}.npz" if models is not None else None
            X = huggingface.streamed_means(encoder, screen, rows, batch_size, part)
        known = X.any(axis=1)
        if not known.any():
            raise InputError(f"the model reads no gene in the control cells of {line!r}")
        about = (
            f"{source} of {line}; {len(rows)} of {n_all} cells, {Path(model).name}, "
            f"{encoding}, {use}; {len(known) - known.sum()} genes in none of them have no vector"
        )
        ids = encoder.genes[known]
        made.append(Embedding(MODALITY, MODALITY, ids, X[known], own.identifier, line, about))
    return made
