"""Counts, sums and sums of squares of groups of cells, and the pseudobulk profiles they give."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError
from perturbcore.data.effects.accumulate import accumulate, gene_columns
from perturbcore.data.screens.labels import check_declared


@dataclass(frozen=True)
class Moments:
    """Moments of normalised expression, log1p(1e4 * count / total), over groups of cells.

    Attributes
    ----------
    groups : DataFrame, one row a group
        The columns that define the groups, `is_control` where every cell of a group agrees on it
        by definition (groups by perturbation), and `n` cells.
    sum, sumsq : ndarray of float64, shape (n_groups, n_genes)
    genes : Index
    """

    groups: pd.DataFrame
    sum: np.ndarray
    sumsq: np.ndarray
    genes: pd.Index

    @property
    def n(self) -> np.ndarray:
        """Cells in each group, shape (n_groups,)."""
        return self.groups["n"].to_numpy()

    @property
    def mean(self) -> np.ndarray:
        """Mean of each group, shape (n_groups, n_genes)."""
        return self.sum / self.n[:, None]

    @property
    def var(self) -> np.ndarray:
        """Unbiased variance (n - 1) of each group; NaN where a group is a single cell."""
        n = self.n[:, None].astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.maximum(self.sumsq - self.sum**2 / n, 0.0) / (n - 1)
        return np.where(n > 1, spread, np.nan)


def group_moments(
    screen: AnnData,
    *,
    by_batch: bool = False,
    genes=None,
    cell_lines=None,
    size_factors: str = "all",
    chunk_size: int | None = None,
    progress: bool = True,
) -> Moments:
    """Count, sum and sum the squares of the cells of each (cell_line, perturbation), in one pass.

    Memory is bounded by groups x genes: with `by_batch` there are as many groups as (cell_line,
    perturbation, batch) triples that occur; take one cell line at a time where that is too many.

    Parameters
    ----------
    screen : AnnData
        A declared screen, in memory or backed on disk.
    by_batch : bool
        Whether batches are groups of their own.
    genes : list of str, optional
        Genes to keep; totals are taken according to `size_factors`.
    cell_lines : list of str, optional
        Leave other lines out.
    size_factors : {"all", "kept"}
        Whether a cell's total counts all genes of the screen, or only those kept.
    chunk_size : int, optional
        Cells read at a time.
    progress : bool

    Returns
    -------
    Moments
        Controls are groups too (`is_control`); groups are sorted.

    Raises
    ------
    InputError
        If the screen is not declared, or a gene or cell line is not in it.
    """
    check_declared(screen)
    by = ["cell_line", "perturbation"] + (["batch"] if by_batch else [])
    obs = screen.obs
    use = np.ones(len(obs), dtype=bool)
    if cell_lines is not None:
        known = set(obs["cell_line"].astype(str))
        unknown = [c for c in cell_lines if c not in known]
        if unknown:
            raise InputError(f"cell_lines: {unknown} not in the screen; it has {sorted(known)}")
        use = obs["cell_line"].astype(str).isin(list(cell_lines)).to_numpy()
    column, kept = gene_columns(screen, genes)
    code, groups = _groups(obs, by, use)
    control = obs.loc[use, "is_control"].to_numpy(dtype=bool)
    groups["is_control"] = np.bincount(code[use], weights=control, minlength=len(groups)) > 0
    first, second = accumulate(
        screen,
        code,
        np.ones(len(obs)),
        len(groups),
        column,
        size_factors=size_factors,
        squares=True,
        chunk_size=chunk_size,
        progress=progress,
    )
    return Moments(groups, first, second, kept)


def pseudobulk(
    screen: AnnData,
    by=("cell_line", "perturbation"),
    *,
    values: str = "log1p",
    genes=None,
    size_factors: str = "all",
    chunk_size: int | None = None,
    progress: bool = True,
) -> AnnData:
    """Average (or add up) the cells of each group, in one pass.

    Parameters
    ----------
    screen : AnnData
        A declared screen, in memory or backed on disk.
    by : list of str
        Columns of obs whose combinations are the groups.
    values : {"log1p", "counts"}
        ``"log1p"``: the mean of log1p(1e4 * count / total). ``"counts"``: the sum of counts.
    genes : list of str, optional
    size_factors : {"all", "kept"}
    chunk_size : int, optional
    progress : bool

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
    code, groups = _groups(screen.obs, by, np.ones(screen.n_obs, dtype=bool))
    if "perturbation" in by:
        control = screen.obs["is_control"].to_numpy(dtype=bool)
        groups["is_control"] = np.bincount(code, weights=control, minlength=len(groups)) > 0
    weight = 1.0 / groups["n"].to_numpy()[code] if values == "log1p" else np.ones(len(code))
    total, _ = accumulate(
        screen,
        code,
        weight,
        len(groups),
        column,
        size_factors=size_factors,
        values=values,
        chunk_size=chunk_size,
        progress=progress,
    )
    groups = groups.rename(columns={"n": "n_cells"})
    groups.index = groups[by].agg("|".join, axis=1).to_numpy()
    out = AnnData(total.astype(np.float32), obs=groups, var=screen.var.loc[kept, []])
    out.uns["perturbcore"] = {**dict(screen.uns["perturbcore"]), "scale": values}
    return out


def _groups(obs, by, use):
    """Give groups their numbers in sorted order, so that the order of cells cannot matter."""
    keys = obs.loc[use, by].astype(str)
    found = keys.groupby(by, sort=True, observed=True)
    code = np.full(len(obs), -1)
    code[use] = found.ngroup().to_numpy()
    groups = found.size().rename("n").reset_index()
    return code, groups
