"""The batch-aware average treatment effect: a target that lets no batch speak louder."""

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.data.effects.moments import accumulate, gene_columns
from perturbcore.data.screens.declare import check_declared

# the running sums of one pass; a screen with more groups is read once for each part of its lines
MAX_SUM_BYTES = 2_000_000_000


def ba_ate(
    screen: AnnData,
    *,
    control: str = "global",
    batches: str = "with_controls",
    genes=None,
    size_factors: str = "all",
    drop_unmatched: bool = False,
    chunk_size: int | None = None,
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

    The effect is linear in cells: cell i of perturbation k in batch b counts
    :math:`1 / (|B_k| n_{b,k})`, which the labels alone determine. So one pass over the cells is
    enough, and what is held is perturbations x genes and batches x genes, whatever the number of
    cells.

    Parameters
    ----------
    screen : AnnData
        A declared screen (:func:`perturbcore.data.screens.declare.declare_screen`), in
        memory or backed. Batches are those of a cell line: equal labels in two lines are
        two batches.
    control : {"global", "matched"}
    batches : {"with_controls", "all"}
        :math:`B_k`. ``"with_controls"``: batches with control cells and cells of k (Eq. 1 of the
        paper). ``"all"``: every batch with cells of k, as the published code has it; with matched
        controls every such batch must then have controls.
    genes : list of str, optional
        Genes of the result, in this order; default all.
    size_factors : {"all", "kept"}
        Whether a cell's total is over all genes of the screen (normalise, then filter) or over
        `genes` (filter, then normalise).
    drop_unmatched : bool
        Leave out perturbations without a batch in :math:`B_k` rather than refuse.
    chunk_size : int, optional
        Cells read at a time; default by the number of stored values.
    progress : bool
        Show a bar where the work takes long.

    Returns
    -------
    AnnData, (cell_line, perturbation) x genes
        X float32, difference of means of log1p(1e4-normalised) values (natural log). obs:
        `perturbation`, `cell_line`, `n_cells` (in :math:`B_k`), `n_batches`
        (:math:`|B_k|`). Sorted by cell line and perturbation.

    Raises
    ------
    ParameterError
        If an option is not one of those above.
    InputError
        If the screen is not declared, a line has no controls, a perturbation has no batch in
        :math:`B_k`, or a batch needs controls and has none.

    References
    ----------
    Cole et al. 2026, Methods 4.1.2, Eq. 1-6.
    """
    if control not in ("global", "matched"):
        raise ParameterError(f"control={control!r}: choose 'global' (Eq. 6) or 'matched' (Eq. 4)")
    if batches not in ("with_controls", "all"):
        raise ParameterError(f"batches={batches!r}: choose 'with_controls' or 'all'")
    check_declared(screen)
    column, kept = gene_columns(screen, genes)
    plan = _plan(screen.obs, control, batches, drop_unmatched)
    effects = np.empty((len(plan["perturbations"]), len(kept)), dtype=np.float32)
    for lines in _parts(plan, len(kept)):
        rows, group, weight, n_groups, offset = _select(plan, lines)
        total, _ = accumulate(
            screen,
            group,
            weight,
            n_groups,
            column,
            size_factors=size_factors,
            chunk_size=chunk_size,
            progress=progress,
        )
        for line in lines:
            _subtract_controls(plan, line, rows, total, offset, control, effects)
    return _responses(screen, plan, effects, kept, control, batches)


def _plan(obs, control, batches, drop_unmatched):
    """Work out groups and weights from labels alone."""
    keys = obs[["cell_line", "perturbation", "batch"]].astype(str).reset_index(drop=True)
    is_control = obs["is_control"].to_numpy(dtype=bool)
    place = keys.groupby(["cell_line", "batch"], sort=True)
    keys["place"] = place.ngroup()
    places = place.size().reset_index()[["cell_line", "batch"]]
    n_control = np.bincount(keys["place"][is_control], minlength=len(places))
    lines = sorted(keys["cell_line"].unique())
    bare = [c for c in lines if not n_control[(places["cell_line"] == c).to_numpy()].any()]
    if bare:
        raise InputError(
            f"cell_line {bare}: no control cells; declare the control label of the screen or "
            "leave the line out"
        )
    treated = keys[~is_control]
    pair = treated.groupby(["cell_line", "perturbation", "place"], sort=True)
    pairs = pair.size().rename("n").reset_index()
    pairs["matched"] = n_control[pairs["place"]] > 0
    if batches == "all" and control == "matched" and not pairs["matched"].all():
        bad = places.loc[pairs.loc[~pairs["matched"], "place"].unique()]
        names = [f"{b} ({c})" for c, b in bad.itertuples(index=False)]
        raise InputError(
            f"batches='all' with matched controls: {len(names)} batches have no control cells: "
            f"{names[:5]}; use batches='with_controls' or control='global'"
        )
    pairs["used"] = pairs["matched"] if batches == "with_controls" else True
    by = ["cell_line", "perturbation"]
    unmatched = pairs.groupby(by)["used"].any()
    unmatched = unmatched.index[~unmatched.to_numpy()]
    if len(unmatched) and not drop_unmatched:
        names = [f"{p} ({c})" for c, p in unmatched]
        raise InputError(
            f"{len(names)} perturbations have no cells in any batch with controls: {names[:5]}; "
            "leave them out with drop_unmatched=True or count every batch with batches='all'"
        )
    pair_of_cell = pair.ngroup().to_numpy()
    used = pairs[pairs["used"]].copy()
    found = used.groupby(by, sort=True)
    used["row"] = found.ngroup()
    perturbations = found.agg(n_cells=("n", "sum"), n_batches=("n", "size")).reset_index()
    size = perturbations["n_batches"].to_numpy()[used["row"]]
    row_of_pair = np.full(len(pairs), -1)
    row_of_pair[used.index] = used["row"]
    weight_of_pair = np.zeros(len(pairs))
    weight_of_pair[used.index] = 1.0 / (size * used["n"])
    row = np.full(len(keys), -1)
    weight = np.zeros(len(keys))
    row[~is_control] = row_of_pair[pair_of_cell]
    weight[~is_control] = weight_of_pair[pair_of_cell]
    return {
        "lines": lines,
        "line_of_cell": keys["cell_line"].to_numpy(),
        "row": row,
        "weight": weight,
        "place": np.where(is_control, keys["place"], -1),
        "n_control": n_control,
        "line_of_place": places["cell_line"].to_numpy(),
        "perturbations": perturbations,
        "used": used,
    }


def _parts(plan, n_genes):
    """Group the lines so that the sums of one pass stay within MAX_SUM_BYTES."""
    part, size = [], 0
    for line in plan["lines"]:
        n = (plan["perturbations"]["cell_line"] == line).sum()
        n += (plan["line_of_place"] == line).sum()
        if part and (size + n) * n_genes * 8 > MAX_SUM_BYTES:
            yield part
            part, size = [], 0
        part, size = [*part, line], size + n
    yield part


def _select(plan, lines):
    """Give the perturbations of some lines a row each, then their batches of controls."""
    rows = np.flatnonzero(plan["perturbations"]["cell_line"].isin(lines))
    places = np.flatnonzero(np.isin(plan["line_of_place"], lines))
    local = np.full(len(plan["perturbations"]) + 1, -1)
    local[rows] = np.arange(len(rows))
    offset = np.full(len(plan["line_of_place"]) + 1, -1)
    offset[places] = len(rows) + np.arange(len(places))
    # index -1 (neither) meets the spare last entry, which is -1
    group = np.where(plan["place"] >= 0, offset[plan["place"]], local[plan["row"]])
    n_control = np.append(plan["n_control"], 1)
    weight = np.where(
        plan["place"] >= 0, 1.0 / np.maximum(n_control[plan["place"]], 1), plan["weight"]
    )
    return local, group, weight, len(rows) + len(places), offset


def _subtract_controls(plan, line, local, total, offset, control, effects):
    rows = np.flatnonzero(plan["perturbations"]["cell_line"] == line)
    places = np.flatnonzero((plan["line_of_place"] == line) & (plan["n_control"] > 0))
    level = total[offset[places]]
    if control == "global":
        overall = level.mean(0)
        for r in rows:
            effects[r] = total[local[r]] - overall
        return
    column = np.full(len(plan["line_of_place"]), -1)
    column[places] = np.arange(len(places))
    used = plan["used"]
    used = used[used["cell_line"] == line]
    for r, where in used.groupby("row")["place"]:
        effects[r] = total[local[r]] - level[column[where]].mean(0)


def _responses(screen, plan, effects, genes, control, batches):
    obs = plan["perturbations"][["perturbation", "cell_line", "n_cells", "n_batches"]].copy()
    obs.index = (obs["cell_line"] + "|" + obs["perturbation"]).to_numpy()
    out = AnnData(effects, obs=obs, var=pd.DataFrame(index=genes))
    declared = screen.uns["perturbcore"]
    out.uns["perturbcore"] = {
        "dataset": str(declared["dataset"]),
        "task": "lfc",
        "identifier": str(declared["identifier"]),
        "simulated": bool(declared["simulated"]),
        "control": control,
        "batches": batches,
    }
    return out
