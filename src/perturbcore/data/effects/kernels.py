"""Compiled inner loops: normalise, log and add up cells in one visit of each stored value.

Zeros contribute nothing to any sum (log1p(0) = 0), so only stored values are visited, and what
is kept is one row a group, never a cell.
"""

import numpy as np
from numba import njit

# UMI counts are mostly small whole numbers, and a cell has few different ones: their log1p is
# computed once a cell
_SMALL = 64


@njit(cache=True, nogil=True)
def add_rows(
    data, indices, indptr, group, weight, column, own_total, target, logged, first, second
):
    """Add the cells of a CSR block to the rows of their groups.

    Parameters
    ----------
    data, indices, indptr : ndarray
        The block.
    group : ndarray of int, shape (n_rows,)
        Row of `first` that each cell belongs to; -1 skips the cell.
    weight : ndarray of float64, shape (n_rows,)
    column : ndarray of int, shape (n_genes,)
        Column of `first` for each gene; -1 leaves the gene out.
    own_total : bool
        Whether a cell's total is over the genes that are kept, not over all.
    target : float
        Total that each cell is scaled to; 0 leaves values as they are.
    logged : bool
        Whether log1p is taken.
    first, second : ndarray of float64, shape (n_groups, n_kept)
        Weighted sums and weighted sums of squares, added to in place; a `second` of no rows is
        left alone.
    """
    squares = second.shape[0] > 0
    known = np.empty(_SMALL)
    for i in range(len(group)):
        g = group[i]
        if g < 0:
            continue
        scale = 1.0
        if target > 0:
            total = 0.0
            for k in range(indptr[i], indptr[i + 1]):
                if not own_total or column[indices[k]] >= 0:
                    total += data[k]
            if total <= 0:
                continue
            scale = target / total
        known[:] = -1.0
        w = weight[i]
        for k in range(indptr[i], indptr[i + 1]):
            j = column[indices[k]]
            if j < 0:
                continue
            value = float(data[k])
            if logged:
                small = int(value) if 0 <= value < _SMALL else _SMALL
                if small < _SMALL and small == value:
                    if known[small] < 0:
                        known[small] = np.log1p(value * scale)
                    value = known[small]
                else:
                    value = np.log1p(value * scale)
            else:
                value *= scale
            first[g, j] += w * value
            if squares:
                second[g, j] += w * value * value


@njit(cache=True, nogil=True)
def add_columns(data, indices, indptr, start, group, weight, column, scale, logged, first, second):
    """Add the genes of a CSC block; as :func:`add_rows`, with `scale` known for every cell.

    `start` is the block's first gene; `group`, `weight` and `scale` have one entry a cell of the
    whole screen.
    """
    squares = second.shape[0] > 0
    one = np.zeros(first.shape[0])
    two = np.zeros(second.shape[0])
    for c in range(len(indptr) - 1):
        j = column[start + c]
        if j < 0:
            continue
        one[:] = 0.0
        two[:] = 0.0
        for k in range(indptr[c], indptr[c + 1]):
            i = indices[k]
            g = group[i]
            if g < 0:
                continue
            value = data[k] * scale[i]
            if logged:
                value = np.log1p(value)
            one[g] += weight[i] * value
            if squares:
                two[g] += weight[i] * value * value
        first[:, j] += one
        if squares:
            second[:, j] += two
