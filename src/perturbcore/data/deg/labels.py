"""Labels of a screen: perturbed against control cells, pooled over batches or voted by them."""

import numpy as np
from anndata import AnnData
from scipy.stats import false_discovery_control

from perturbcore.core.errors import ParameterError
from perturbcore.data.deg.plan import plan_tests
from perturbcore.data.deg.tests import (
    call_genes,
    check_test,
    majority,
    mean_and_variance,
    p_values,
    t_statistics,
)
from perturbcore.data.effects.moments import gene_columns, summed
from perturbcore.data.responses import make_responses
from perturbcore.data.screens.declare import check_declared


def deg_labels(
    screen: AnnData,
    *,
    variant: str = "pooled",
    test: str = "welch",
    min_cells: int = 30,
    strict: bool = True,
    alpha: float = 0.05,
    genes=None,
    size_factors: str = "all",
    statistics: bool = False,
    progress: bool = True,
) -> AnnData:
    """Label the genes that each perturbation moves up (1) or down (-1), or not (0).

    Parameters
    ----------
    screen : AnnData
        A declared screen, in memory or backed on disk; values are log1p(1e4 * count / total).
    variant : {"pooled", "per_batch"}
        ``"pooled"``, for small batches: all perturbed against all control cells of the cell line,
        batches ignored. ``"per_batch"``, for large ones: perturbed against control cells of the
        same batch, then a majority vote of the batches
        (:func:`perturbcore.data.deg.tests.majority`).
    test : {"welch", "student"}
        Welch's t-test, as the published code has it, or Student's, as the paper's text says.
    min_cells : int
        Cells that a perturbation, and the controls, must have in the cell line (pooled) or in the
        batch (per_batch). Published: 30 in the paper; 30 (Essential) and 20 (chemicals) in the
        code. Two cells are needed in any case: one has no variance.
    strict : bool
        Whether they must have more than `min_cells` (the code) or at least as many (the paper).
    alpha : float
        False discovery rate: genes with an adjusted p-value below it are labelled.
    genes : list of str, optional
        Genes tested and corrected for, in this order; default all.
    size_factors : {"all", "kept"}
        Whether a cell's total is over all genes of the screen (normalise, then filter) or over
        `genes` (filter, then normalise, as published for chemicals).
    statistics : bool
        Keep layers ``t`` and ``p_adj`` (float32); pooled only.
    progress : bool
        Show a bar where the work takes long.

    Returns
    -------
    AnnData, (cell_line, perturbation) x genes
        Task "deg", without folds: layers ``deg`` int8 (X the same as float32); obs `perturbation`,
        `cell_line`, `n_cells`, `n_batches` (those that were tested). Per batch also layers
        ``votes_up`` and ``votes_down`` (int16), out of `n_batches`. Sorted by cell line and
        perturbation. ``uns["perturbcore"]["n_too_few"]``: perturbations left out for lack of cells.

    Raises
    ------
    ParameterError, InputError
        An option is not one of those above; the screen is not declared, a gene is not in it, a
        cell line has too few control cells, or no perturbation has enough cells.

    Notes
    -----
    Tests need only counts, sums and sums of squares: the cells are read once and never held; beyond
    2 GB of sums the screen is read in several passes. In `per_batch` a perturbation's label is of
    all batches in which it and the controls have enough cells.

    References
    ----------
    Cole et al. 2026, Methods 4.2.2.
    """
    check_declared(screen)
    check_test(test, alpha)
    if statistics and variant != "pooled":
        raise ParameterError("statistics=True is for variant='pooled': a vote has no statistic")
    column, kept = gene_columns(screen, genes)
    plan = plan_tests(screen.obs, variant, min_cells, strict)
    shape = (len(plan.rows), len(kept))
    up, down = (np.zeros(shape, dtype=np.int16) for _ in range(2))
    layers = {k: np.zeros(shape, dtype=np.float32) for k in ("t", "p_adj") if statistics}
    size, row_of = plan.groups["n"].to_numpy(), plan.groups["row"].to_numpy()
    for control, treated, first, second in summed(
        screen, plan.group_of_cell, np.ones(screen.n_obs), plan.blocks(), column,
        size_factors=size_factors, squares=True, progress=progress,
    ):  # fmt: skip
        n = size[[*control, *treated]]
        mean, var = mean_and_variance(first, second, n)
        t, df = t_statistics(mean[1:], var[1:], n[1:], mean[0], var[0], n[0], test)
        row = row_of[treated]
        label = call_genes(t, df, alpha)
        up[row] += label > 0
        down[row] += label < 0
        if statistics:
            layers["t"][row] = t
            layers["p_adj"][row] = false_discovery_control(p_values(t, df), axis=1)
    if variant == "pooled":
        label = (up - down).astype(np.int8)
    else:
        votes = plan.rows["n_batches"].to_numpy(dtype=np.int16)[:, None]
        label = majority(up, down, votes - up - down)
        layers.update(votes_up=up, votes_down=down)
    declared = screen.uns["perturbcore"]
    out = make_responses(
        label, plan.rows, kept, dataset=str(declared["dataset"]), task="deg",
        identifier=str(declared["identifier"]), simulated=bool(declared["simulated"]),
    )  # fmt: skip
    out.layers.update(layers)
    out.uns["perturbcore"].update(
        variant=variant, test=test, alpha=float(alpha), min_cells=int(min_cells),
        strict=bool(strict), size_factors=size_factors, n_too_few=plan.n_too_few,
    )  # fmt: skip
    return out
