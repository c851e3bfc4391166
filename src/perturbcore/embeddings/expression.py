"""Embeddings of genes from how they vary over unperturbed cells."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from pydantic import Field
from sklearn.decomposition import PCA

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.screens.read import normalise
from perturbcore.embeddings.base import Embedding
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
    """Principal components of genes over the control cells of each cell line.

    The rows of the genes x cells matrix are the samples, so genes that rise and fall in the
    same cells come to lie together. No perturbed cell is looked at; counts are normalised to
    1e4 per cell and logged. Genes that no drawn cell expresses are left out and counted in
    ``source``.

    `cell_line`: one line only; by default every line of the screen gets its own embedding;
    `dim`: wanted dimensions; fewer where there are fewer cells or genes; `max_cells`: at most
    so many control cells of a line are read, drawn at random.

    Cole et al. 2026, section 4.5.1, "PCA".
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


def drawn_controls(
    screen: AnnData, cell_lines: Sequence[str] | None, max_cells: int, seed: int
) -> Iterator[tuple[str, np.ndarray, int]]:
    """For each line: its name, the rows of at most `max_cells` control cells, how many it has."""
    lines = screen.obs["cell_line"].astype(str).to_numpy()
    there = sorted(set(lines))
    for line in there if cell_lines is None else cell_lines:
        if line not in there:
            raise ParameterError(f"the screen has no cell line {line!r}; it has {', '.join(there)}")
        rows = np.flatnonzero(screen.obs["is_control"].to_numpy(bool) & (lines == line))
        n_all = len(rows)
        if n_all < 2:
            raise InputError(
                f"cell line {line!r} has {n_all} control cells; at least 2 are needed to learn how "
                "genes vary: leave the line out"
            )
        if n_all > max_cells:
            rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))
        yield line, rows, n_all


def log_normalised(screen: AnnData, rows: np.ndarray) -> sp.csr_matrix:
    """Cells of a screen, normalised to 1e4 and logged, as a sparse matrix in memory."""
    part = screen[rows].to_memory() if screen.isbacked else screen[rows].copy()
    return sp.csr_matrix(normalise(part).X)


def _gene_components(cells: sp.csr_matrix, names: pd.Index, dim: int, seed: int):
    order = np.argsort(np.asarray(names).astype(str), kind="stable")
    matrix = cells.T.tocsr()[order].astype(np.float64)
    keep = matrix.getnnz(axis=1) > 0
    matrix, genes = matrix[np.flatnonzero(keep)], pd.Index(np.asarray(names)[order][keep])
    size = min(dim, min(matrix.shape) - 1)
    if size < 1:
        raise InputError(f"{matrix.shape[0]} expressed genes are too few for an embedding")
    if min(matrix.shape) <= max(DENSE, dim):
        pca = PCA(size, svd_solver="full")
        X = pca.fit_transform(matrix.toarray())
    else:
        # Centres inside the iteration, so that the matrix stays sparse.
        pca = PCA(size, svd_solver="arpack", random_state=seed)
        X = pca.fit_transform(matrix)
    kept = pca.singular_values_ > NOISE * pca.singular_values_[0]
    return genes, fix_signs(np.ascontiguousarray(X[:, kept]))
