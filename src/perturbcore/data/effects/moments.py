"""Weighted sums of normalised cells, one row per group, in one pass over a screen.

Zeros contribute nothing to any sum (log1p(0) = 0), so only stored values are visited, and what is
kept is one row per group, never a cell.
"""

import numpy as np
import pandas as pd
from anndata import AnnData
from numba import njit
from tqdm import tqdm

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.screens.declare import check_declared
from perturbcore.data.screens.values import blocks

TARGET_SUM = 1e4
# UMI counts are mostly small whole numbers, and a cell has few different ones: their log1p is
# computed once a cell
_SMALL = 64


@njit(cache=True, nogil=True)
def add_rows(
    data, indices, indptr, group, weight, column, own_total, target, logged, first, second
):
    """Add the cells of a CSR block to the rows of their groups, in place.

    `group` (n_rows,) is the row of `first` of each cell, -1 for none; `column` (n_genes,) the
    column of each gene, -1 for none; `target` the total that a cell is scaled to, 0 for as it
    is; `own_total` takes that total over the kept genes only. `first`, `second` (n_groups,
    n_kept): weighted sums and sums of squares; a `second` of no rows is left alone.
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


def gene_columns(screen: AnnData, genes) -> tuple:
    """Column of each gene of the screen in the result (-1: left out), and the names kept.

    In order.
    """
    if genes is None:
        return np.arange(screen.n_vars), screen.var_names
    kept = pd.Index(list(genes))
    if kept.has_duplicates:
        raise InputError(f"genes: {kept[kept.duplicated()][0]!r} is asked for twice; name it once")
    position = screen.var_names.get_indexer(kept)
    if (position < 0).any() or not len(kept):
        missing = list(kept[position < 0][:5])
        raise InputError(
            f"genes: {missing} not in the screen ({screen.n_vars} genes, such as "
            f"{list(screen.var_names[:3])}); leave them out or check the identifier"
        )
    column = np.full(screen.n_vars, -1)
    column[position] = np.arange(len(kept))
    return column, kept


def accumulate(
    screen: AnnData,
    group: np.ndarray,
    weight: np.ndarray,
    n_groups: int,
    column: np.ndarray,
    *,
    size_factors: str = "all",
    squares: bool = False,
    chunk_size: int | None = None,
    progress: bool = True,
) -> tuple:
    """Sum ``weight * value`` over the cells of each group, value = log1p(1e4 * count / total).

    `screen`: a declared screen, in memory or backed; `group` (n_cells,): group of each cell, -1
    for none; `weight` (n_cells,); `column`: from `gene_columns`; `size_factors`: whether totals
    are over all genes of the screen, or over those kept. Counts only; `squares`: whether
    squares are summed too.

    Returns (ndarray, ndarray): float64, (n_groups, n_kept); the second has no rows unless
    `squares`.
    """
    if size_factors not in ("all", "kept"):
        raise ParameterError(f"size_factors={size_factors!r}: choose 'all' or 'kept' genes")
    counts = screen.uns["perturbcore"]["scale"] == "counts"
    target = TARGET_SUM if counts else 0.0
    n_kept = int((column >= 0).sum())
    first = np.zeros((n_groups, n_kept))
    second = np.zeros((n_groups if squares else 0, n_kept))
    group = np.ascontiguousarray(group, dtype=np.int64)
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    column = np.ascontiguousarray(column, dtype=np.int64)
    own = size_factors == "kept"
    wanted = None if (group >= 0).all() else lambda a, b: bool((group[a:b] >= 0).any())
    with tqdm(
        total=screen.n_obs, unit="cell", disable=not progress, delay=5, unit_scale=True
    ) as bar:
        for start, stop, b in blocks(screen, chunk_size, wanted):
            add_rows(
                b.data, b.indices, b.indptr, group[start:stop], weight[start:stop], column, own,
                target, counts, first, second,
            )  # fmt: skip
            bar.update(stop - bar.n)
    return first, second


def pseudobulk(
    screen: AnnData,
    by=("cell_line", "perturbation"),
    *,
    genes=None,
    size_factors: str = "all",
    chunk_size: int | None = None,
    progress: bool = True,
) -> AnnData:
    """Average log1p(1e4 * count / total) over the cells of each group, in one pass.

    Parameters
    ----------
    screen : AnnData
        A declared screen, in memory or backed on disk.
    by : list of str
        Columns of obs whose combinations are the groups.
    genes, size_factors, chunk_size, progress
        See `accumulate`.

    Returns
    -------
    AnnData, groups x genes
        X float32; obs holds the columns of `by`, `is_control` where `perturbation` is among them,
        and `n_cells`; names are the values joined by ``|``.

    Raises
    ------
    InputError
        If a column is not in obs or holds a missing value.
    """
    check_declared(screen)
    by = [by] if isinstance(by, str) else list(by)
    missing = [c for c in by if c not in screen.obs]
    if missing or not by:
        raise InputError(f"by: {missing} not in obs; choose among {list(screen.obs.columns)}")
    for c in by:
        if screen.obs[c].isna().any():
            raise InputError(f"obs[{c!r}] has missing values: fill them or drop these cells")
    column, kept = gene_columns(screen, genes)
    # sorted groups, so that the order of cells cannot matter
    groupby = screen.obs[by].astype(str).groupby(by, sort=True, observed=True)
    code, groups = groupby.ngroup().to_numpy(), groupby.size().rename("n").reset_index()
    if "perturbation" in by:
        control = screen.obs["is_control"].to_numpy(dtype=bool)
        groups["is_control"] = np.bincount(code, weights=control, minlength=len(groups)) > 0
    weight = 1.0 / groups["n"].to_numpy()[code]
    total, _ = accumulate(
        screen,
        code,
        weight,
        len(groups),
        column,
        size_factors=size_factors,
        chunk_size=chunk_size,
        progress=progress,
    )
    groups = groups.rename(columns={"n": "n_cells"})
    groups.index = groups[by].agg("|".join, axis=1).to_numpy()
    out = AnnData(total.astype(np.float32), obs=groups, var=screen.var.loc[kept, []])
    out.uns["perturbcore"] = {**dict(screen.uns["perturbcore"]), "scale": "log1p"}
    return out
