"""What the numbers of a screen must be: checked block by block, never densified."""

import numpy as np
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.screens.blocks import blocks, is_by_column

# log1p of counts scaled to 1e4 cannot exceed this, nor can a cell's values undo to more than 1e4
_LOG_MAX = np.log1p(1e4)
_TOTAL_MAX = 1e4 * 1.01


def check_values(adata: AnnData, chunk_size: int | None = None) -> None:
    """Check that the values of a declared screen are what its scale says.

    Parameters
    ----------
    adata : AnnData
        In memory or backed.
    chunk_size : int, optional
        See :func:`perturbcore.data.screens.blocks.blocks`.

    Raises
    ------
    InputError
        Naming the first offending cell and gene, the value, and what to declare instead.
    """
    scale = str(adata.uns["perturbcore"]["scale"])
    by_column = is_by_column(adata)
    total = np.zeros(adata.n_obs)
    whole, largest = True, 0.0
    for start, stop, block in blocks(adata, chunk_size):
        data = block.data
        if not len(data):
            continue
        _refuse(adata, block, start, ~np.isfinite(data), "is not finite: remove or repair it")
        _refuse(
            adata,
            block,
            start,
            data < 0,
            "is negative: expression cannot be; scaled or centred values are of no use here, "
            "give raw counts or log1p values",
        )
        largest = max(largest, float(data.max()))
        broken = data != np.floor(data)
        if scale == "counts":
            _refuse(adata, block, start, broken, _not_counts(data))
        elif whole:
            whole = not broken.any()
        if scale == "log1p":
            too_large = data > _LOG_MAX * 1.0001
            _refuse(adata, block, start, too_large, _not_log(whole))
            data = np.expm1(data.astype(np.float64))
        if by_column:
            total += np.bincount(block.indices, weights=data, minlength=adata.n_obs)
        else:
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


def _refuse(adata, block, start, bad, why):
    if not bad.any():
        return
    k = int(bad.argmax())
    major = start + int(np.searchsorted(block.indptr, k, side="right")) - 1
    minor = int(block.indices[k])
    cell, gene = (minor, major) if block.format == "csc" else (major, minor)
    raise InputError(
        f"X[{adata.obs_names[cell]!r}, {adata.var_names[gene]!r}] = {block.data[k]:g} {why}"
    )


def _not_counts(data):
    if data.max() <= _LOG_MAX:
        return (
            "is not a whole number, though scale='counts': the values look already logged "
            f"(largest here {data.max():.3g}), declare scale='log1p' or give raw counts"
        )
    return (
        "is not a whole number, though scale='counts': the values look normalised but not "
        "logged; give raw counts, or log1p of counts scaled to 1e4 as scale='log1p'"
    )


def _not_log(whole):
    if whole:
        return (
            "is larger than log1p(1e4) = 9.21, though scale='log1p': whole numbers look like "
            "counts, declare scale='counts'"
        )
    return (
        "is larger than log1p(1e4) = 9.21, though scale='log1p': give raw counts, or log1p of "
        "counts scaled to 1e4 a cell"
    )
