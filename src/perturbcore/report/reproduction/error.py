"""Experimental error of raw cells, in the published columns."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError, check_choice
from perturbcore.data.authors.layout import layout_of
from perturbcore.data.authors.raw import raw_screens
from perturbcore.data.screens.declare import normalise
from perturbcore.report.reproduction.benchmark import METRICS
from perturbcore.score.ceiling.ceiling import noise_ceiling


def error_of_raw(
    dataset: str,
    folder,
    *,
    control: str | None = None,
    totals: str = "kept",
    dose: float | None = None,
    n_outer: int | None = None,
    n_inner: int | None = None,
    cell_line: str | None = None,
    backed: bool = True,
    **options,
) -> pd.DataFrame:
    """Compute the experimental error of every perturbation (Cole et al. 2026, Eq. 12).

    `control`: controls of the whole line, or of the same batch; as published by default (global
    for Essential and for Norman, whose effects are matched); `totals`: chemicals: the published
    error is on cells normalised over kept genes, its effects over all; `n_outer, n_inner`:
    draws of batches and of cells in each; 10 x 10, chemicals 10 x 20 by default; `cell_line`:
    only this line; `options`: of `noise_ceiling`.

    Returns the published columns. Genes: quantile, L2, MSE, MAE, Spearman, Pearson, pert_id,
    n_batches_pert; chemicals: quantile, value (L2), pert_id, n_batches_pert. With `cell_line` where
    there are several (chemicals: ``<dataset>_<line>``).
    """
    layout = layout_of(dataset)
    first = check_choice("totals", totals, ("all", "kept")) == "kept"
    control = check_choice("control", control or layout.error_control, ("global", "matched"))
    outer, inner = layout.trials
    tables, lines = [], set()
    for screen in raw_screens(dataset, folder, filter_first=first, dose=dose, backed=backed):
        here = screen.obs["cell_line"].astype(str)
        lines |= set(here)
        if cell_line is not None:
            screen = screen[np.flatnonzero(here == cell_line)]
            if not screen.n_obs:
                continue
        if not first and "genes" in screen.uns["perturbcore"]:
            screen = normalise(screen)[:, list(screen.uns["perturbcore"]["genes"])]
        draws = dict(n_outer=n_outer or outer, n_inner=n_inner or inner)
        metrics = ("L2",) if layout.chemical else METRICS
        tables.append(noise_ceiling(screen, control=control, metrics=metrics, **draws, **options))
    if not tables:
        raise InputError(
            f"{folder}: no cell line '{cell_line}'; there are: {', '.join(sorted(lines))}"
        )
    keys = ["cell_line", "perturbation", "quantile", "n_batches"]
    wide = pd.concat(tables).pivot(index=keys, columns="metric", values="value").reset_index()
    wide = wide.rename(columns={"perturbation": "pert_id", "n_batches": "n_batches_pert"})
    columns = ["quantile", *METRICS, "pert_id", "n_batches_pert"]
    if wide["cell_line"].nunique() > 1:
        columns.append("cell_line")
    if layout.chemical:
        wide = wide.rename(columns={"L2": "value"})
        wide["cell_line"] = f"{dataset}_" + wide["cell_line"]
        columns = ["quantile", "value", "pert_id", "n_batches_pert", "cell_line"]
    return wide[columns].rename_axis(columns=None)
