"""Reading the cells of a screen in blocks, wherever and however they are stored."""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError

# 4 million stored values are about 50 MB with their indices: enough for speed, no burden
BLOCK_VALUES = 4_000_000


def is_by_column(adata: AnnData) -> bool:
    """Say whether the matrix is stored gene by gene (CSC), so that rows cannot be read alone."""
    return _format(_matrix(adata)) == "csc"


def blocks(adata: AnnData, chunk_size: int | None = None, wanted=None) -> Iterator[tuple]:
    """Iterate over a screen's matrix without ever holding all of it.

    Parameters
    ----------
    adata : AnnData
        In memory (CSR, CSC, dense), backed on disk (CSR, CSC, dense) or lazy (dask).
    chunk_size : int, optional
        Cells a block (genes a block where the matrix is stored by column). Default: as many as
        hold about four million stored values.
    wanted : callable, optional
        ``wanted(start, stop)`` says whether any row of a block is of use; others are not read.
        Ignored where the matrix is stored by column.

    Yields
    ------
    (int, int, csr_matrix or csc_matrix)
        First row and the one past the last, and these rows. Where :func:`is_by_column` is True:
        columns, as CSC. Duplicate entries are summed. The block may share memory with the
        screen: never write to it.

    Raises
    ------
    ParameterError
        If `chunk_size` is not a positive whole number.
    """
    if chunk_size is not None and (
        isinstance(chunk_size, bool)
        or not isinstance(chunk_size, int | np.integer)
        or chunk_size < 1
    ):
        raise ParameterError(
            f"chunk_size={chunk_size!r}: give a whole number of at least 1 or None"
        )
    matrix = _matrix(adata)
    by_column = _format(matrix) == "csc"
    cuts = _cuts(matrix, adata.shape, chunk_size, by_column)
    for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        if wanted is not None and not by_column and not wanted(start, stop):
            continue
        block = _take(adata, matrix, start, stop, by_column)
        if not block.has_canonical_format:
            block = block.copy()
            block.sum_duplicates()
        yield start, stop, block


def _matrix(adata: AnnData):
    # a view of a backed file would be read whole by .X: its blocks are read through the view
    if adata.is_view and adata.isbacked:
        return None
    matrix = adata.X
    if matrix is None:
        raise InputError("the screen has no X: put the counts (or log1p values) of its cells there")
    return matrix


def _format(matrix) -> str:
    return getattr(matrix, "format", "") if matrix is not None else ""


def _cuts(matrix, shape, chunk_size, by_column):
    n_cells, n_genes = shape
    length = n_genes if by_column else n_cells
    if chunk_size is not None:
        return np.append(np.arange(0, length, chunk_size), length)
    if _format(matrix) not in ("csr", "csc"):
        step = max(1, BLOCK_VALUES // max(1, n_genes))
        return np.append(np.arange(0, length, step), length)
    indptr = np.asarray(matrix.indptr if sp.issparse(matrix) else matrix.group["indptr"][:])
    cuts = [0]
    while cuts[-1] < length:
        end = int(np.searchsorted(indptr, indptr[cuts[-1]] + BLOCK_VALUES, side="right")) - 1
        cuts.append(min(length, max(end, cuts[-1] + 1)))
    return np.array(cuts)


def _take(adata, matrix, start, stop, by_column):
    if by_column:
        kind = sp.csc_matrix
        shape = (adata.n_obs, stop - start)
    else:
        kind = sp.csr_matrix
        shape = (stop - start, adata.n_vars)
    if sp.issparse(matrix) and matrix.format in ("csr", "csc"):
        first, last = matrix.indptr[start], matrix.indptr[stop]
        parts = (
            matrix.data[first:last],
            matrix.indices[first:last],
            matrix.indptr[start : stop + 1] - first,
        )
        return kind(parts, shape=shape, copy=False)
    if matrix is None:
        part = _take_view(adata, start, stop)
    elif by_column:
        part = matrix[:, start:stop]
    else:
        part = matrix[start:stop]
    if hasattr(part, "compute"):
        part = part.compute()
    return kind(part)


def _take_view(adata, start, stop):
    """Read rows of a view of a backed file: AnnData makes no view of a view, nor reads a part."""
    whole = adata._adata_ref
    rows = np.arange(whole.n_obs)[adata._oidx][start:stop]
    low, high = rows.min(), rows.max() + 1
    if _format(whole.X) != "csc" and high - low <= 4 * len(rows):
        part = whole.X[low:high][rows - low]
    else:
        part = whole[rows].X
    return part[:, np.arange(whole.n_vars)[adata._vidx]]
