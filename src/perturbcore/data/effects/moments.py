"""Weighted sums of normalised cells, one row per group, in as few passes as memory allows."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from anndata import AnnData
from numba import njit
from tqdm import tqdm

from perturbcore.core.errors import InputError, check_choice
from perturbcore.data.screens.declare import check_declared
from perturbcore.data.screens.values import blocks

TARGET_SUM = 1e4
# running sums of one pass; where groups x genes is more, the screen is read once for each part
MAX_SUM_BYTES = 2_000_000_000
# UMI counts are mostly small whole numbers, and a cell has few different ones: their log1p is
# computed once per cell
_SMALL = 64


@njit(cache=True, nogil=True)
def add_rows(
    data, indices, indptr, group, weight, column, own_total, target, logged, first, second
):
    """Add the cells of a CSR block to the rows of their groups, in place."""
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
    """Column of each gene of the screen in the result (-1: left out), and the names in order."""
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


def summed(
    screen: AnnData,
    group: np.ndarray,
    weight: np.ndarray,
    blocks_of_groups: list[tuple[np.ndarray, np.ndarray]],
    column: np.ndarray,
    *,
    size_factors: str = "all",
    squares: bool = False,
    progress: bool = True,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Sum ``weight * log1p(1e4 * count / total)`` over the cells of each group, part by part."""
    check_choice("size_factors", size_factors, ("all", "kept"))
    target = TARGET_SUM if screen.uns["perturbcore"]["scale"] == "counts" else 0.0
    n_kept = int((column >= 0).sum())
    weight, column = np.asarray(weight, dtype=np.float64), np.asarray(column, dtype=np.int64)
    room = MAX_SUM_BYTES // (n_kept * 8 * (1 + squares))
    parts = list(_parts(blocks_of_groups, room))
    for part in tqdm(parts, "passes", disable=not progress or len(parts) == 1):
        members = np.concatenate([g for pair in part for g in pair])
        # a cell of no group meets the spare last entry
        local = np.full(max(group.max(), members.max()) + 2, -1)
        local[members] = np.arange(len(members))
        here = local[group]
        first = np.zeros((len(members), n_kept))
        second = np.zeros((len(members) if squares else 0, n_kept))
        bar = tqdm(total=screen.n_obs, unit="cell", disable=not progress, delay=5, unit_scale=True)
        with bar:
            for start, stop, b in blocks(screen, lambda i, j, here=here: (here[i:j] >= 0).any()):
                add_rows(
                    b.data, b.indices, b.indptr, here[start:stop], weight[start:stop], column,
                    size_factors == "kept", target, target > 0, first, second,
                )  # fmt: skip
                bar.update(stop - bar.n)
        start = 0
        for shared, own in part:
            rows = slice(start, start + len(shared) + len(own))
            yield shared, own, first[rows], second[rows]
            start = rows.stop


def well_effects(wells: AnnData, control: str = "matched") -> pd.DataFrame:
    """Mean effect of each perturbation on each plate that has control wells (or mean profiles)."""
    keys = ["cell_line", "batch", "perturbation"]
    treated = ~wells.obs["is_control"].to_numpy(dtype=bool)
    labels = [wells.obs[k].astype(str).to_numpy() for k in keys]
    X = pd.DataFrame(np.asarray(wells.X, dtype=np.float64), columns=wells.var_names)
    base = X[~treated].groupby([k[~treated] for k in labels[:2]]).mean()
    if control == "global":
        base.loc[:] = base.to_numpy().mean(axis=0)
    means = X[treated].groupby([k[treated] for k in labels]).mean().rename_axis(keys)
    plates = means.index.droplevel("perturbation")
    known = plates.isin(base.index)
    return means[known] - base.loc[plates[known]].to_numpy()


def _parts(blocks_of_groups, room: int):
    """Divide blocks so that the groups of one pass are at most `room`, where that is possible."""
    part, used = [], 0
    for shared, own in blocks_of_groups:
        done = 0
        while done < len(own):
            if part and used + len(shared) >= room:
                yield part
                part, used = [], 0
            take = own[done : done + max(1, room - used - len(shared))]
            part.append((shared, take))
            used, done = used + len(shared) + len(take), done + len(take)
    if part:
        yield part


def pseudobulk(
    screen: AnnData, by=("cell_line", "perturbation"), *, progress: bool = True
) -> AnnData:
    """Average log1p(1e4 * count / total) over the cells of each group, in one pass."""
    check_declared(screen)
    by = list(by)
    # sorted groups, so that the order of cells cannot matter
    groupby = screen.obs[by].astype(str).groupby(by, sort=True, observed=True)
    code, groups = groupby.ngroup().to_numpy(), groupby.size().rename("n_cells").reset_index()
    if "perturbation" in by:
        control = screen.obs["is_control"].to_numpy(dtype=bool)
        groups["is_control"] = np.bincount(code, weights=control, minlength=len(groups)) > 0
    weight = 1.0 / groups["n_cells"].to_numpy()[code]
    every = [(np.arange(0), np.arange(len(groups)))]
    mean = np.empty((len(groups), screen.n_vars), dtype=np.float32)
    for _, own, total, _ in summed(
        screen, code, weight, every, np.arange(screen.n_vars), progress=progress
    ):
        mean[own] = total
    groups.index = groups[by].agg("|".join, axis=1).to_numpy()
    out = AnnData(mean, obs=groups, var=screen.var[[]])
    out.uns["perturbcore"] = {**dict(screen.uns["perturbcore"]), "scale": "log1p"}
    return out
