"""The values of a screen: read in blocks wherever they lie, checked against the declared scale."""

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from perturbcore.core.errors import InputError

# 4 million stored values are about 50 MB with their indices: enough for speed, no burden
BLOCK_VALUES = 4_000_000
# log1p of counts scaled to 1e4 cannot exceed this, nor can a cell's values undo to more than 1e4
_LOG_MAX = np.log1p(1e4)
_TOTAL_MAX = 1e4 * 1.01


def blocks(
    adata: AnnData, wanted: Callable[[int, int], bool] | None = None
) -> Iterator[tuple[int, int, sp.csr_matrix]]:
    """Iterate over start, stop and rows, about four million stored values at a time; read only."""
    matrix = _matrix(adata)
    cuts = _cuts(matrix, adata.shape)
    for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        if wanted is not None and not wanted(start, stop):
            continue
        block = _rows(adata, matrix, start, stop)
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
    if getattr(matrix, "format", "") == "csc":
        return sp.csr_matrix(matrix if sp.issparse(matrix) else matrix[:])
    return matrix


def _cuts(matrix, shape) -> np.ndarray:
    n_cells, n_genes = shape
    if getattr(matrix, "format", "") != "csr":
        return np.append(np.arange(0, n_cells, max(1, BLOCK_VALUES // max(1, n_genes))), n_cells)
    indptr = np.asarray(matrix.indptr if sp.issparse(matrix) else matrix.group["indptr"][:])
    cuts = [0]
    while cuts[-1] < n_cells:
        end = int(np.searchsorted(indptr, indptr[cuts[-1]] + BLOCK_VALUES, side="right")) - 1
        cuts.append(min(n_cells, max(end, cuts[-1] + 1)))
    return np.array(cuts)


def _rows(adata, matrix, start, stop) -> sp.csr_matrix:
    if sp.issparse(matrix) and matrix.format == "csr":
        pointers = matrix.indptr[start : stop + 1]
        stored = slice(pointers[0], pointers[-1])
        parts = (matrix.data[stored], matrix.indices[stored], pointers - pointers[0])
        return sp.csr_matrix(parts, shape=(stop - start, adata.n_vars), copy=False)
    part = _rows_of_view(adata, start, stop) if matrix is None else matrix[start:stop]
    return sp.csr_matrix(part.compute() if hasattr(part, "compute") else part)


def _rows_of_view(adata, start, stop):
    """Read rows of a view of a backed file: AnnData makes no view of a view, nor reads a part."""
    whole = adata._adata_ref
    rows = np.arange(whole.n_obs)[adata._oidx][start:stop]
    low, high = rows.min(), rows.max() + 1
    if getattr(whole.X, "format", "") != "csc" and high - low <= 4 * len(rows):
        part = whole.X[low:high][rows - low]
    else:
        part = whole[rows].X
    return part[:, np.arange(whole.n_vars)[adata._vidx]]


def check_values(adata: AnnData) -> None:
    """Check, block by block, that the values of a declared screen are what its scale says."""
    scale = str(adata.uns["perturbcore"]["scale"])
    total = np.zeros(adata.n_obs)
    whole, largest = True, 0.0
    for start, stop, block in blocks(adata):
        data = block.data
        broken = data != np.floor(data)
        faults = {
            "is not finite: remove or repair it": ~np.isfinite(data),
            "is negative: expression cannot be; scaled or centred values are of no use here, give "
            "raw counts or log1p values": data < 0,
        }
        if scale == "counts":
            faults[
                "is not a whole number, though scale='counts': the values look logged (declare "
                "scale='log1p') or normalised; give raw counts, or log1p of counts scaled to 1e4"
            ] = broken
        else:
            faults[
                "is larger than log1p(1e4) = 9.21, though scale='log1p': declare scale='counts' if "
                "these are counts, else give log1p of counts scaled to 1e4 per cell"
            ] = data > _LOG_MAX * 1.0001
        for why, bad in faults.items():
            if bad.any():
                k = int(bad.argmax())
                cell = start + int(np.searchsorted(block.indptr, k, side="right")) - 1
                at = f"{adata.obs_names[cell]!r}, {adata.var_names[int(block.indices[k])]!r}"
                raise InputError(f"X[{at}] = {data[k]:g} {why}")
        whole, largest = whole and not broken.any(), max(largest, float(data.max(initial=0)))
        data = data if scale == "counts" else np.expm1(data.astype(np.float64))
        rows = np.repeat(np.arange(stop - start), np.diff(block.indptr))
        total[start:stop] = np.bincount(rows, weights=data, minlength=stop - start)
    empty = total <= 0
    if empty.any():
        raise InputError(
            f"{empty.sum()} cells have a total of zero, first {adata.obs_names[empty.argmax()]!r}: "
            "drop them, they cannot be normalised"
        )
    if scale == "log1p" and whole:
        raise InputError(
            f"scale='log1p', but every value is a whole number (largest {largest:g}): these look "
            "like counts, declare scale='counts'"
        )
    if scale == "log1p" and total.max() > _TOTAL_MAX:
        i = int(total.argmax())
        raise InputError(
            f"scale='log1p': undoing the log gives cell {adata.obs_names[i]!r} a total of "
            f"{total[i]:.0f}, more than 1e4; declare raw counts, or log1p of counts scaled to 1e4"
        )
