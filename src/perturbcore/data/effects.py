"""From cells to effects: weighted sums of groups, mean profiles, the batch-aware effect."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pandas as pd
from anndata import AnnData
from numba import config, njit
from tqdm import tqdm

from perturbcore.core.errors import InputError, check_choice
from perturbcore.core.scheduler import in_order, scheduler, spread
from perturbcore.data.responses import TAKEN, make_responses
from perturbcore.data.screens.declare import check_declared, kinds_of_cells
from perturbcore.data.screens.values import Matrix

TARGET_SUM = 1e4
# running sums of one pass; where groups x genes is more, the screen is read once for each part
MAX_SUM_BYTES = 2_000_000_000
# UMI counts are mostly small whole numbers, and a cell has few different ones: their log1p is
# computed once per cell
_SMALL = 64
# that add up cells in this process, as NUMBA_NUM_THREADS says
THREADS = config.NUMBA_NUM_THREADS
# of a screen that workers read: their sums are added in this order, whoever made them
STRETCHES = 32


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _total(data, start, stop):
    """Sum of some values, exact in any order for counts: many are added at once."""
    total = 0.0
    for k in range(start, stop):
        total += data[k]
    return total


@njit(cache=True, nogil=True)
def add_rows(data, indices, indptr, cells, group, weight, column, target, first, second):
    """Add some cells of a CSR block to the rows of their groups, in place.

    `column`: of each gene in the sums, -1 without one; None where all genes are kept in order.
    `target`: total of a cell; None where values are logs. `second`: of squares, or None.
    """
    known = np.empty(_SMALL)
    for i in cells:
        # numbers without a sign: no test whether an index counts from the end
        start, stop = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
        scale = 1.0
        if target is not None:
            total = _total(data, start, stop)
            if total <= 0:
                continue
            scale = target / total
            known[:] = -1.0
        w, g = weight[i], group[i]
        sums = first[g]
        for k in range(start, stop):
            j = np.uint32(indices[k])
            if column is not None:
                if column[j] < 0:
                    continue
                j = np.uint32(column[j])
            value = float(data[k])
            if target is not None:
                small = np.uint32(np.int32(value)) if value < _SMALL else np.uint32(_SMALL)
                if small < _SMALL and small == value:
                    if known[small] < 0:
                        known[small] = np.log1p(value * scale)
                    value = known[small]
                else:
                    value = np.log1p(value * scale)
            sums[j] += w * value
            if second is not None:
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
    kind: np.ndarray,
    group: np.ndarray,
    weight: np.ndarray,
    blocks_of_groups: list[tuple[np.ndarray, np.ndarray]],
    column: np.ndarray,
    *,
    squares: bool = False,
    progress: bool = True,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Sum ``weight * log1p(1e4 * count / total)`` over the cells of each group, part by part.

    `kind`: of each cell; `group, weight`: of each kind.
    """
    target = TARGET_SUM if screen.uns["perturbcore"]["scale"] == "counts" else None
    shape = (1 + squares, int((column >= 0).sum()))
    every = np.array_equal(column, np.arange(screen.n_vars))
    how = (None if every else np.asarray(column, dtype=np.int32), target)
    parts = list(_parts(blocks_of_groups, MAX_SUM_BYTES // (8 * shape[0] * shape[1])))
    matrix = Matrix(screen)
    cuts = matrix.cuts()
    for part in tqdm(parts, "passes", disable=not progress or len(parts) == 1):
        members = np.concatenate([g for pair in part for g in pair])
        # a kind of no group meets the spare last entry
        local = np.full(max(group.max(), members.max()) + 2, -1)
        local[members] = np.arange(len(members))
        here = local[group]
        sums = np.zeros((shape[0], len(members), shape[1]))
        show = dict(unit="block of cells", disable=not progress, delay=5)
        if scheduler():
            # the same parts for any number of workers
            step = -(-(len(cuts) - 1) // STRETCHES)
            edges = [cuts[i : i + step + 1] for i in range(0, len(cuts) - 1, step)]
            stretches = [(e, kind[e[0] : e[-1]]) for e in edges]
            found = spread(_sums_of_stretch, stretches, here, weight, shape, matrix, how)
            for there, own in tqdm(in_order(found), total=len(stretches), **show):
                sums[:, there] += own
        else:
            add_cells(sums, cuts, kind, here, weight, matrix, *how, n_threads=THREADS, **show)
        start = 0
        for shared, own in part:
            rows = slice(start, start + len(shared) + len(own))
            yield shared, own, sums[0, rows], sums[-1, rows]
            start = rows.stop


def add_cells(sums, cuts, kind, group, weight, matrix, column, target, n_threads=1, **show):
    """Add the cells between the first and the last cut to sums (1 or 2, groups, genes), in place.

    `kind`: of these cells; `group, weight`: of each kind, -1: left out; `show`: of the bar.
    """
    first = cuts[0]
    second = sums[1] if len(sums) > 1 else None
    wanted = [(a, b) for a, b in pairwise(cuts) if (group[kind[a - first : b - first]] >= 0).any()]
    with ThreadPoolExecutor(n_threads) as threads:
        for start, stop, block in tqdm(matrix.ahead(wanted), total=len(wanted), **show):
            own = group[kind[start - first : stop - first]]
            share = weight[kind[start - first : stop - first]]
            # cells of a group one after the other: its sums stay near the processor
            order = np.argsort(own, kind="stable")
            order = order[own[order] >= 0]
            # each group has one thread: no sum depends on their number
            parts = [order[own[order] % n_threads == k] for k in range(n_threads)]
            stored = (block.data, block.indices, block.indptr)
            how = (own, share, column, target, sums[0], second)
            for done in [threads.submit(add_rows, *stored, cells, *how) for cells in parts]:
                done.result()


def _sums_of_stretch(stretch, group, weight, shape, matrix, how) -> tuple:
    """Return the groups that occur in a stretch of cells, and their sums."""
    cuts, kind = stretch
    there = np.unique(group[np.unique(kind)])
    there = there[there >= 0]
    local = np.where(group >= 0, np.searchsorted(there, group), -1)
    sums = np.zeros((shape[0], len(there), shape[1]))
    add_cells(sums, cuts, kind, local, weight, matrix, *how, disable=True)
    return there, sums


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


def pseudobulk(screen: AnnData, by=("cell_line", "perturbation")) -> AnnData:
    """Average log1p(1e4 * count / total) over the cells of each group, in one pass."""
    check_declared(screen)
    by = list(by)
    kinds, kind = kinds_of_cells(screen.obs)
    found = kinds.groupby(by, sort=True)
    groups = found.agg(n_cells=("n", "sum"), is_control=("is_control", "any")).reset_index()
    if "perturbation" not in by:
        del groups["is_control"]
    group = found.ngroup().to_numpy()
    weight = 1.0 / groups["n_cells"].to_numpy()[group]
    every = [(np.arange(0), np.arange(len(groups)))]
    mean = np.empty((len(groups), screen.n_vars), dtype=np.float32)
    genes = np.arange(screen.n_vars)
    for _, own, total, _ in summed(screen, kind, group, weight, every, genes, progress=False):
        mean[own] = total
    groups.index = groups[by].agg("|".join, axis=1).to_numpy()
    out = AnnData(mean, obs=groups, var=screen.var[[]])
    out.uns["perturbcore"] = {**dict(screen.uns["perturbcore"]), "scale": "log1p"}
    return out


MIN_CELLS = 10  # with fewer, an effect and its error are not estimable


def ba_ate(
    screen: AnnData,
    *,
    control: str = "global",
    batches: str = "with_controls",
    genes=None,
    min_cells: int = MIN_CELLS,
    progress: bool = True,
) -> AnnData:
    r"""Estimate the effect of every perturbation in every cell line.

    With :math:`y'_{b,k}` the mean of the cells of perturbation k in batch b, :math:`y_b` that of
    the control cells of batch b (both of log1p(1e4 * count / total)), and :math:`B_k` a set of
    batches of the cell line:

    - ``control="matched"`` (Eq. 4, for large batches):
      :math:`\Delta_k = \frac{1}{|B_k|} \sum_{b \in B_k} (y'_{b,k} - y_b)`
    - ``control="global"`` (Eq. 5 and 6, for small batches):
      :math:`\Delta_k = \frac{1}{|B_k|} \sum_{b \in B_k} y'_{b,k} - \frac{1}{M} \sum_b y_b`,
      the last mean over every batch of the line that has control cells.

    Parameters
    ----------
    screen : AnnData
        Declared (:func:`perturbcore.data.screens.declare.declare_screen`), in memory or backed.
    control : {"global", "matched"}
    batches : {"with_controls", "all"}
        :math:`B_k`. ``"with_controls"``: batches with control cells and cells of k (Eq. 1 of the
        paper). ``"all"``: every batch with cells of k, as the published code has it; with matched
        controls every such batch must then have controls.
    genes : list of str, optional
        Genes of the result, in this order; default all. A cell's total is over all genes of the
        screen: hand over fewer columns to filter first, then normalise.
    min_cells : int
        A perturbation with fewer cells in a line (in :math:`B_k`) is left out there. The published
        code has no minimum: 1.
    progress : bool
        Show a bar where the work takes long.

    Returns
    -------
    AnnData, (cell_line, perturbation) x genes
        X: differences of means of log1p(1e4-normalised) values. obs: also `n_cells` and
        `n_batches` (of :math:`B_k`). ``uns["perturbcore"]["not_estimable"]``: what was left out.

    Examples
    --------
    >>> sizes = dict(n_cell_lines=1, n_perturbations=12, n_genes=80, n_control_cells=60)
    >>> screen = pc.simulate_screen(**sizes).screen
    >>> pc.effects(screen, control="matched", progress=False).shape
    (12, 80)
    """
    check_choice("control", control, ("global", "matched"))
    check_choice("batches", batches, ("with_controls", "all"))
    check_declared(screen)
    column, kept = gene_columns(screen, genes)
    kinds, kind = kinds_of_cells(screen.obs)
    table, places, group, weight, lines, few = _plan(kinds, control, batches, min_cells)
    effects = np.empty((len(table), len(kept)), dtype=np.float32)
    sums = summed(screen, kind, group, weight, lines, column, progress=progress)
    for controls, rows, total, _ in sums:
        level, treated = total[: len(controls)], total[len(controls) :]
        base = level.mean(0)
        for row, mean in zip(rows, treated, strict=True):
            if control == "matched":
                base = level[np.searchsorted(controls, places[row])].mean(0)
            effects[row] = mean - base
    about = {k: screen.uns["perturbcore"][k] for k in TAKEN}
    out = make_responses(effects, table, kept, **about)
    out.uns["perturbcore"].update(control=control, batches=batches, min_cells=int(min_cells))
    out.uns["perturbcore"]["not_estimable"] = np.array(few, dtype=str)
    return out


def not_estimable_said(responses: AnnData) -> str:
    """Say how many effects were left out for too few cells, and below which number."""
    about = responses.uns["perturbcore"]
    if "not_estimable" not in about:
        return ""
    n, least = len(about["not_estimable"]), about["min_cells"]
    return f"{n:,} with fewer than {least} cells not estimable and left out"


def _plan(kinds, control, batches, min_cells):
    """Work out rows of the result, and group and weight of kinds; control groups come last."""
    is_control = kinds["is_control"].to_numpy()
    by_place = kinds.groupby(["cell_line", "batch"], sort=True)
    place = by_place.ngroup()
    places = by_place.size().reset_index()[["cell_line", "batch"]]
    n_control = (kinds["n"] * is_control).groupby(place).sum().to_numpy()
    lines = sorted(places["cell_line"].unique())
    if bare := sorted(set(lines) - set(places["cell_line"][n_control > 0])):
        raise InputError(
            f"cell_line {bare}: no control cells; declare the control label of the screen or "
            "leave the line out"
        )
    by = ["cell_line", "perturbation"]
    pairs = kinds.assign(place=place)[~is_control].sort_values([*by, "place"])
    matched = n_control[pairs["place"]] > 0
    if batches == "all" and control == "matched" and not matched.all():
        bad = places.loc[pairs.loc[~matched, "place"].unique()]
        names = [f"{b} ({c})" for c, b in bad.itertuples(index=False)]
        raise InputError(
            f"batches='all' with matched controls: {len(names)} batches have no control cells: "
            f"{names[:5]}; use batches='with_controls' or control='global'"
        )
    used = pairs[matched] if batches == "with_controls" else pairs
    total = used.groupby(by)["n"].transform("sum")
    wanted, there = pairs[by].drop_duplicates(), used[by].drop_duplicates()
    if len(there) < len(wanted):
        lost = wanted.merge(there.assign(there=True), how="left").query("there.isna()")
        names = [f"{p} ({c})" for c, p in lost[by].itertuples(index=False)]
        raise InputError(
            f"{len(names)} perturbations have no cells in any batch with controls: {names[:5]}; "
            "leave them out (declare_screen(unmatched='drop')) or count every batch (batches='all')"
        )
    few = used.loc[total < min_cells, by].drop_duplicates()
    used = used[total >= min_cells]
    if used.empty:
        raise InputError(f"no perturbation has min_cells={min_cells} cells in a line: lower it")
    by_row = used.groupby(by, sort=True)
    table = by_row.agg(n_cells=("n", "sum"), n_batches=("n", "size")).reset_index()
    row = by_row.ngroup()
    share = 1.0 / (table["n_batches"].to_numpy()[row] * used["n"])
    treated = kinds.index[~is_control]
    group = len(table) + place.to_numpy()
    weight = 1.0 / np.maximum(n_control[place], 1)
    group[~is_control] = row.reindex(treated, fill_value=-1)
    weight[~is_control] = share.reindex(treated, fill_value=0.0)
    of_row = {r: len(table) + p.to_numpy() for r, p in used["place"].groupby(row)}
    with_controls = places["cell_line"].where(n_control > 0).to_numpy()
    blocks = [
        (
            len(table) + np.flatnonzero(with_controls == line),
            np.flatnonzero(table["cell_line"] == line),
        )
        for line in lines
    ]
    columns = ["perturbation", "cell_line", "n_cells", "n_batches"]
    names = few["cell_line"] + "|" + few["perturbation"]
    return table[columns], of_row, group, weight, blocks, list(names)
