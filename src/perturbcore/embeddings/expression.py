"""Embeddings of genes from how they vary over unperturbed cells."""

from typing import Annotated

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from pydantic import Field
from sklearn.decomposition import PCA

from perturbcore.core.errors import InputError
from perturbcore.embeddings.base import Embedding
from perturbcore.embeddings.cell_models.tokens import drawn_controls, log_normalised
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
        genes, X = _gene_components(log_normalised(screen, rows), screen.var_names, dim, seed)
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
