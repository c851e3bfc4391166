"""Experimental error of raw cells, in the published columns."""

import numpy as np
import pandas as pd

from perturbcore.core.errors import InputError
from perturbcore.data.authors.layout import layout_of
from perturbcore.data.authors.raw import ERROR_CONTROLS, TRIALS, check_choice, raw_screens
from perturbcore.data.screens.read import normalise
from perturbcore.score.ceiling.ceiling import noise_ceiling

ERROR_METRICS = ("L2", "MSE", "MAE", "Spearman", "Pearson")


def error_of_raw(
    dataset: str,
    folder,
    *,
    control: str | None = None,
    totals: str = "kept",
    dose: float | None = None,
    n_outer: int | None = None,
    n_inner: int | None = None,
    seed: int = 5050,
    cell_line: str | None = None,
    backed: bool = True,
    n_jobs: int = 1,
    progress: bool = True,
    checkpoint=None,
) -> pd.DataFrame:
    """Compute the experimental error of every perturbation, in the published columns.

    Parameters
    ----------
    dataset, folder, dose, backed, progress
        See `effects_of_raw`.
    control : {"global", "matched"}, optional
        Controls of the whole line, or of the same batch; as published by default (global for
        Essential and for Norman, whose effects are matched).
    totals : {"kept", "all"}
        Chemicals: see `effects_of_raw`; the published error is on cells normalised over kept genes.
    n_outer, n_inner : int, optional
        Draws of batches and of cells in each; 10 x 10, chemicals 10 x 20 by default.
    seed : int
    cell_line : str, optional
        Only this line.
    n_jobs : int
        Threads.
    checkpoint : path, optional
        Keeps finished perturbations.

    Returns
    -------
    pandas.DataFrame
        Genes: quantile, L2, MSE, MAE, Spearman, Pearson, pert_id, n_batches_pert; chemicals:
        quantile, value (L2), pert_id, n_batches_pert. With `cell_line` where there are several
        (chemicals: ``<dataset>_<line>``, as published).

    References
    ----------
    Cole et al. 2026, Methods 4.7.1, Eq. 12.
    """
    check_choice("totals", totals, ("all", "kept"))
    control = check_choice(
        "control", control or ERROR_CONTROLS[layout_of(dataset).name], ("global", "matched")
    )
    outer, inner = TRIALS[dataset]
    drugs = layout_of(dataset).identifier == "drug"
    tables, lines = [], set()
    for screen in raw_screens(
        dataset, folder, filter_first=totals == "kept", dose=dose, backed=backed
    ):
        lines |= set(screen.obs["cell_line"].astype(str))
        if cell_line is not None:
            rows = np.flatnonzero(screen.obs["cell_line"].astype(str) == cell_line)
            if not len(rows):
                continue
            screen = screen[rows]
        if totals == "all" and "genes" in screen.uns["perturbcore"]:
            kept = list(screen.uns["perturbcore"]["genes"])
            screen = normalise(screen)[:, kept]
        tables.append(
            noise_ceiling(
                screen,
                control=control,
                n_outer=n_outer or outer,
                n_inner=n_inner or inner,
                seed=seed,
                metrics=("L2",) if drugs else ERROR_METRICS,
                batches="all",
                n_jobs=n_jobs,
                progress=progress,
                checkpoint=checkpoint,
            )
        )
    if not tables:
        raise InputError(
            f"{folder}: no cell line '{cell_line}'; there are: {', '.join(sorted(lines))}"
        )
    return published_columns(pd.concat(tables, ignore_index=True), dataset)


def published_columns(ceiling: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Lay a ceiling table out in the published columns; see `error_of_raw`."""
    drugs = layout_of(dataset).identifier == "drug"
    keys = ["cell_line", "perturbation", "quantile", "n_batches"]
    wide = ceiling.pivot(index=keys, columns="metric", values="value").reset_index()
    wide = wide.rename(columns={"perturbation": "pert_id", "n_batches": "n_batches_pert"})
    values = ["value"] if drugs else list(ERROR_METRICS)
    wide = wide.rename(columns={"L2": "value"}) if drugs else wide
    several = wide["cell_line"].nunique() > 1
    if drugs:
        wide["cell_line"] = f"{dataset}_" + wide["cell_line"]
    columns = ["quantile", *values, "pert_id", "n_batches_pert"]
    columns += ["cell_line"] if several or drugs else []
    wide.columns.name = None
    return wide[columns].reset_index(drop=True)
