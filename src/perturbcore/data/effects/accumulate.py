"""Weighted sums of normalised cells, a row for each group, in one pass over a screen."""

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm import tqdm

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.effects.kernels import add_columns, add_rows
from perturbcore.data.screens.blocks import blocks, is_by_column

TARGET_SUM = 1e4


def gene_columns(screen: AnnData, genes) -> tuple:
    """Resolve a choice of genes.

    Returns
    -------
    (ndarray of int64, Index)
        For each gene of the screen its column in the result (-1: left out), and the names kept,
        in the order asked for.

    Raises
    ------
    InputError
        If a gene is not in the screen, or asked for twice.
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
    values: str = "log1p",
    squares: bool = False,
    chunk_size: int | None = None,
    progress: bool = True,
) -> tuple:
    """Sum ``weight * value`` over the cells of each group.

    Parameters
    ----------
    screen : AnnData
        A declared screen, in memory or backed.
    group : ndarray of int, shape (n_cells,)
        Group of each cell, -1 for none.
    weight : ndarray of float, shape (n_cells,)
    n_groups : int
    column : ndarray
        From :func:`gene_columns`.
    size_factors : {"all", "kept"}
        Whether totals are over all genes of the screen, or over those kept. Counts only.
    values : {"log1p", "counts"}
        What is summed: log1p of counts scaled to 1e4 a cell, or the counts themselves.
    squares : bool
        Whether squares are summed too.
    chunk_size : int, optional
        See :func:`perturbcore.data.screens.blocks.blocks`.
    progress : bool
        Show a bar where the work takes longer than a few seconds.

    Returns
    -------
    (ndarray, ndarray)
        float64, (n_groups, n_kept); the second has no rows unless `squares`.
    """
    if size_factors not in ("all", "kept"):
        raise ParameterError(f"size_factors={size_factors!r}: choose 'all' or 'kept' genes")
    scale = screen.uns["perturbcore"]["scale"]
    if values not in ("log1p", "counts"):
        raise ParameterError(f"values={values!r}: choose 'log1p' or 'counts'")
    if values == "counts" and scale != "counts":
        raise InputError("values='counts', but the screen is declared as scale='log1p'")
    normal = scale == "counts" and values == "log1p"
    target = TARGET_SUM if normal else 0.0
    n_kept = int((column >= 0).sum())
    first = np.zeros((n_groups, n_kept))
    second = np.zeros((n_groups if squares else 0, n_kept))
    group = np.ascontiguousarray(group, dtype=np.int64)
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    column = np.ascontiguousarray(column, dtype=np.int64)
    own = size_factors == "kept"
    if is_by_column(screen):
        ones = np.ones(screen.n_obs)
        factor = _column_factors(screen, column, own, target, chunk_size) if normal else ones
        for start, _, b in _bar(screen, screen.n_vars, chunk_size, None, progress):
            add_columns(
                b.data, b.indices, b.indptr, start, group, weight, column, factor, normal, first,
                second,
            )  # fmt: skip
        return first, second
    wanted = None if (group >= 0).all() else lambda a, b: bool((group[a:b] >= 0).any())
    for start, stop, b in _bar(screen, screen.n_obs, chunk_size, wanted, progress):
        add_rows(
            b.data, b.indices, b.indptr, group[start:stop], weight[start:stop], column, own,
            target, normal, first, second,
        )  # fmt: skip
    return first, second


def _column_factors(screen, column, own, target, chunk_size):
    """Scale of each cell, from a pass of its own: a gene-wise store has no cell in one piece."""
    total = np.zeros(screen.n_obs)
    for start, stop, block in blocks(screen, chunk_size):
        if own:
            block = block[:, column[start:stop] >= 0]
        total += np.bincount(block.indices, weights=block.data, minlength=screen.n_obs)
    with np.errstate(divide="ignore"):
        return np.where(total > 0, target / total, 0.0)


def _bar(screen, length, chunk_size, wanted, progress):
    unit = "gene" if is_by_column(screen) else "cell"
    with tqdm(total=length, unit=unit, disable=not progress, delay=5, unit_scale=True) as bar:
        for start, stop, block in blocks(screen, chunk_size, wanted):
            yield start, stop, block
            bar.update(stop - bar.n)
