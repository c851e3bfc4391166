"""Readers of the published experimental-error tables."""

import pandas as pd

from perturbcore.core.errors import InputError, ParameterError
from perturbcore.report.published.read import LFC_METRICS, SCORE_COLUMNS, numbers, read_csv


def read_ceiling(path, *, dataset: str, cell_line: str | None = None) -> pd.DataFrame:
    """Read one published table of per-perturbation experimental error.

    Parameters
    ----------
    path : str or Path
        For instance `exp_err_essential_k562_outer_10_inner_10_seed_5050.csv`.
    dataset : str
        Data set of the table.
    cell_line : str, optional
        For tables of one cell line; the Sciplex table names its lines itself.

    Returns
    -------
    pandas.DataFrame
        dataset, cell_line, perturbation, quantile, metric, value, n_batches; `n_cells` is not
        published and is missing.

    Raises
    ------
    InputError
        If the file is absent, damaged or renamed; the message names file and column.

    References
    ----------
    Cole et al. 2026, Eq. 12 and Section 4.7.1.
    """
    table = read_csv(path, ("quantile", "pert_id", "n_batches_pert"))
    if "L2" not in table.columns and "value" not in table.columns:
        raise InputError(f"{path}: column 'L2' (or 'value') is missing; fetch the table again")
    if cell_line is None and "cell_line" not in table.columns:
        raise InputError(f"{path}: column 'cell_line' is missing, and none was given")
    if table["pert_id"].isna().any():
        row = int(table["pert_id"].isna().to_numpy().argmax())
        raise InputError(f"{path}: column 'pert_id', data row {row + 1} is empty; fetch it again")
    table = table.rename(columns={"value": "L2"})
    metrics = [m for m in LFC_METRICS if m in table.columns]
    out = pd.DataFrame(
        {
            "dataset": dataset,
            "cell_line": cell_line
            or table.get("cell_line", pd.Series(dtype=str)).str.removeprefix(f"{dataset}_"),
            "perturbation": table["pert_id"],
            "quantile": numbers(table, "quantile", path, needed=True),
            "n_batches": numbers(table, "n_batches_pert", path, needed=True).astype(int),
        }
    )
    for metric in metrics:
        out[metric] = numbers(table, metric, path, needed=True)
    counts = out.groupby(["cell_line", "perturbation"])["quantile"].nunique()
    if counts.nunique() != 1:
        short = counts.idxmin()
        raise InputError(
            f"{path}: column 'quantile': perturbation {short[1]!r} has {counts.min()} quantiles, "
            f"others have {counts.max()}; the table looks truncated; fetch it again"
        )
    ids = ["dataset", "cell_line", "perturbation", "quantile", "n_batches"]
    return out.melt(ids, metrics, "metric", "value")


def experimental_error(
    ceiling: pd.DataFrame, folds: pd.Series | None = None, *, quantile: float = 0.9
) -> pd.DataFrame:
    """Experimental-error rows of the scores schema from per-perturbation quantiles.

    For each fold the row is the mean, over the fold's test perturbations, of the perturbation's
    quantile. The published folds of Essential and Sciplex come with the authors' data and not with
    their tables; without `folds` there is one row a cell line over all perturbations, with fold -1.

    Parameters
    ----------
    ceiling : pandas.DataFrame
        As `read_ceiling` returns.
    folds : pandas.Series, optional
        Fold of each perturbation (index: perturbation; values: 0, 1, ...).
    quantile : float
        Which quantile over the resamples; the paper uses 0.9 where lower is better.

    Returns
    -------
    pandas.DataFrame
        Columns `SCORE_COLUMNS`.

    Raises
    ------
    ParameterError
        If the quantile is not in the table.
    InputError
        If a perturbation has no fold.

    References
    ----------
    Cole et al. 2026, Section 4.7.1.
    """
    have = sorted(ceiling["quantile"].unique())
    if quantile not in have:
        raise ParameterError(f"quantile {quantile} is not in the table, which has {have}")
    rows = ceiling[ceiling["quantile"] == quantile].copy()
    if folds is None:
        rows["fold"] = -1
    else:
        rows["fold"] = rows["perturbation"].map(folds)
        if rows["fold"].isna().any():
            lost = rows.loc[rows["fold"].isna(), "perturbation"].iloc[0]
            raise InputError(f"perturbation {lost!r} of the experimental-error table has no fold")
        rows["fold"] = rows["fold"].astype(int)
    keys = ["dataset", "cell_line", "fold", "metric"]
    out = rows.groupby(keys, as_index=False, sort=True)["value"].mean()
    out = out.assign(
        task="lfc",
        embedding="",
        display="Experimental Error",
        modality="Positive control",
        predictor="experimental_error",
        method=f"Experimental error (quantile {quantile})",
        perturbation_set="full",
        source="published",
    )
    return out[SCORE_COLUMNS]
